"""What an experiment reads, each kind with the experiment that reads it, the ways to damage it, and what to expect.

An input lies in a copy of its own, {in} in settings, or where the experiment keeps what it resumes from, {out}.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from battery import damage
from battery.base import Base
from battery.damage import Damage
from battery.experiments import BY_NAME, words
from battery.small import PIXELS, gratings

BYTES = (damage.of_bytes, damage.of_bytes, damage.of_place)
CHECKPOINT = (*BYTES, damage.of_header, damage.of_header, damage.of_weights)
JSON = (*BYTES, damage.of_json, damage.of_json)


@dataclass(frozen=True)
class Input:
    """A kind of input.

    Attributes:
        name: of the kind.
        reader: name of the experiment that reads it.
        settings: of that experiment, by which it reads the copy at {in}.
        source: what is copied, below the base; "" where `make` makes it.
        to: "in", or the folder below {out} that the copy is put at.
        files: what of the copy is damaged, as a pattern; "" damages the copy itself, a file.
        damages: the ways to damage it.
        free: whether the damaged input may be a sound one with another meaning, as a text written by hand can.
        make: writes the input to a path.
    """

    name: str
    reader: str
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    to: str = "in"
    files: str = ""
    damages: tuple[Damage, ...] = BYTES
    free: bool = False
    make: Callable[[Path], None] | None = None

    def place(self, base: Base, out: Path, drawn: random.Random) -> tuple[Damage, str]:
        """Put a damaged copy where the reader finds it; returns how it was damaged, and what was done."""
        copied = self.copy(out)
        copied.parent.mkdir(parents=True, exist_ok=True)
        if self.make:
            self.make(copied)
        elif (base.folder / self.source).is_dir():
            shutil.copytree(base.folder / self.source, copied, dirs_exist_ok=True)
        else:
            shutil.copy(base.folder / self.source, copied)
        files = sorted(path for path in copied.rglob(self.files) if path.is_file()) if self.files else [copied]
        how = drawn.choice(self.damages)
        return how, how(drawn.choice(files), drawn)

    def copy(self, out: Path) -> Path:
        """Where the copy lies, called as what it is a copy of: records tell sets by their names."""
        return out / self.to / Path(self.source or "own").name if self.to == "in" else out / self.to

    def line(self, base: Base, out: Path) -> list[str]:
        """The arguments of `evatok` that read it."""
        experiment = BY_NAME[self.reader]
        settings = experiment.configured(base.folder, out)
        for key, value in self.settings.items():
            settings[key] = value.replace("{in}", str(self.copy(out))) if isinstance(value, str) else value
        return [experiment.command, "with", *words(settings)]


def _videos(folder: Path) -> None:
    """Class folders of short videos."""
    for number, clip in enumerate(gratings(6, 5)):
        path = folder / ("walk", "turn")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width = stream.height = PIXELS
            stream.pix_fmt = "yuv420p"
            for frame in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
            container.mux(stream.encode())


def _manifest(path: Path) -> None:
    """A manifest of videos beside it."""
    _videos(path.with_name("videos"))
    rows = [f"videos/{('walk', 'turn')[n % 2]}/{n}.mp4,{('walk', 'turn')[n % 2]},0.0,train" for n in range(6)]
    path.write_text("\n".join(["path,label,start,split", *rows]) + "\n")


def _arrays(folder: Path) -> None:
    """Clips in arrays, named as the protocol's are numbered."""
    folder.mkdir(parents=True)
    for number, clip in enumerate(gratings(6, 5)):
        np.save(folder / f"{number}.npy", clip)


_OWN = {"validation_data": "{in}", "train_clips": 0, "validation_clips": 0, "batch": 2}
_TOKENIZER, _ROUTER = "stage4_final/checkpoint.safetensors", "stage3_router/checkpoint.safetensors"

