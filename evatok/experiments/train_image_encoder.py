"""Train VTok's image encoder on single frames and the words said of them; frozen, it serves every strategy.

Measured on stills of the validation split: F1 of the pairs of words (colour with shape, with fill, with size) that it
sees. Run again, the same command goes on where a killed one stopped.

    python -m evatok.experiments.train_image_encoder with toy    CPU, three minutes: the one that ships
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet, to_network
from evatok.data.sets import clip_set
from evatok.experiments import tracking
from evatok.experiments.setting import claim_folder, log_to, optional_artifact, recipe, set_threads
from evatok.storage import checkpoints, records
from evatok.training import loop
from evatok.vtok import image_encoder
from evatok.vtok.image_encoder import PAIRS, Frozen, ImageEncoder, ImageEncoderConfig

ex = tracking.experiment("train_image_encoder", __doc__)

STILLS = "moving-shapes-stills"
GROUPS = {"shape": slice(0, 24), "fill": slice(24, 36), "size": slice(36, 54)}


@ex.config
def config() -> None:
    size = "toy"  # the record's status: toy, small or paper
    train_clips = 8000  # stills of the training split
    validation_clips = 1000  # stills of the validation split on which it is measured
    pixels = 64  # a side of a frame
    width = 64  # numbers in a feature
    channels = 48  # of the second layer
    steps = 1200  # optimiser steps
    batch = 64  # stills a step
    learning_rate = 2e-3  # peak of the cosine
    final_learning_rate = 2e-5  # end of the cosine
    warmup = 50  # steps
    weight_decay = 0.01
    clip_norm = 1.0  # gradient norm
    ema = 0.99  # decay of the weights' running mean, which is what ships
    patch_weight = 1.0  # of the L1 of patches beside the words' cross-entropy
    minutes = 0.0  # wall-clock budget in minutes; saves and exits, rerun to resume (0: none)
    device = "cpu"  # cpu or cuda
    threads = 0  # CPU threads (0: PyTorch's default)
    log_every = 20  # steps a line of the curve
    save_every = 200  # steps between resumable states
    work = "results/work/vtok/image_encoder"  # folder of the resumable state and the curve
    checkpoint = "results/checkpoints/vtok-image-encoder-toy.safetensors"  # where the finished encoder goes
    records_folder = "results/records"  # where the record goes
    seed = 0


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    shape = ImageEncoderConfig(config["pixels"], config["width"], config["channels"])
    stills = {split: _stills(config, split) for split in ("train", "validation")}
    folder = claim_folder(Path(config["work"]), config, stills["train"].sha256, tracker)
    torch.manual_seed(config["seed"])
    module = ImageEncoder(shape).to(config["device"])
    objective = Objective(stills["train"], config)
    try:
        averaged = loop.train(
            module,
            objective,
            recipe(config),
            folder,
            description="image encoder",
            on_log=log_to(tracker),
            seconds=60 * config["minutes"] or None,
        )
    except loop.SliceEnded as ended:
        return {"complete": False, "step": ended.step, "steps": ended.steps}
    averaged.standardise(objective.frames(np.arange(min(1024, len(stills["train"])))))
    path = Path(config["checkpoint"])
    sha256 = checkpoints.save(
        path,
        averaged,
        kind="image_encoder",
        config=shape.to_dict(),
        parents={"train_stills": stills["train"].sha256},
        facts={"size": config["size"], "steps": config["steps"], "pairs": [" ".join(pair) for pair in PAIRS]},
    )
    metrics = f1_of(Frozen.load(path, config["device"]).module, stills["validation"], config["device"])
    record = records.new_record(
        kind="train_image_encoder",
        status=config["size"],
        protocol={"data": STILLS, "split": "validation", "manifest": stills["validation"].manifest},
        model={
            "sha256": sha256,
            "parents": {"train_stills": stills["train"].sha256},
            "parameters": sum(p.numel() for p in averaged.parameters()),
            "run": tracker.run_id,
        },
        metrics=metrics,
        config=config,
        environment={**tracker.environment(), "wall_seconds": loop.seconds_spent(folder)},
        artifacts=optional_artifact("checkpoint", path),
    )
    written = records.write(record, config["records_folder"])
    tracker.artifact(folder / "curve.jsonl")
    told = {name: round(metric.value, 2) for name, metric in metrics.items()}
    return {"complete": True, "checkpoint": str(path), "record": written.stem, **told}


class Objective:
    """The loss of one step: stills, the words said of them, and their own patches."""

    def __init__(self, stills: ClipSet, config: dict[str, Any]) -> None:
        self.stills, self.config = stills, config
        self.said = torch.from_numpy(image_encoder.said(stills.labels["caption"].tolist()))

    def frames(self, rows: np.ndarray) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1]."""
        return to_network(self.stills.clips[rows], self.config["device"])[:, :, 0]

    def __call__(self, module: ImageEncoder, step: int, generator: torch.Generator) -> tuple[torch.Tensor, loop.Terms]:
        config = self.config
        rows = loop.batch_indices(len(self.stills), config["batch"], step, config["seed"])
        terms = module.losses(self.frames(rows), self.said[rows].to(config["device"]))
        return terms["words"] + config["patch_weight"] * terms["patches"], terms


@torch.no_grad()
def f1_of(module: ImageEncoder, stills: ClipSet, device: str) -> dict[str, records.Metric]:
    """F1 in percent of the pairs told to be seen, over all of them and over each group."""
    wanted = image_encoder.said(stills.labels["caption"].tolist())
    parts = [
        module.seen(module.raw(to_network(stills.clips[start : start + 128], device)[:, :, 0])).cpu().numpy() > 0
        for start in range(0, len(stills), 128)
    ]
    told = np.concatenate(parts)
    groups = {"f1": slice(None), **{f"f1.{name}": where for name, where in GROUPS.items()}}
    found = {}
    for name, where in groups.items():
        hits = int((told[:, where] & wanted[:, where]).sum())
        share = 200 * hits / max(1, int(told[:, where].sum()) + int(wanted[:, where].sum()))
        found[name] = records.Metric(share, "%", len(stills), "higher")
    return found


def _stills(config: dict[str, Any], split: str) -> ClipSet:
    return clip_set(STILLS, split, config[f"{split}_clips"], size=config["pixels"], frames=1)


if __name__ == "__main__":
    tracking.command_line(ex)
