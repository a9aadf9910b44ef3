"""What both stages of VideoFlexTok share: configuration, training task and measurement."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from evatok.data.clips import ClipSet
from evatok.evaluation.flextok_quality import Measuring, quality, token_use
from evatok.experiments import runner
from evatok.experiments.tokenizer_training import held_out, validation_data
from evatok.experiments.videoflextok_parts import FlexPlan, facts_of, objective_of, teacher_of
from evatok.models.latents import VidTok
from evatok.storage import checkpoints
from evatok.tokenizers.videoflextok import KIND, VideoFlexTok
from evatok.training.flextok_objective import FlexTrainee

log = logging.getLogger(__name__)


def settings() -> None:
    """The configuration shared by both stages."""
    data = "mixed"
    fps = None  # paper: 17 frames spanning 4 seconds
    train_clips = 6400
    validation_data = "freedoom"
    validation_clips = 64
    kept = "powers"  # paper: uniform [Sec. 3.1]; the released configuration: powers
    kept_per = "batch"  # paper: all frames of a clip alike
    null = 0.1  # not stated
    noise_mean = 1.0  # paper: 0; layout is learned at high noise
    noise_deviation = 1.0  # paper: 1
    noise_unshifted = 0.0
    alignment_weight = 1.0  # paper: 1.0
    alignment_resize = 0  # not stated
    alignment_stored = False
    steps = 2600  # paper: 100B latent tokens on Kinetics-600
    batch = 16  # not stated
    learning_rate = 1e-3  # paper: 1.124e-3
    final_learning_rate = 1e-5  # not stated
    warmup = 50  # paper: 4B latent tokens
    weight_decay = 1e-4  # not stated
    ema = 0.995  # not stated
    measured_steps = [1, 20]
    noise_seed = 0
    save_every = 100
    seed = 0


SMALL: dict[str, Any] = {
    "data": "",
    "validation_data": "",
    "train_clips": 0,
    "steps": 50000,
    "batch": 64,
    "warmup": 1000,
    "ema": 0.999,
    "bf16": True,
    "device": "cuda",
    "save_every": 1000,
}
"""One modern GPU, a user's own videos, VidTok latents."""

PAPER: dict[str, Any] = {
    **SMALL,
    "fps": 4.25,
    "steps": 400000,
    "batch": 256,
    "learning_rate": 1.124e-3,
    "warmup": 16000,
    "noise_mean": 0.0,
    "ema": 0.9999,
}
"""As published; filled in where the paper is silent."""


class FlexTask(runner.Task[FlexTrainee]):
    """A tokenizer trained under a plan, in either stage."""

    steps_may_change = True

    def __init__(
        self, config: dict[str, Any], clips: tuple[ClipSet, ClipSet], plan_of: Callable[[ClipSet], FlexPlan]
    ) -> None:
        """`clips`: training and validation set; `plan_of`: builds a stage's plan from the training set."""
        self.config = config
        self.train_set, self.validation_set = clips
        if not held_out(*clips):
            told = "nothing is held out: %s gives the training clips as validation clips too"
            log.warning(told, self.train_set.folder)
        self.plan = plan_of(self.train_set)
        self.kind = self.plan.kind
        self.teacher = teacher_of(config, self.plan, self.train_set)
        self.parents = {**self.plan.parents, "train_clips": self.train_set.sha256}
        if self.teacher is not None:
            self.parents["alignment_encoder"] = self.teacher.encoder.weights_sha256
        self.inputs = " ".join(self.parents.values())
        self.module = FlexTrainee(self.plan.network, self.teacher).to(config["device"])
        if self.plan.frozen_encoder:
            self.module.network.encoder.requires_grad_(False)
            self.module.network.quantiser.requires_grad_(False)
        self.objective = objective_of(config, self.plan, self.teacher, self.train_set)

    def ship(self, averaged: FlexTrainee, path: Path, changes: dict[str, Any]) -> None:
        tokenizer = VideoFlexTok(self.plan.codec, averaged.network)
        checkpoints.save(
            path,
            tokenizer,
            kind=KIND,
            config=tokenizer.config.to_dict(),
            parents=self.parents,
            facts={**self.plan.facts, **facts_of(self.config, self.plan), **changes},
            dtype=torch.float16,
        )

    def measure(self, averaged: FlexTrainee, path: Path, folder: Path) -> runner.Measured:
        config, clips = self.config, self.validation_set
        codec = self.plan.codec if isinstance(self.plan.codec, VidTok) else None
        shipped = VideoFlexTok.load(path, config["device"], codec=codec)
        checkpoint = shipped.checkpoint
        how = Measuring(config["measured_steps"], config["noise_seed"], config["batch"], config["bf16"], self.teacher)
        metrics = {**quality(shipped, clips, how), **token_use(shipped, clips, how)}
        return runner.Measured(
            protocol={
                "data": validation_data(config),
                "split": "validation",
                "clips": len(clips),
                "held_out": held_out(self.train_set, clips),
                "train": self.train_set.manifest,
                "flow_steps": config["measured_steps"],
                "noise_seed": config["noise_seed"],
            },
            model={
                **checkpoint.identity,
                "network": checkpoint.config,
                "parameters": sum(p.numel() for p in shipped.network.parameters()),
            },
            metrics=metrics,
            told={"metrics": {name: metric.value for name, metric in metrics.items()}},
        )
