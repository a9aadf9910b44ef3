"""What stage A (stills) and stage B (a strategy) share: settings, training and record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet
from evatok.data.embedded import camera_text
from evatok.evaluation import per_clip
from evatok.experiments import keys, runner, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import TRAINING, optional_artifact
from evatok.experiments.tracking import ConfigError
from evatok.metrics import catalogue
from evatok.storage import checkpoints, records
from evatok.storage.checkpoints import Checkpoint
from evatok.training import loop
from evatok.vtok import lessons
from evatok.vtok.features import Encoder, Features, features_of
from evatok.vtok.language_model import LanguageModelConfig, VideoLanguageModel
from evatok.vtok.lessons import Lessons
from evatok.vtok.scoring import Outcomes
from evatok.vtok.strategies import Strategy

SHARED: dict[str, Any] = {
    **keys.RUN,
    **{name: keys.TRAINING[name] for name in ("clip_norm", "minutes", "log_every")},
    "final_learning_rate": 2e-5,
    "warmup": 50,
    "weight_decay": 0.01,
    "ema": 0.99,
    "save_every": 200,
}
"""Defaults of all VTok trainings. Nothing is mirrored: left and right are answers."""

MODEL: dict[str, Any] = {
    **SHARED,
    "encoder": "results/checkpoints/vtok-image-encoder-toy.safetensors",
    "width": 64,
    "layers": 3,
    "heads": 4,
    "batch": 48,
    "per_clip": "results/per_clip",
}
"""Defaults of a language model's training (paper: LLaVA-Next with LLaMA3-8B on CLIP-L/336, batch 16, EMA 0.999)."""

WRITER: dict[str, Any] = {name: value for name, value in MODEL.items() if name != "per_clip"}
"""Defaults of a writer's training: those of the language model it starts from."""

OUTPUTS = Outputs((*TRAINING.folders, "per_clip"), TRAINING.files, TRAINING.owned)
"""Outputs of such a training."""


@dataclass(frozen=True)
class Taught:
    """Clips, with features and questions about those that have any."""

    clips: ClipSet
    features: Features
    lessons: Lessons

    @classmethod
    def of(cls, clips: ClipSet, encoder: Encoder, device: str, *, further: bool = False) -> Taught:
        """`further`: see `Lessons.of`."""
        return cls(clips, features_of(encoder, clips, device=device), Lessons.of(clips.labels, further=further))

    @classmethod
    def of_camera(cls, clips: ClipSet, encoder: Encoder, device: str) -> Taught:
        """Load Freedoom's clips, as many of each motion, asking what the camera does."""
        rows = camera_text.balanced(clips.labels)
        asked = camera_text.asked(clips.labels.iloc[rows])
        return cls(clips, features_of(encoder, clips, device=device).only(rows), Lessons.of(asked))


class Objective:
    """The loss of one step: clips with their questions.

    Args:
        most: questions of a category asked per step, redrawn each time; 0 asks all.
    """

    def __init__(self, taught: Taught, config: dict[str, Any], most: int = 0) -> None:
        self.taught, self.config, self.most = taught, config, most

    def __call__(
        self, module: VideoLanguageModel, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, loop.Terms]:
        taught, config = self.taught, self.config
        rows = loop.batch_indices(len(taught.lessons), config["batch"], step, config["seed"])
        asked = taught.lessons.take(rows)
        if self.most:
            asked = asked.drawn(self.most, np.random.default_rng([config["seed"], step]))
        loss, right = lessons.loss(module, taught.features.take(rows, config["device"]), asked)
        return loss, {"right": right}


def check_encoder(
    config: dict[str, Any], key: str, checkpoint: Checkpoint, encoder: Encoder, way_out: str = ""
) -> None:
    """Raise ConfigError if the file at config key `key` was trained on another image encoder's features."""
    if checkpoint.parents.get("image_encoder") != encoder.identity:
        raise ConfigError(
            f"config key {key}: {config[key]} was trained on features of another image encoder than "
            f"{config['encoder']}{way_out}"
        )


def new_model(config: dict[str, Any], strategy: Strategy, encoder: Encoder) -> VideoLanguageModel:
    """An untrained model of the configured shape."""
    torch.manual_seed(config["seed"])
    shape = LanguageModelConfig(encoder.width, config["width"], config["layers"], config["heads"])
    return VideoLanguageModel(shape, strategy).to(config["device"])


class LanguageTask(runner.Task[VideoLanguageModel]):
    """A model of one strategy trained to answer questions about clips.

    Args:
        parents: sha256 by role of what it is made from, besides its clips.
        protocol: entry `protocol` of its record.
        most: see `Objective`.
    """

    def __init__(
        self,
        kind: str,
        config: dict[str, Any],
        module: VideoLanguageModel,
        clips: tuple[Taught, Taught],
        parents: dict[str, str],
        protocol: dict[str, Any],
        most: int = 0,
    ) -> None:
        train, self.test = clips
        self.kind, self.config, self.module, self.protocol = kind, config, module, protocol
        self.parents = {**parents, "train_clips": train.clips.sha256}
        self.inputs = " ".join(self.parents.values())
        self.objective = Objective(train, config, most)

    def ship(self, averaged: VideoLanguageModel, path: Path, changes: dict[str, Any]) -> None:
        told = {name: self.config[name] for name in ("size", "steps")}
        checkpoints.save(
            path,
            averaged,
            kind="video_language_model",
            config={"model": averaged.config.to_dict(), "strategy": averaged.strategy.to_dict()},
            parents=self.parents,
            facts={"vocabulary": list(averaged.words), **told, **changes},
        )

    def measure(self, averaged: VideoLanguageModel, path: Path, folder: Path) -> runner.Measured:
        model = VideoLanguageModel.load(path, self.config["device"])
        outcomes, strategy = measured(model, self.test), model.strategy
        tokens = catalogue.of("mean_tokens").measured(float(strategy.length()), len(self.test.lessons))
        metrics = {**outcomes.metrics(), "tokens": tokens}
        return runner.Measured(
            protocol=self.protocol,
            model={
                "sha256": model.checkpoint.sha256,
                "parents": self.parents,
                "strategy": {"name": strategy.name, **strategy.to_dict()},
                "parameters": sum(p.numel() for p in averaged.parameters()),
            },
            metrics=metrics,
            told={name: round(metric.value, 1) for name, metric in metrics.items()},
            artifacts=kept(outcomes, self.config),
        )


def measured(model: VideoLanguageModel, test: Taught) -> Outcomes:
    """Return which questions about the test clips a model answers correctly."""
    given = lessons.answered(model, test.features, test.lessons)
    return Outcomes.of(given == test.lessons.answers, test.lessons.needs, test.lessons.categories)


def without_training(config: dict[str, Any], tracker: tracking.Tracker, task: LanguageTask) -> dict[str, Any]:
    """Ship, measure and record a model without training."""
    path = Path(config["checkpoint"])
    task.ship(task.module, path, {})
    found = task.measure(task.module, path, Path(config["work"]))
    return {**runner.finished(config, tracker, task.kind, found, 0.0), **found.told}


def kept(outcomes: Outcomes, config: dict[str, Any]) -> dict[str, records.Artifact]:
    """Return the file of every question's outcome, unless the configuration wants none."""
    if not config["per_clip"]:
        return {}
    kept = per_clip.write(outcomes.arrays(), Path(config["per_clip"]), per_clip.MEASURED)
    return optional_artifact(per_clip.MEASURED, kept)
