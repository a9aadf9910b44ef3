"""What the trainings of a proxy (stage 1) and a final tokenizer (stage 4) share: everything but the assignment rule."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evatok.assignments.rules import Rule
from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments import image_settings, runner, tracking
from evatok.experiments.setting import streaming_of
from evatok.experiments.tokenizer_measures import discriminator_accuracy, pace
from evatok.experiments.tokenizer_parts import prepared, shape_of
from evatok.models.encoders import depth_of
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig
from evatok.training.objective import TokenizerWithHead

log = logging.getLogger(__name__)


def settings() -> None:
    """The configuration shared by both stages."""
    modality = "video"
    front = ""  # paper: linear, and cnn for its images [suppl. H]
    direct_steps = 0  # not stated for the paper's images; GigaTok: 15000
    data = "freedoom"
    fps = None  # WebVid: 3.0 [suppl. C]
    random_start = False  # not stated; LARP: True
    quantiser = ""  # paper: vq; toy: fsq
    codebook_size = 0  # paper: 16384, finals on UCF and K600 8192 [Sec. 4.1]
    start_from = ""  # paper: fresh weights
    train_clips = 6400
    validation_data = ""
    validation_clips = 64
    steps = 600  # paper: 400000, the longest finals 1000000 [suppl. C]
    batch = 16  # paper: 128 [suppl. C]
    learning_rate = 1e-3  # paper: 1e-4 [suppl. C]
    final_learning_rate = 1e-5  # paper: 1e-6 [suppl. C]
    warmup = 50  # not stated; GigaTok: 0
    weight_decay = 1e-4  # not stated; GigaTok's
    ema = 0.998  # not stated
    groups = 4
    l1 = 0.0  # paper: 1.0 [main eq. 2; weight not stated]
    squared = 10.0  # paper: 0; small networks encode more with it than with L1
    change = 10.0  # paper: 0; it preserves motion
    perceptual = "none"  # lpips-vgg is the paper's family
    perceptual_frames = 0  # paper: 0
    perceptual_weight = 1.0  # not stated; LARP and GigaTok: 1.0
    quantiser_weight = 1.0  # not stated; GigaTok: 1.0
    entropy_weight = 0.0  # paper: 0.02 [main eq. 2]
    alignment = "none"  # paper: V-JEPA2-L
    alignment_weight = 0.7  # [main eq. 2]
    alignment_layer = 3  # not stated; GigaTok: 3
    alignment_resize = 0  # not stated
    discriminator = "none"  # paper: its proxies have LARP's transformer
    adversarial_weight = 0.3  # not stated; LARP: 0.3, GigaTok: 0.5
    adversarial_adaptive = False  # not stated
    discriminator_start = 0  # not stated; LARP: 0, GigaTok: 80000
    discriminator_warmup = 0  # not stated; LARP and GigaTok: 0
    discriminator_interval = 1  # LARP: 5
    discriminator_rate = 3e-5  # LARP: 3e-5
    lecam = 0.001  # LARP: 0.001
    label_smoothing = 0.1  # LARP's kind; value not stated
    semantic_encoder = "results/checkpoints/videomae-toy"  # paper: VideoMAE-B
    semantic_layers = [2, 5, 8, 11]  # not stated; GigaTok's
    semantic_resize = 0  # VideoMAE-B needs 224
    semantic_frames = 0
    semantic_lecam = 0.0  # not stated; GigaTok: none
    augment = True  # not stated; GigaTok's kind
    compile = False
    recompute = False
    save_every = 100


TOY: dict[str, Any] = {"alignment_layer": 2, "semantic_layers": [1, 2, 4, 6]}
"""Overrides for the toy network and encoder, which have few layers."""

SMALL = {
    "size": "small",
    "train_clips": 20000,
    "steps": 20000,
    "batch": 64,
    "learning_rate": 4e-4,
    "warmup": 500,
    "bf16": True,
    "device": "cuda",
    "entropy_weight": 0.02,
    "perceptual": "st-lpips",
}
"""One modern GPU, half an hour for all stages."""

PAPER = {
    "size": "paper",
    "train_clips": 0,
    "fps": 3.0,
    "steps": 400000,
    "batch": 128,
    "learning_rate": 1e-4,
    "final_learning_rate": 1e-6,
    "warmup": 4000,
    "l1": 1.0,
    "squared": 0.0,
    "change": 0.0,
    "perceptual": "lpips-vgg",
    "entropy_weight": 0.02,
    "alignment": "facebook/vjepa2-vitl-fpc64-256",
    "discriminator": "transformer",
    "discriminator_interval": 5,
    "bf16": True,
    "device": "cuda",
    "save_every": 1000,
}
"""As published; where the paper is silent, filled in from related work."""


@dataclass(frozen=True)
class Plan:
    """What one stage adds to the shared training.

    Attributes:
        kind: of its record.
        rule: assignment rule during training.
        facts: how it was trained, for the checkpoint's header.
        measure: metrics of the finished tokenizer on the validation clips, for the record.
    """

    kind: str
    rule: Rule
    facts: dict[str, Any]
    measure: Callable[[AdaptiveTokenizer, ClipSet], dict[str, records.Metric]]


def train_tokenizer(
    config: dict[str, Any], tracker: tracking.Tracker, plan_of: Callable[[TokenizerConfig], Plan]
) -> dict[str, Any]:
    """Train, save, measure and record a tokenizer; stop after `minutes`."""
    check(config)
    return runner.train(config, tracker, partial(TokenizerTask, plan_of))


class TokenizerTask(runner.Task[TokenizerWithHead]):
    """A tokenizer trained under a plan, proxy or final."""

    steps_may_change = True
    distributed = True

    def __init__(self, plan_of: Callable[[TokenizerConfig], Plan], config: dict[str, Any]) -> None:
        self.config, self.shape = config, shape_of(config)
        self.plan = plan_of(self.shape)
        self.kind = self.plan.kind
        self.train_set = clips_of(config, config["data"], "train", config["train_clips"])
        self.validation_set = clips_of(config, validation_data(config), "validation", config["validation_clips"])
        if not held_out(self.train_set, self.validation_set):
            told = "nothing is held out: %s gives the training clips as validation clips too"
            log.warning(told, self.train_set.folder)
        self.module, self.objective, self.parents = prepared(config, self.shape, self.plan.rule, self.train_set)
        self.inputs = " ".join(self.parents.values())

    def ship(self, averaged: TokenizerWithHead, path: Path, changes: dict[str, Any]) -> None:
        rule = self.plan.rule
        told = {name: value for name, value in rule.identity.items() if name not in rule.parents}
        checkpoints.save(
            path,
            averaged.tokenizer,
            kind="tokenizer",
            config=self.shape.to_dict(),
            parents=self.parents,
            facts={**self.plan.facts, **told, **facts_of(self.config), **changes},
            dtype=torch.float16,
        )

    def measure(self, averaged: TokenizerWithHead, path: Path, folder: Path) -> runner.Measured:
        shipped = AdaptiveTokenizer.load(path, self.config["device"])
        checkpoint = shipped.checkpoint
        metrics = self.plan.measure(shipped, self.validation_set)
        metrics |= discriminator_accuracy(folder)
        return runner.Measured(
            protocol={
                "data": validation_data(self.config),
                "split": "validation",
                "clips": len(self.validation_set),
                "held_out": held_out(self.train_set, self.validation_set),
                "train": self.train_set.manifest,
            },
            model={
                **checkpoint.identity,
                "network": shipped.config.to_dict(),
                "parameters": sum(p.numel() for p in shipped.parameters()),
            },
            metrics=metrics,
            told={"metrics": {name: metric.value for name, metric in metrics.items()}},
        )

    def pace(self, folder: Path) -> dict[str, Any]:
        return {"pace": pace(folder, self.config)}


def check(config: dict[str, Any]) -> None:
    """Raise ConfigError for settings that cannot be trained with, before clips are loaded."""
    shape = shape_of(config)
    quantiser = shape.quantiser
    image_settings.check(config, shape)
    if config["entropy_weight"] and quantiser not in ("vq", "simvq"):
        raise tracking.ConfigError(
            f"config key entropy_weight: the quantiser is {quantiser}, a fixed grid without a codebook to spread; set "
            "entropy_weight=0"
        )
    if config["alignment"] != "none" and config["alignment_layer"] > shape.decoder_layers:
        raise tracking.ConfigError(
            f"config key alignment_layer: layer {config['alignment_layer']} of a decoder with only "
            f"{shape.decoder_layers} layers"
        )
    if config["alignment"] != "none":
        depth_of(config["alignment"])
    if config["discriminator"] == "semantic":
        deepest, depth = max(config["semantic_layers"]), depth_of(config["semantic_encoder"])
        if deepest > depth:
            raise tracking.ConfigError(
                f"config key semantic_layers: layer {deepest} of an encoder with only {depth} layers "
                f"({config['semantic_encoder']})"
            )


def facts_of(config: dict[str, Any]) -> dict[str, Any]:
    """Describe a tokenizer's training: the facts that distinguish the rows of a table."""
    return {
        "size": config["size"],
        "steps": config["steps"],
        "seed": config["seed"],
        "discriminator": config["discriminator"],
        "alignment": config["alignment"] != "none",
        "perceptual": config["perceptual"],
        # Images only, so that headers of videos stay unchanged.
        **({"modality": "image", "front": shape_of(config).front} if config["modality"] == "image" else {}),
    }


def clips_of(config: dict[str, Any], data: str, split: str, count: int) -> ClipSet:
    """Load clips of a split in the configured network's shape."""
    shape, how = shape_of(config), streaming_of(config, data, training=split == "train")
    return clip_set(data, split, count, size=shape.size, frames=shape.frames, fps=config["fps"], streaming=how)


def held_out(train_set: ClipSet, validation_set: ClipSet) -> bool:
    """Whether validation clips differ from the training clips; a built set without splits serves as both."""
    return train_set.folder is None or train_set.folder != validation_set.folder


def validation_data(config: dict[str, Any]) -> str:
    """Return the data the finished tokenizer is measured on: by default the same kind as the training data."""
    return str(config["validation_data"] or config["data"])
