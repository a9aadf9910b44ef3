"""Stage A of VTok's language model: what colours, shapes, sizes, places and numbers are, taught on stills.

It stands for the paper's start from LLaVA-Next, which had learned from pictures. Every strategy starts from the one
model made here. Measured on stills of the test split. Run again, the same command goes on where a killed one stopped.

    python -m evatok.experiments.vtok_stills with toy    CPU, five minutes; needs train_image_encoder
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments import tracking, vtok_training
from evatok.experiments.vtok_training import Plan, Taught
from evatok.vtok.image_encoder import Frozen
from evatok.vtok.strategies import Strategy

ex = tracking.experiment("vtok_stills", __doc__)
ex.config(vtok_training.settings)

STILLS = "moving-shapes-stills"


@ex.config
def config() -> None:
    size = "toy"  # the record's status: toy, small or paper
    pixels = 64  # a side of a still
    key = 16  # spatial tokens of a still
    train_clips = 16000  # stills of the training split
    test_clips = 1000  # stills of the test split on which it is measured
    steps = 3000  # optimiser steps
    learning_rate = 2e-3  # peak of the cosine
    work = "results/work/vtok/stills"  # folder of the resumable state and the curve
    checkpoint = "results/checkpoints/vtok-stills-toy.safetensors"  # where the finished model goes


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    strategy = Strategy("key", key=config["key"])
    encoder = Frozen.load(Path(config["encoder"]), config["device"])
    train, test = (Taught.of(_stills(config, split), encoder, config["device"]) for split in ("train", "test"))
    protocol = {"data": STILLS, "split": "test", "manifest": test.clips.manifest}
    plan = Plan("vtok_stills", strategy, {"image_encoder": encoder.sha256}, protocol)
    module = vtok_training.new_model(config, strategy, encoder)
    return vtok_training.teach(config, tracker, plan, module, train, test)


def _stills(config: dict[str, Any], split: str) -> ClipSet:
    return clip_set(STILLS, split, config[f"{split}_clips"], size=config["pixels"], frames=1)


if __name__ == "__main__":
    tracking.command_line(ex)