INPUTS = [
    Input("tokenizer", "evaluate", {"checkpoint": "{in}"}, _TOKENIZER, damages=CHECKPOINT),
    Input("router", "evaluate", {"assignment": "router:{in}"}, _ROUTER, damages=CHECKPOINT),
    Input("proxy of a table", "train_table", {"tokenizer": "{in}"}, "stage1_proxy/checkpoint.safetensors"),
    Input("start", "stage1_proxy", {"start_from": "{in}"}, "stage1_proxy/checkpoint.safetensors", damages=CHECKPOINT),
    Input("router of a final", "stage4_final", {"router": "{in}"}, _ROUTER, damages=CHECKPOINT),
    Input("generator", "sample", {"generator": "{in}"}, "stage5_class/checkpoint.safetensors", damages=CHECKPOINT),
    Input("predictor", "predict", {"generator": "{in}"}, "stage5_frames/checkpoint.safetensors", damages=CHECKPOINT),
    Input(
        "classifier", "sample", {"classifier": "{in}"}, "train_classifier/checkpoint.safetensors", damages=CHECKPOINT
    ),
    Input(
        "flow tokenizer",
        "videoflextok_long",
        {"tokenizer": "{in}"},
        "videoflextok_stage2/checkpoint.safetensors",
        damages=CHECKPOINT,
    ),
    Input(
        "image encoder",
        "vtok_stills",
        {"encoder": "{in}"},
        "train_image_encoder/checkpoint.safetensors",
        damages=CHECKPOINT,
    ),
    Input(
        "language model",
        "vtok_understanding",
        {"start": "{in}"},
        "vtok_stills/checkpoint.safetensors",
        damages=CHECKPOINT,
    ),
    Input(
        "candidate table",
        "stage3_router",
        {"train_table": "{in}"},
        "train_table/table.parquet",
        damages=(*BYTES, damage.of_table, damage.of_table),
    ),
    Input(
        "table of curves",
        "curves",
        {"table": "{in}"},
        "validation_table/table.parquet",
        damages=(*BYTES, damage.of_table, damage.of_table),
    ),
    Input(
        "shards of a table",
        "train_table",
        source="train_table/work",
        to="work",
        files="*.parquet",
        damages=(*BYTES, damage.of_table),
    ),
    Input("shards of an evaluation", "evaluate", source="evaluate/work", to="work", files="*.safetensors"),
    Input("shards of curves", "curves", source="curves/work", to="work", files="*.safetensors"),
    Input("shards of samples", "sample", source="sample/work", to="work", files="*.safetensors"),
    Input("codes", "stage5_class", source="stage5_class/cache", to="cache", files="*.safetensors"),
    Input(
        "state",
        "stage1_proxy",
        source="stage1_proxy/work",
        to="work",
        files="state.pt",
        damages=(*BYTES, damage.of_state, damage.of_state),
    ),
    Input("curve", "stage3_router", source="stage3_router/work", to="work", files="curve.jsonl"),
    Input("claim", "stage5_class", source="stage5_class/work", to="work", files="training.json", damages=JSON),
    Input("records", "evaluate", source="evaluate/records", to="records", files="*.json", damages=JSON),
    Input(
        "pixels", "stage1_proxy", {"data": "{in}"}, "clips/both", files="clips.npy", damages=(*BYTES, damage.of_array)
    ),
    Input(
        "labels",
        "train_classifier",
        {"data": "{in}"},
        "clips/both",
        files="labels.csv",
        damages=(*BYTES, damage.of_lines, damage.of_lines),
    ),
    Input("set's manifest", "evaluate", {"data": "{in}"}, "clips/brief", files="manifest.json", damages=JSON),
    Input("encoder", "stage4_final", {"alignment": "{in}"}, "pretrain_videomae/encoder", files="*"),
    Input(
        "encoder's configuration",
        "stage4_final",
        {"alignment": "{in}"},
        "pretrain_videomae/encoder",
        files="config.json",
        damages=(damage.of_json,),
    ),
    Input(
        "cached clips",
        "vtok_stills",
        source="vtok_stills/cache",
        to="cache",
        files="*.*",
    ),
    Input("videos", "stage1_proxy", {"data": "{in}", **_OWN}, files="*.mp4", free=True, make=_videos),
    Input(
        "manifest",
        "stage1_proxy",
        {"data": "{in}", **_OWN},
        damages=(*BYTES, damage.of_lines, damage.of_lines),
        free=True,
        make=_manifest,
    ),
    Input(
        "arrays",
        "evaluate",
        {"fake": "{in}"},
        files="*.npy",
        damages=(*BYTES, damage.of_array),
        free=True,
        make=_arrays,
    ),
]
