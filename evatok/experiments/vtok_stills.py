"""Stage A of VTok's language model: colours, shapes, sizes, positions and counts, taught on stills.

It stands in for the paper's starting point, LLaVA-Next, which was pre-trained on images, with boxes of single objects
among its tasks; here those are their rows and columns, without which "left of" is not learned. Every strategy starts
from the model trained here. Measured on stills of the test split. Rerun the command to resume a killed run.

    python -m evatok.experiments.vtok_stills with toy    CPU, three minutes; needs train_image_encoder
"""

from __future__ import annotations

from typing import Any

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments import runner, tracking, vtok_training
from evatok.experiments.vtok_training import LanguageTask, Taught
from evatok.vtok.public_encoder import encoder_of
from evatok.vtok.strategies import Strategy

ex = tracking.experiment("vtok_stills", __doc__, vtok_training.MODEL)

STILLS = "moving-shapes-stills"


@ex.config
def config() -> None:
    pixels = 64
    key = 16
    train_clips = 16000  # stills
    test_clips = 1000  # stills
    asked = 2
    batch = 32
    steps = 2400
    learning_rate = 2e-3
    work = "results/work/vtok/stills"
    checkpoint = "results/checkpoints/vtok-stills-toy.safetensors"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, vtok_training.OUTPUTS)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, task_of)


def task_of(config: dict[str, Any]) -> LanguageTask:
    """Return the model of one still's tokens, and the stills it is trained and measured on."""
    encoder = encoder_of(config["encoder"], config["device"])
    module = vtok_training.new_model(config, Strategy("key", key=config["key"]), encoder)
    train = Taught.of(_stills(config, "train"), encoder, config["device"], further=True)
    test = Taught.of(_stills(config, "test"), encoder, config["device"])
    protocol = {"data": STILLS, "split": "test", "manifest": test.clips.manifest}
    parents = {"image_encoder": encoder.identity}
    return LanguageTask("vtok_stills", config, module, (train, test), parents, protocol, config["asked"])


def _stills(config: dict[str, Any], split: str) -> ClipSet:
    return clip_set(STILLS, split, config[f"{split}_clips"], size=config["pixels"], frames=1)


if __name__ == "__main__":
    tracking.command_line(ex)
