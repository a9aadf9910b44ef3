"""Every experiment that takes long, in a configuration of about a second, in the order in which they build on another.

In settings, {base} is the folder of all experiments' unbroken runs and of the clips, {out} that of the run itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from battery.small import ASKED, BRIEF, CLIPS, DRAWN, PIXELS


@dataclass(frozen=True)
class Experiment:
    """A command with its settings.

    Attributes:
        name: of its folder.
        command: of `evatok`.
        settings: what differs from the defaults.
        outputs: the keys of what it writes, and its name below {out}.
        later: whether it is left out of the tests that CI runs.
    """

    name: str
    command: str
    settings: dict[str, Any]
    outputs: dict[str, str] = field(default_factory=dict)

    def configured(self, base: Path, out: Path) -> dict[str, Any]:
        """All settings, with paths in their places."""

        def placed(value: Any) -> Any:
            if isinstance(value, str):
                return value.replace("{base}", str(base)).replace("{out}", str(out))
            return value

        given = {"records_folder": "records", **self.outputs}
        return {
            **{key: placed(value) for key, value in self.settings.items()},
            **{key: str(out / name) for key, name in given.items()},
        }

    def line(self, base: Path, out: Path, **changes: Any) -> list[str]:
        """The arguments of `evatok` that run it."""
        return [self.command, "with", *words({**self.configured(base, out), **changes})]


def words(settings: dict[str, Any]) -> list[str]:
    """key=value for each setting, quoted so that texts stay texts."""
    return [f"{key}={value!r}" for key, value in settings.items()]


TRAINING = {"steps": 6, "batch": 4, "warmup": 1, "log_every": 1, "save_every": 2, "threads": 1}
CLIP_SETS = {"train_clips": CLIPS, "validation_clips": 4}
PLACES = {"work": "work", "checkpoint": "checkpoint.safetensors"}

_TABLE = {"threads": 1, "batch": 3, "shard_length": 3, "bf16": False, "clips": CLIPS}
_TOKENIZER = {**TRAINING, **CLIP_SETS, "data": "{base}/clips/both", "bf16": False}
_ENCODERS = {
    "alignment": "{base}/pretrain_videomae/encoder",
    "alignment_layer": 1,
    "semantic_encoder": "{base}/pretrain_videomae/encoder",
    "semantic_layers": [1, 2],
    "discriminator": "semantic",
}
_GENERATOR = {
    **_TOKENIZER,
    "tokenizer": "{base}/stage4_final/checkpoint.safetensors",
    "router": "{base}/stage3_router/checkpoint.safetensors",
}
_FLEX = {**_TOKENIZER, "alignment": "none", "validation_data": "", "measured_steps": [1, 2]}
_SAMPLE = {
    "tokenizer": "{base}/stage4_final/checkpoint.safetensors",
    "router": "{base}/stage3_router/checkpoint.safetensors",
    "classifier": "{base}/train_classifier/checkpoint.safetensors",
    "protocol": DRAWN,
    "data": "{base}/clips/drawn",
    "metrics": "",
    "threads": 1,
    "batch": 2,
    "shard_length": 2,
    "show": 3,
}
_FLEX_GENERATOR = {"tokenizer": "{base}/videoflextok_stage2/checkpoint.safetensors"}
_FLEX_SAMPLE = {
    **_FLEX_GENERATOR,
    "count": 4,
    "flow_steps": 2,
    "batch": 2,
    "shard_length": 2,
    "show": 2,
    "threads": 1,
}
_STILLS = {**TRAINING, "batch": 8, "ema": 0.8}
_LANGUAGE = {
    **_STILLS,
    "width": 16,
    "layers": 1,
    "heads": 2,
    "train_clips": 20,
    "encoder": "{base}/train_image_encoder/checkpoint.safetensors",
}
_KEPT = {**PLACES, "per_clip": "per_clip"}
_ENCODED = {"encoder": _LANGUAGE["encoder"], "threads": 1}
_DRAWN = {"decoder": "{base}/vtok_decoder/checkpoint.safetensors"}

EXPERIMENTS = [
    Experiment(
        "pretrain_videomae",
        "pretrain_videomae",
        {
            **TRAINING,
            **CLIP_SETS,
            "data": "{base}/clips/both",
            "probe_data": "{base}/clips/both",
            "probe_train_clips": CLIPS,
            "probe_clips": 6,
            "probe_labels": ["motion"],
            "masking": 0.5,
            "bf16": False,
        },
        {"work": "work", "checkpoint": "encoder"},
    ),
    Experiment("stage1_proxy", "stage1_proxy", {**_TOKENIZER, "discriminator": "transformer"}, PLACES),
    Experiment(
        "train_table",
        "stage2_curation",
        {
            **_TABLE,
            "tokenizer": "{base}/stage1_proxy/checkpoint.safetensors",
            "data": "{base}/clips/train",
            "split": "train",
        },
        {"work": "work", "table": "table.parquet"},
    ),
    Experiment(
        "validation_table",
        "stage2_curation",
        {
            **_TABLE,
            "tokenizer": "{base}/stage1_proxy/checkpoint.safetensors",
            "data": "{base}/clips/validation",
            "split": "validation",
        },
        {"work": "work", "table": "table.parquet"},
    ),
    Experiment(
        "stage3_router",
        "stage3_router",
        {
            **TRAINING,
            "train_table": "{base}/train_table/table.parquet",
            "validation_table": "{base}/validation_table/table.parquet",
            "bf16": False,
        },
        PLACES,
    ),
    Experiment(
        "stage4_final",
        "stage4_final",
        {**_TOKENIZER, **_ENCODERS, "router": "{base}/stage3_router/checkpoint.safetensors"},
        PLACES,
    ),
    Experiment(
        "evaluate",
        "evaluate",
        {
            "protocol": BRIEF,
            "checkpoint": "{base}/stage4_final/checkpoint.safetensors",
            "assignment": "router:{base}/stage3_router/checkpoint.safetensors",
            "data": "{base}/clips/brief",
            "batch": 2,
            "shard_length": 2,
            "threads": 1,
        },
        {"work": "work", "per_clip": "per_clip"},
    ),
    Experiment(
        "curves",
        "curves",
        {
            "checkpoint": "{base}/stage1_proxy/checkpoint.safetensors",
            "table": "{base}/validation_table/table.parquet",
            "routers": "{base}/stage3_router/checkpoint.safetensors",
            "weights": [0.4, 1.6],
            "thresholds": 2,
            "metrics": "psnr,l1",
            "draws": 20,
            "batch": 8,
            "shard_length": 8,
            "threads": 1,
        },
        {"work": "work"},
    ),
    Experiment("stage5_class", "stage5_generator", _GENERATOR, PLACES),
    Experiment("stage5_frames", "stage5_generator", {**_GENERATOR, "task": "frames"}, PLACES),
    Experiment(
        "train_classifier",
        "train_classifier",
        {**TRAINING, **CLIP_SETS, "data": "{base}/clips/both", "pixels": PIXELS, "width": 8, "frame_label": ""},
        PLACES,
    ),
    Experiment(
        "sample",
        "sample",
        {**_SAMPLE, "generator": "{base}/stage5_class/checkpoint.safetensors"},
        {"work": "work", "output": "output", "per_clip": "per_clip"},
    ),
    Experiment(
        "predict",
        "sample",
        {**_SAMPLE, "classifier": "", "generator": "{base}/stage5_frames/checkpoint.safetensors"},
        {"work": "work", "output": "output", "per_clip": "per_clip"},
    ),
    Experiment("videoflextok_stage1", "videoflextok_stage1", _FLEX, PLACES),
    Experiment(
        "videoflextok_stage2",
        "videoflextok_stage2",
        {
            **{key: value for key, value in _FLEX.items() if key not in ("alignment",)},
            "tokenizer": "{base}/videoflextok_stage1/checkpoint.safetensors",
        },
        PLACES,
    ),
    Experiment(
        "videoflextok_long",
        "videoflextok_long",
        {
            "tokenizer": "{base}/videoflextok_stage2/checkpoint.safetensors",
            "data": "{base}/clips/long",
            "frames": 40,
            "clips": 4,
            "kept": [2],
            "flow_steps": 2,
            "batch": 2,
            "threads": 1,
            "bf16": False,
        },
    ),
    Experiment("stage5_ordered", "stage5_generator", {**_TOKENIZER, **_FLEX_GENERATOR}, PLACES),
    Experiment(
        "videoflextok_growing",
        "videoflextok_growing",
        {**_FLEX_SAMPLE, "generator": "{base}/stage5_ordered/checkpoint.safetensors", "kept": [1, 2]},
        {"work": "work", "shown": "shown.npz"},
    ),
    Experiment(
        "stage5_long",
        "stage5_generator",
        {**_TOKENIZER, **_FLEX_GENERATOR, "data": "{base}/clips/long", "train_clips": 4, "frames": 40, "kept": 2},
        PLACES,
    ),
    Experiment(
        "videoflextok_long_samples",
        "videoflextok_long_samples",
        {
            **_FLEX_SAMPLE,
            "generator": "{base}/stage5_long/checkpoint.safetensors",
            "classifier": "{base}/train_classifier/checkpoint.safetensors",
            "data": "{base}/clips/long",
        },
        {"work": "work", "shown": "shown.npz"},
    ),
    Experiment(
        "videoflextok_transfer",
        "videoflextok_transfer",
        {
            "tokenizer": "{base}/videoflextok_stage2/checkpoint.safetensors",
            "data": _FLEX["data"],
            "clips": 4,
            "kept": [2],
            "flow_steps": 2,
            "batch": 2,
            "show": 2,
            "threads": 1,
            "bf16": False,
        },
        {"output": "output"},
    ),
    Experiment(
        "train_image_encoder",
        "train_image_encoder",
        {**_STILLS, "train_clips": 20, "validation_clips": 20, "width": 16, "channels": 8},
        PLACES,
    ),
    Experiment("vtok_stills", "vtok_stills", {**_LANGUAGE, "test_clips": 20}, _KEPT),
    Experiment(
        "vtok_understanding",
        "vtok_understanding",
        {**_LANGUAGE, "start": "{base}/vtok_stills/checkpoint.safetensors", "limit": 10},
        _KEPT,
    ),
    Experiment(
        "vtok_decoder",
        "vtok_decoder",
        {**_LANGUAGE, "validation_clips": 20, "latents_kept": 8, "measured_steps": [2]},
        PLACES,
    ),
    Experiment("vtok_generation", "vtok_generation", {**_LANGUAGE, **_DRAWN, "start": "", "test_clips": 20}, PLACES),
    Experiment(
        "vtok_align",
        "vtok_align",
        {**_DRAWN, **_ENCODED, "writer": "{base}/vtok_generation/checkpoint.safetensors", "limit": 60, "flow_steps": 2},
        {"work": "work", "shown": "shown.npz", "per_clip": "per_clip"},
    ),
]
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
ASKED_CLIPS = ASKED
