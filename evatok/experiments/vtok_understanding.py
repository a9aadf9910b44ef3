"""Stage B of VTok's language model: one strategy taught on video, then asked seven questions about each test clip.

The strategy decides which visual tokens a clip becomes: none, key, frames, vtok, lavit or omni (`evatok.vtok`). All
start from the model of stage A (`vtok_stills`), read the same frozen features and see the same clips in the same order.
Accuracy is of multiple choice by likelihood, over all questions, each category, and each need (what must be seen); the
outcome of every question is kept, so that rows are compared pair by pair. Run again, the same command goes on where a
killed one stopped.

    python -m evatok.experiments.vtok_understanding with toy                                    VTok, 46 tokens
    python -m evatok.experiments.vtok_understanding with toy strategy=frames frames_sampled=8   128 tokens
    python -m evatok.experiments.vtok_understanding with toy strategy=vtok residual=mean        a control
    python -m evatok.experiments.vtok_understanding with toy start=                             without stage A
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evatok.data.sets import clip_set
from evatok.evaluation import protocols
from evatok.evaluation.protocols import Protocol
from evatok.experiments import tracking, vtok_training
from evatok.experiments.tracking import ConfigError
from evatok.experiments.vtok_training import Plan, Taught
from evatok.vtok.image_encoder import Frozen
from evatok.vtok.language_model import VideoLanguageModel
from evatok.vtok.strategies import Strategy, StrategyError

ex = tracking.experiment("vtok_understanding", __doc__)
ex.config(vtok_training.settings)

DATA = "moving-shapes"


@ex.config
def config() -> None:
    size = "toy"  # the record's status: toy, small or paper
    strategy = "vtok"  # none, key, frames, vtok, lavit or omni
    key = 16  # spatial tokens of a frame: a square number
    fps = 6  # motion tokens a second of vtok: 3, 6 or, with clips of 12 FPS, 12
    residual = "grid"  # of vtok: grid, mean; controls absolute, previous, shuffled
    frames_sampled = 4  # evenly spaced frames of strategy frames
    protocol = "moving-shapes-understanding"  # clips of 6 FPS; with -12fps or -3fps behind it, of so many
    train_clips = 4000  # clips of the training split
    limit = 0  # test clips; 0: all that the protocol asks. Less is not comparable
    start = "results/checkpoints/vtok-stills-toy.safetensors"  # the model of stage A, or of stage B; empty: none
    steps = 1500  # optimiser steps; 0 measures the model it starts from under this strategy
    learning_rate = 1.5e-3  # peak of the cosine
    work = "results/work/vtok/understanding"  # folder of the resumable states, one below it a strategy and seed
    checkpoint = ""  # where the finished model goes; empty: in its folder of work


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    protocol = question_protocol(config["protocol"])
    strategy = strategy_of(config, protocol)
    config = with_places(config, strategy)
    encoder = Frozen.load(Path(config["encoder"]), config["device"])
    module = vtok_training.new_model(config, strategy, encoder)
    parents = {"image_encoder": encoder.sha256, **started(module, config, encoder)}
    sizes = {"size": protocol.size, "frames": protocol.frames}
    count = config["limit"] or protocol.clips or 0
    sets = (clip_set(DATA, "train", config["train_clips"], **sizes), clip_set(DATA, protocol.split, count, **sizes))
    train, test = (Taught.of(clips, encoder, config["device"]) for clips in sets)
    told = protocol.to_record(test.clips.manifest, count, config["limit"] or None)
    plan = Plan("vtok_understanding", strategy, parents, told)
    return vtok_training.teach(config, tracker, plan, module, train, test)


def question_protocol(name: str) -> Protocol:
    """The protocol of questions about moving shapes of that name. Raises ConfigError for one of something else."""
    found = protocols.get(name)
    if found.data != DATA:
        asked = ", ".join(sorted(known for known, one in protocols.PROTOCOLS.items() if one.data == DATA))
        raise ConfigError(f"config key protocol: {name} asks nothing about {DATA}; one of {asked} does")
    return found


def strategy_of(config: dict[str, Any], protocol: Protocol) -> Strategy:
    """The configured strategy, once it is seen to be able to read the protocol's clips.

    Raises:
        ConfigError: settings that make none, or clips of another rate.
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


def with_places(config: dict[str, Any], strategy: Strategy) -> dict[str, Any]:
    """The configuration with a folder of this strategy and seed below `work`, and the checkpoint in it."""
    rate = config["protocol"].removeprefix("moving-shapes-understanding")
    scratch = "" if config["start"] else "-scratch"
    folder = Path(config["work"]) / f"{strategy.name}{rate}{scratch}-{config['seed']}"
    checkpoint = config["checkpoint"] or str(folder / "model.safetensors")
    return {**config, "work": str(folder), "checkpoint": checkpoint}


def started(module: VideoLanguageModel, config: dict[str, Any], encoder: Frozen) -> dict[str, str]:
    """Take over the model to start from; returns its identity, and that of stage A, as parents.

    Raises:
        ConfigError: nothing to start from and nothing to train, or a model that learned on features of another encoder.
    """
    if not config["start"]:
        if not config["steps"]:
            raise ConfigError("config keys start, steps: without a model to start from there must be steps")
        return {}
    stills, checkpoint = VideoLanguageModel.load(Path(config["start"]), config["device"])
    if checkpoint.parents.get("image_encoder") != encoder.sha256:
        raise ConfigError(
            f"config key start: {config['start']} learned on features of another image encoder than "
            f"{config['encoder']}; run vtok_stills with this encoder"
        )
    module.start_from(stills)
    return {"start": checkpoint.sha256, "stills": checkpoint.parents.get("stills", checkpoint.sha256)}


if __name__ == "__main__":
    tracking.command_line(ex)
