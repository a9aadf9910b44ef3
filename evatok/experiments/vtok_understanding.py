"""Stage B of VTok's language model: train one strategy on video, then ask seven questions about each test clip.

The strategy decides which visual tokens a clip becomes: none, key, frames, vtok, lavit or omni (`evatok.vtok`). All
start from the model of stage A (`vtok_stills`), read the same frozen features and see the same clips in the same order.
Accuracy is multiple choice by likelihood, over all questions, each category, and each need (what must be seen); every
question's outcome is kept for paired comparison of rows. Rerun the command to resume a killed run.

Under the protocol freedoom-understanding the clips are Freedoom's, and the single question is what the camera does, on
equally many clips of each motion. Their 16 frames count as 5 s, so that fps=3 makes 15 motion tokens.

    python -m evatok.experiments.vtok_understanding with toy                                    VTok, 46 tokens
    python -m evatok.experiments.vtok_understanding with toy strategy=frames frames_sampled=8   128 tokens
    python -m evatok.experiments.vtok_understanding with toy strategy=vtok residual=mean        a control
    python -m evatok.experiments.vtok_understanding with toy start=                             without stage A
    python -m evatok.experiments.vtok_understanding with toy fps=3 protocol=freedoom-understanding train_clips=4800
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.evaluation import protocols
from evatok.evaluation.protocols import Protocol
from evatok.experiments import runner, tracking, vtok_training
from evatok.experiments.tracking import ConfigError
from evatok.experiments.vtok_training import LanguageTask, Taught
from evatok.vtok.features import Encoder
from evatok.vtok.language_model import VideoLanguageModel
from evatok.vtok.public_encoder import encoder_of
from evatok.vtok.strategies import Strategy, StrategyError

ex = tracking.experiment("vtok_understanding", __doc__, vtok_training.MODEL)

DATA = "moving-shapes"
CAMERA = "freedoom"


@ex.config
def config() -> None:
    strategy = "vtok"
    key = 16
    fps = 6  # 3, 6 or, with clips of 12 FPS, 12
    residual = "grid"
    frames_sampled = 4
    protocol = "moving-shapes-understanding"  # clips at 6 FPS; with suffix -12fps or -3fps, at 12 or 3
    train_clips = 4000  # fewer of Freedoom's frequent motions
    limit = 0
    start = "results/checkpoints/vtok-stills-toy.safetensors"  # the model of stage A
    steps = 1500
    learning_rate = 1.5e-3
    work = "results/work/vtok/understanding"
    checkpoint = "results/work/vtok/understanding/model.safetensors"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, vtok_training.OUTPUTS)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    if not config["steps"]:
        return vtok_training.without_training(config, tracker, task_of(config))
    return runner.train(config, tracker, task_of)


def task_of(config: dict[str, Any]) -> LanguageTask:
    """Return the model of the configured strategy, and the clips it is trained and measured on."""
    protocol = question_protocol(config["protocol"], (DATA, CAMERA))
    strategy = strategy_of(config, protocol)
    encoder = encoder_of(config["encoder"], config["device"])
    module = vtok_training.new_model(config, strategy, encoder)
    parents = {"image_encoder": encoder.identity, **started(module, config, encoder)}
    count = config["limit"] or protocol.clips or 0
    sets = (_clips(protocol, "train", config["train_clips"]), _clips(protocol, protocol.split, count))
    taught = Taught.of_camera if protocol.data == CAMERA else Taught.of
    train, test = (taught(clips, encoder, config["device"]) for clips in sets)
    told = protocol.to_record(test.clips.manifest, count, config["limit"] or None)
    return LanguageTask("vtok_understanding", config, module, (train, test), parents, told)


def question_protocol(name: str, data: Sequence[str] = (DATA,)) -> Protocol:
    """Return the protocol of questions on one of these sets. Raises ConfigError for an unknown name or set."""

    def asks(protocol: Protocol) -> bool:
        return protocol.data in data and "accuracy" in protocol.metrics

    found = protocols.get(name)
    if not asks(found):
        asked = ", ".join(sorted(known for known, one in protocols.PROTOCOLS.items() if asks(one)))
        raise ConfigError(f"config key protocol: {name} asks nothing about {' or '.join(data)}; one of {asked} does")
    return found


def _clips(protocol: Protocol, split: str, count: int) -> ClipSet:
    name = f"{protocol.data}@{protocol.data_version}"
    return clip_set(name, split, count, size=protocol.size, frames=protocol.frames)


def strategy_of(config: dict[str, Any], protocol: Protocol) -> Strategy:
    """Return the configured strategy, checked to fit the protocol's clips.

    Raises:
        ConfigError: invalid settings, or clips of another rate.
    """
    try:
        strategy = Strategy(
            config["strategy"],
            key=config["key"],
            fps=config["fps"],
            residual=config["residual"],
            frames=config["frames_sampled"],
        )
        strategy.picks(protocol.frames)
    except StrategyError as error:
        told = f"{error} (protocol {protocol.name} has {protocol.frames})"
        raise ConfigError(f"config keys strategy, key, fps, residual, frames_sampled, protocol: {told}") from error
    return strategy


def started(module: VideoLanguageModel, config: dict[str, Any], encoder: Encoder) -> dict[str, str]:
    """Load the weights to start from; return their identity, and stage A's, as parents.

    Raises:
        ConfigError: nothing to start from and nothing to train, or a model for another encoder.
    """
    if not config["start"]:
        if not config["steps"]:
            raise ConfigError("config keys start, steps: without a model to start from, steps must be at least 1")
        return {}
    stills = VideoLanguageModel.load(config["start"], config["device"])
    checkpoint = stills.checkpoint
    vtok_training.check_encoder(config, "start", checkpoint, encoder, "; run vtok_stills with this encoder")
    module.start_from(stills)
    return {"start": checkpoint.sha256, "stills": checkpoint.parents.get("stills", checkpoint.sha256)}


if __name__ == "__main__":
    tracking.command_line(ex)
