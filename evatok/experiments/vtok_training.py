"""What teaching stills (stage A) and teaching a strategy (stage B) share: settings, the training, the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet
from evatok.evaluation import per_clip
from evatok.experiments import tracking
from evatok.experiments.setting import claim_folder, log_to, optional_artifact, recipe, set_threads
from evatok.storage import checkpoints, records
from evatok.training import loop
from evatok.vtok import lessons
from evatok.vtok.features import Features, features_of
from evatok.vtok.image_encoder import Frozen
from evatok.vtok.language_model import LanguageModelConfig, VideoLanguageModel
from evatok.vtok.lessons import Lessons
from evatok.vtok.scoring import Outcomes
from evatok.vtok.strategies import Strategy


def settings() -> None:
    encoder = "results/checkpoints/vtok-image-encoder-toy.safetensors"  # the frozen image encoder (paper: CLIP-L/336)
    width = 64  # of the language model (paper: LLaVA-Next with LLaMA3-8B)
    layers = 3  # of the language model
    heads = 4  # of its attention
    batch = 48  # clips a step, each with all its questions (paper: 16)
    final_learning_rate = 2e-5  # end of the cosine
    warmup = 50  # steps
    weight_decay = 0.01
    clip_norm = 1.0  # gradient norm
    ema = 0.99  # decay of the weights' running mean, which is what ships (paper: 0.999, of a longer training)
    minutes = 0.0  # wall-clock budget in minutes; saves and exits, rerun to resume (0: none)
    device = "cpu"  # cpu or cuda
    threads = 0  # CPU threads (0: PyTorch's default)
    log_every = 20  # steps a line of the curve
    save_every = 200  # steps between resumable states
    records_folder = "results/records"  # where the record goes
    per_clip = "results/per_clip"  # folder of every question's outcome, for paired comparisons; empty: none


@dataclass(frozen=True)
class Taught:
    """Clips with what is read of them and asked about them."""

    clips: ClipSet
    features: Features
    lessons: Lessons

    @classmethod
    def of(cls, clips: ClipSet, encoder: Frozen, device: str) -> Taught:
        return cls(clips, features_of(encoder, clips, device=device), Lessons.of(clips.labels))


@dataclass(frozen=True)
class Plan:
    """What one stage adds.

    Attributes:
        kind: of its record.
        strategy: how clips become tokens.
        parents: sha256 of what it was made from besides its clips, by role.
        protocol: the entry `protocol` of its record.
    """

    kind: str
    strategy: Strategy
    parents: dict[str, str]
    protocol: dict[str, Any]


class Objective:
    """The loss of one step: clips with all their questions."""

    def __init__(self, taught: Taught, config: dict[str, Any]) -> None:
        self.taught, self.config = taught, config

    def __call__(
        self, module: VideoLanguageModel, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, loop.Terms]:
        taught, config = self.taught, self.config
        rows = loop.batch_indices(len(taught.lessons), config["batch"], step, config["seed"])
        features = taught.features.take(rows, config["device"])
        loss, right = lessons.loss(module, features, taught.lessons, rows)
        return loss, {"right": right}


def new_model(config: dict[str, Any], strategy: Strategy, encoder: Frozen) -> VideoLanguageModel:
    """An untrained model of the configured shape."""
    torch.manual_seed(config["seed"])
    shape = LanguageModelConfig(encoder.width, config["width"], config["layers"], config["heads"])
    return VideoLanguageModel(shape, strategy).to(config["device"])


def teach(
    config: dict[str, Any],
    tracker: tracking.Tracker,
    plan: Plan,
    module: VideoLanguageModel,
    train: Taught,
    test: Taught,
) -> dict[str, Any]:
    """Train, save, measure and record a model; with `minutes`, as far as they reach."""
    set_threads(config["threads"])
    parents = {**plan.parents, "train_clips": train.clips.sha256}
    folder = claim_folder(Path(config["work"]), config, " ".join(parents.values()), tracker)
    try:
        averaged = _trained(config, tracker, plan, module, train, folder) if config["steps"] else module
    except loop.SliceEnded as ended:
        return {"complete": False, "step": ended.step, "steps": ended.steps}
    path = Path(config["checkpoint"])
    sha256 = _save(path, averaged, config, parents)
    outcomes = measured(VideoLanguageModel.load(path, config["device"])[0], test)
    metrics = outcomes.metrics() | {"tokens": _tokens(plan.strategy, len(test.clips))}
    record = records.new_record(
        kind=plan.kind,
        status=config["size"],
        protocol=plan.protocol,
        model={
            "sha256": sha256,
            "parents": parents,
            "strategy": {"name": plan.strategy.name, **plan.strategy.to_dict()},
            "parameters": sum(p.numel() for p in averaged.parameters()),
            "run": tracker.run_id,
        },
        metrics=metrics,
        config=config,
        environment={
            **tracker.environment(),
            "wall_seconds": loop.seconds_spent(folder) if config["steps"] else 0.0,
        },
        artifacts=_artifacts(path, outcomes, config),
    )
    written = records.write(record, config["records_folder"])
    if config["steps"]:
        tracker.artifact(folder / "curve.jsonl")
    told = {name: round(metric.value, 1) for name, metric in metrics.items()}
    return {"complete": True, "checkpoint": str(path), "record": written.stem, **told}


def _trained(
    config: dict[str, Any],
    tracker: tracking.Tracker,
    plan: Plan,
    module: VideoLanguageModel,
    train: Taught,
    folder: Path,
) -> VideoLanguageModel:
    return loop.train(
        module,
        Objective(train, config),
        recipe(config),
        folder,
        description=f"{plan.kind} {plan.strategy.name}",
        on_log=log_to(tracker),
        seconds=60 * config["minutes"] or None,
    )


def measured(model: VideoLanguageModel, test: Taught) -> Outcomes:
    """Which questions about the test clips a model answers rightly."""
    given = lessons.answered(model, test.features, test.lessons)
    return Outcomes.of(given == test.lessons.answers, test.lessons.needs, test.lessons.categories)


def _save(path: Path, module: VideoLanguageModel, config: dict[str, Any], parents: dict[str, str]) -> str:
    return checkpoints.save(
        path,
        module,
        kind="video_language_model",
        config={"model": module.config.to_dict(), "strategy": module.strategy.to_dict()},
        parents=parents,
        facts={"vocabulary": list(module.words), "size": config["size"], "steps": config["steps"]},
    )


def _tokens(strategy: Strategy, clips: int) -> records.Metric:
    return records.Metric(float(strategy.length()), "tokens", clips, "lower")


def _artifacts(path: Path, outcomes: Outcomes, config: dict[str, Any]) -> dict[str, records.Artifact]:
    """The checkpoint, and the file of outcomes unless the configuration wants none."""
    found = optional_artifact("checkpoint", path)
    if config["per_clip"]:
        arrays = {name: np.asarray(values) for name, values in outcomes.arrays().items()}
        found |= optional_artifact(
            per_clip.MEASURED, per_clip.write(arrays, Path(config["per_clip"]), per_clip.MEASURED)
        )
    return found
