"""Train VTok's image encoder on single frames and their captions; frozen, it serves every strategy.

Measured on stills of the validation split: F1 of the predicted word pairs (colour with shape, fill, size). Rerun the
command to resume a killed run.

    python -m evatok.experiments.train_image_encoder with toy    CPU, three minutes: the one that ships
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet, to_network
from evatok.data.sets import clip_set
from evatok.experiments import runner, tracking, vtok_training
from evatok.experiments.setting import TRAINING
from evatok.metrics import catalogue
from evatok.storage import checkpoints, records
from evatok.training import loop
from evatok.vtok import image_encoder
from evatok.vtok.image_encoder import PAIRS, ImageEncoder, ImageEncoderConfig

ex = tracking.experiment("train_image_encoder", __doc__, vtok_training.SHARED)

STILLS = "moving-shapes-stills"
STANDARDISED = 1024  # training stills used to standardise features to mean 0 and deviation 1
GROUPS = {"shape": slice(0, 24), "fill": slice(24, 36), "size": slice(36, 54)}


@ex.config
def config() -> None:
    train_clips = 8000  # stills
    validation_clips = 1000  # stills
    pixels = 64
    width = 64
    channels = 48
    steps = 1200
    batch = 64
    learning_rate = 2e-3
    patch_weight = 1.0
    work = "results/work/vtok/image_encoder"
    checkpoint = "results/checkpoints/vtok-image-encoder-toy.safetensors"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, TRAINING)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, EncoderTask)


class EncoderTask(runner.Task[ImageEncoder]):
    """An image encoder trained to predict the words of stills' captions."""

    kind = "train_image_encoder"

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.stills = {split: _stills(config, split) for split in ("train", "validation")}
        self.inputs = self.stills["train"].sha256
        torch.manual_seed(config["seed"])
        self.shape = ImageEncoderConfig(config["pixels"], config["width"], config["channels"])
        self.module = ImageEncoder(self.shape).to(config["device"])
        self.lesson = Objective(self.stills["train"], config)
        self.objective = self.lesson

    def ship(self, averaged: ImageEncoder, path: Path, changes: dict[str, Any]) -> None:
        count = min(STANDARDISED, len(self.stills["train"]))
        averaged.standardise(self.lesson.frames(np.arange(count)))
        told = {name: self.config[name] for name in ("size", "steps")}
        checkpoints.save(
            path,
            averaged,
            kind="image_encoder",
            config=self.shape.to_dict(),
            parents={"train_stills": self.inputs},
            facts={"pairs": [" ".join(pair) for pair in PAIRS], **told, **changes},
        )

    def measure(self, averaged: ImageEncoder, path: Path, folder: Path) -> runner.Measured:
        shipped, stills = ImageEncoder.load(path, self.config["device"]), self.stills["validation"]
        metrics = f1_of(shipped, stills, self.config["device"])
        return runner.Measured(
            protocol={"data": STILLS, "split": "validation", "manifest": stills.manifest},
            model={
                "sha256": shipped.checkpoint.sha256,
                "parents": {"train_stills": self.inputs},
                "parameters": sum(p.numel() for p in averaged.parameters()),
            },
            metrics=metrics,
            told={name: round(metric.value, 2) for name, metric in metrics.items()},
        )


class Objective:
    """The loss of one step: stills, their caption words, and their own patches."""

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
    """Compute F1 in percent of the predicted pairs, over all of them and per group."""
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
        found[name] = catalogue.of("f1").measured(share, len(stills))
    return found


def _stills(config: dict[str, Any], split: str) -> ClipSet:
    return clip_set(STILLS, split, config[f"{split}_clips"], size=config["pixels"], frames=1)


if __name__ == "__main__":
    tracking.command_line(ex)
