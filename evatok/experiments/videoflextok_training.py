"""What both stages of VideoFlexTok share: latents, the training, and the record of what it reached."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from evatok.data.clips import ClipSet
from evatok.evaluation.flextok_quality import Measuring, quality, token_use
from evatok.experiments import tracking
from evatok.experiments.setting import (
    claim_folder,
    log_to,
    optional_artifact,
    recipe,
    schedule_changes,
)
from evatok.experiments.tokenizer_training import held_out, validation_data
from evatok.experiments.videoflextok_parts import FlexPlan, facts_of, objective_of, teacher_of
from evatok.models.latents import VidTok
from evatok.storage import checkpoints, records
from evatok.tokenizers.videoflextok import KIND, VideoFlexTok
from evatok.training import loop
from evatok.training.flextok_alignment import Teacher
from evatok.training.flextok_objective import FlexTrainee

log = logging.getLogger(__name__)


def settings() -> None:
    """The configuration both stages have."""
    data = "mixed"  # freedoom, arcade, mixed, a built set's folder, a manifest CSV, a folder of class folders
    fps = None  # frames a second taken from a user's videos; None keeps their own (paper: 17 frames of 4 seconds)
    train_clips = 6400  # clips of the training split; 0 takes all of a user's set
    validation_data = "freedoom"  # clips to measure the finished tokenizer on; empty: the same as `data`
    validation_clips = 64  # how many of them
    kept = "powers"  # tokens kept: powers (released configuration), uniform (Sec. 3.1), rounded, or all (no dropout)
    kept_per = "batch"  # what draws its own number: batch, clip or frame (paper: all frames of a clip alike)
    null = 0.1  # share of clips without tokens, for guidance (not stated)
    noise_mean = 1.0  # of the logistic-normal noise level (paper: 0; layout is learnt at high noise)
    noise_deviation = 1.0  # (paper: 1)
    noise_unshifted = 0.0  # share of levels drawn with mean 0 all the same
    alignment_weight = 1.0  # of REPA (paper: 1.0)
    alignment_resize = 0  # pixels the encoder's input is brought to; 0 leaves the clips' size
    steps = 2600  # optimiser steps (paper: 100B latent tokens on Kinetics-600)
    batch = 16  # clips a step (not stated)
    learning_rate = 1e-3  # peak of the cosine (paper: 1.124e-3)
    final_learning_rate = 1e-5  # end of the cosine (not stated)
    warmup = 50  # steps (paper: 4B latent tokens)
    weight_decay = 1e-4  # (not stated)
    clip_norm = 1.0  # gradient norm (not stated)
    ema = 0.995  # decay of the weights' running mean, which is what ships (not stated)
    flip = True  # mirror half of the clips
    measured_steps = [1, 20]  # Euler steps at which the finished tokenizer is measured
    noise_seed = 0  # of the samples that are measured
    bf16 = None  # bfloat16 autocast (weights, losses: float32); None: where the device computes in it natively
    minutes = 0.0  # wall-clock budget in minutes; saves and exits, run again to resume; 0: none
    device = "cpu"  # cpu or cuda
    threads = 0  # CPU threads; 0 leaves PyTorch's choice
    log_every = 20  # steps a line of the curve
    save_every = 100  # steps between resumable states
    records_folder = "results/records"  # where the record goes
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
"""As published, with fillings where the paper is silent."""


def train_videoflextok(
    config: dict[str, Any],
    tracker: tracking.Tracker,
    clips: tuple[ClipSet, ClipSet],
    plan: FlexPlan,
) -> dict[str, Any]:
    """Train, save, measure and record; with `minutes`, as far as they reach. `clips`: training and validation set."""
    train_set, validation_set = clips
    if not held_out(train_set, validation_set):
        log.warning("nothing is held out: %s gives the training clips as validation clips too", train_set.folder)
    teacher = teacher_of(config, plan, train_set)
    parents = {**plan.parents, "train_clips": train_set.sha256}
    if teacher is not None:
        parents["alignment_encoder"] = teacher.encoder.weights_sha256
    trainee = FlexTrainee(plan.network, teacher).to(config["device"])
    if plan.frozen_encoder:
        trainee.network.encoder.requires_grad_(False)
        trainee.network.quantiser.requires_grad_(False)
    objective = objective_of(config, plan, teacher, train_set)
    folder = claim_folder(Path(config["work"]), config, " ".join(parents.values()), tracker, steps_may_change=True)
    try:
        averaged = loop.train(
            trainee,
            objective,
            recipe(config),
            folder,
            description=plan.kind,
            on_log=log_to(tracker),
            seconds=60 * config["minutes"] or None,
        )
    except loop.SliceEnded as ended:
        return {"complete": False, "step": ended.step, "steps": ended.steps}
    facts = {**plan.facts, **facts_of(config, plan), **schedule_changes(folder)}
    path = Path(config["checkpoint"])
    save(path, VideoFlexTok(plan.codec, averaged.network), parents, facts)
    record = recorded(config, tracker, plan, clips, teacher, folder)
    written = records.write(record, config["records_folder"])
    tracker.artifact(folder / "curve.jsonl")
    metrics = {name: metric.value for name, metric in record.metrics.items()}
    return {"complete": True, "checkpoint": str(path), "record": written.stem, "metrics": metrics}


def save(path: Path, tokenizer: VideoFlexTok, parents: dict[str, str], facts: dict[str, Any]) -> None:
    """Write the tokenizer's checkpoint, in half precision."""
    config = tokenizer.config.to_dict()
    checkpoints.save(path, tokenizer, kind=KIND, config=config, parents=parents, facts=facts, dtype=torch.float16)


def recorded(
    config: dict[str, Any],
    tracker: tracking.Tracker,
    plan: FlexPlan,
    clips: tuple[ClipSet, ClipSet],
    teacher: Teacher | None,
    folder: Path,
) -> records.Record:
    """Measure the checkpoint as it was saved, in its precision: what is measured is what ships."""
    train_set, validation_set = clips
    path = Path(config["checkpoint"])
    codec = plan.codec if isinstance(plan.codec, VidTok) else None
    shipped, checkpoint = VideoFlexTok.load(path, config["device"], codec=codec)
    how = Measuring(config["measured_steps"], config["noise_seed"], config["batch"], config["bf16"], teacher)
    metrics = {**quality(shipped, validation_set, how), **token_use(shipped, validation_set, how)}
    return records.new_record(
        kind=plan.kind,
        status=config["size"].partition("-")[0],
        protocol={
            "data": validation_data(config),
            "split": "validation",
            "clips": len(validation_set),
            "held_out": held_out(train_set, validation_set),
            "train": train_set.manifest,
            "flow_steps": config["measured_steps"],
            "noise_seed": config["noise_seed"],
        },
        model={
            "sha256": checkpoint.sha256,
            "parents": checkpoint.parents,
            "facts": checkpoint.facts,
            "shape": checkpoint.config,
            "parameters": sum(p.numel() for p in shipped.network.parameters()),
            "run": tracker.run_id,
        },
        metrics=metrics,
        config=config,
        environment={**tracker.environment(), "wall_seconds": loop.seconds_spent(folder)},
        artifacts=optional_artifact("checkpoint", path),
    )
