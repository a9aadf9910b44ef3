"""Stage 5: train a Llama-like model on the codes of a tokenizer, adaptive or fixed (EVATok Sec. 4.3, 4.4).

It learns to generate clips of a class (`task=class`), to continue five given frames (`task=frames`), or to generate
clips from captions (`task=text`, on VideoFlexTok's codes). The tokenizer encodes all clips once, plain and mirrored,
into the cache; training then sees codes only. `assignment=router` lets a router pick the lengths, `assignment=uniform`
gives the fixed-length baseline. Rerun the command to resume a killed run, in encoding or in training.

    python -m evatok.experiments.stage5_generator with toy
    python -m evatok.experiments.stage5_generator with toy assignment=uniform tokenizer=PATH
    python -m evatok.experiments.stage5_generator with toy task=frames
    python -m evatok.experiments.stage5_generator with toy tokenizer=VIDEOFLEXTOK order=time-first
    python -m evatok.experiments.stage5_generator with toy tokenizer=VIDEOFLEXTOK frames=64 kept=2
    python -m evatok.experiments.stage5_generator with toy task=text data=moving-shapes flip=False tokenizer=PATH
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from evatok.experiments import keys, runner, tracking
from evatok.experiments.flex_lesson import lesson_of
from evatok.experiments.generator_lesson import Lesson
from evatok.experiments.setting import (
    TRAINING,
    autocast,
)
from evatok.generation import code_cache
from evatok.generation.flops import generator_operations
from evatok.generation.transformer import Generator
from evatok.metrics import catalogue
from evatok.models.dropout import packed
from evatok.models.recompute import recompute
from evatok.storage import checkpoints, ranks, records
from evatok.storage.transfer import moved
from evatok.training import loop

ex = tracking.experiment("stage5_generator", __doc__, keys.STAGE | keys.DECODING)


@ex.config
def config() -> None:
    model = "toy"  # XL is the paper's GPT-L-plus [Sec. 4.3]
    task = "class"  # [Sec. 4.4]
    text = "words"  # VideoFlexTok: a T5, which one is not stated
    text_slots = 8
    tokenizer = "results/checkpoints/final-toy-router.safetensors"
    assignment = "router"
    router = "results/checkpoints/router-toy-pyramid-matched.safetensors"  # as the tokenizer was trained [Sec. 3.4]
    uniform_tokens = 0  # 0: the tokenizer's own assignment, else its baseline, half of its longest level
    given = "levels"
    latents = ""
    order = "time-first"  # VideoFlexTok [Sec. 4.1]; only for its tokens
    kept = 0
    frames = 0  # VideoFlexTok: 81, in chunks of 17 [Sec. 4.4]
    data = "freedoom"
    label = "motion"  # motion+game: the last that a clip has (for mixed)
    fps = None
    train_clips = 6400
    validation_clips = 320
    positions = "learned"  # learned is what the paper's parameter counts fit
    dropout = 0.1  # not stated; LARP: 0.1
    class_dropout = 0.1  # not stated; LARP: 0.1
    steps = 3000  # paper: UCF-101 3000 epochs, K600 75 epochs [suppl. C]
    batch = 64  # paper: 128 [suppl. C]
    learning_rate = 6e-4  # not stated; LARP: 6e-4
    final_learning_rate = 0.0  # [suppl. C]
    warmup = 100  # not stated; LARP: 4 epochs
    schedule = "wsd"  # [suppl. C], annealed by 1 - sqrt (GigaTok's)
    weight_decay = 0.05  # betas 0.9, 0.95 (not stated; LARP: these)
    ema = 0.0  # not stated
    code_bf16 = False
    recompute = False
    fsdp = False
    save_every = 200  # also the interval of validation
    work = "results/work/stage5_generator"
    checkpoint = "results/work/stage5_generator/generator.safetensors"
    seed = 0


@ex.named_config
def toy() -> None:
    steps = 1000


@ex.named_config
def small() -> None:
    size = "small"
    model = "small"
    tokenizer = "results/work/stage4_final/final.safetensors"
    router = "results/work/stage3_router/router.safetensors"
    train_clips = 20000
    steps = 20000
    batch = 128
    warmup = 500
    bf16 = True
    device = "cuda"


# Give `data` (a manifest CSV or class folders; UCF-101: all 9537 training clips); the tokenizer has 8192 codes.
_PAPER = {
    "size": "paper",
    "model": "XL",
    "tokenizer": "results/work/stage4_final/final.safetensors",
    "router": "results/work/stage3_router/router.safetensors",
    "label": "label",
    "train_clips": 0,
    "validation_clips": 0,
    "batch": 128,
    "code_bf16": True,
    "bf16": True,
    "device": "cuda",
    "log_every": 100,
    "save_every": 1000,
}

# 3000 epochs of 74 steps; warm-up over 4 epochs. Ablations: model=B, at the same schedule.
ex.add_named_config("paper_ucf", {**_PAPER, "steps": 223500, "warmup": 300})
# 75 epochs of some 370000 clips, without classes; warm-up below LARP's 4 epochs, which would be 5 % of all steps.
ex.add_named_config("paper_k600", {**_PAPER, "task": "frames", "class_dropout": 0.0, "steps": 217000, "warmup": 3000})
# VideoFlexTok's text-to-video (Sec. 4.3): D = 20 N tokens in batches of about sqrt(D), floored to a power of two.
_TEXT = {"task": "text", "text": "google/t5-v1_1-xl", "flip": False, "dropout": 0.0}
_TEXT["tokenizer"] = "results/work/videoflextok_stage2/videoflextok.safetensors"
ex.add_named_config("paper_text", {**_PAPER, **_TEXT, "steps": 180000, "batch": 51, "warmup": 1800})
# Images (supplement H): a class and one block of tokens.
_IMAGES = {
    "tokenizer": "results/checkpoints/image-final-toy-router.safetensors",
    "router": "results/checkpoints/image-router-toy.safetensors",
    "data": "images",
    "label": "label",
}
ex.add_named_config("image_toy", {**_IMAGES, "steps": 2000, "validation_clips": 512})
ex.add_named_config(
    "image_small",
    {**_IMAGES, "size": "small", "model": "small", "train_clips": 20000, "steps": 20000, "batch": 128, "warmup": 500}
    | {"bf16": True, "device": "cuda"},
)
# 300 epochs of 5,004 steps; learning rate and weight decay of GigaTok's generators.
ex.add_named_config(
    "image_paper",
    {**_PAPER, "model": "B", "data": "imagenet", "batch": 256, "steps": 1501200, "warmup": 5000}
    | {"learning_rate": 1e-4},
)


@tracking.main(ex, TRAINING, plan="generator_cost")
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    check(config)
    return runner.train(config, tracker, GeneratorTask)


class GeneratorTask(runner.Task[Generator]):
    """A generator trained on coded clips."""

    kind = "stage5_generator"
    distributed = True

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.lesson = config, lesson_of(config)
        self.inputs = self.lesson.identity
        self.module = Generator(self.lesson.shape).to(config["device"])
        if config["recompute"]:
            recompute(self.module.layers)
        self.objective = Objective(self.lesson, config)

    def look(self) -> dict[str, float]:
        return {name: metric.value for name, metric in measured(self.module, self.lesson, self.config).items()}

    def ship(self, averaged: Generator, path: Path, changes: dict[str, Any]) -> None:
        checkpoints.save(
            path,
            averaged,
            kind="generator",
            config=self.lesson.shape.to_dict(),
            parents=self.lesson.parents,
            facts={**self.lesson.facts, **changes},
            dtype=torch.float16,
        )

    def measure(self, averaged: Generator, path: Path, folder: Path) -> runner.Measured:
        shipped, lesson = checkpoints.load(path, "generator"), self.lesson
        shipped.fill(averaged)
        tokens, rate = lesson.train.coded.mean_tokens, pace(folder, lesson, self.config)
        metrics = {
            **measured(averaged, lesson, self.config),
            "mean_tokens": catalogue.of("mean_tokens").measured(tokens, len(lesson.train.coded)),
            "step_seconds": catalogue.of("step_seconds").measured(rate["step_seconds"], self.config["steps"]),
        }
        return runner.Measured(
            protocol=lesson.protocol,
            model={
                **shipped.identity,
                "parameters": sum(p.numel() for p in averaged.parameters()),
                "training_flops": training_flops(lesson, self.config),
            },
            metrics=metrics,
            told={"metrics": {name: metric.value for name, metric in metrics.items()}},
        )

    def pace(self, folder: Path) -> dict[str, Any]:
        return pace(folder, self.lesson, self.config)


class Objective:
    """The loss of one step: coded clips, each in the variant its epoch uses."""

    rehearses = True  # means over symbols, whose number differs between clips

    def __init__(self, lesson: Lesson, config: dict[str, Any]) -> None:
        self.lesson, self.config = lesson, config

    def __call__(self, module: Generator, step: int, generator: torch.Generator) -> tuple[torch.Tensor, loop.Terms]:
        config, part = self.config, self.lesson.train
        rows = loop.batch_indices(len(part.coded), config["batch"], step, config["seed"])
        epoch = step // (len(part.coded) // config["batch"])
        variants = code_cache.variants_of_epoch(len(part.coded), epoch, config["seed"], config["flip"])[rows]
        drop = ranks.share(torch.rand(len(rows), generator=generator) < config["class_dropout"])
        extra = self.lesson.grammar.headers + module.config.prefix - 1
        sizes = part.coded.lengths[variants, rows].sum(1) + extra
        rows, variants = ranks.share(rows), ranks.share(variants)
        device, (sequences, condition) = config["device"], part.batch(rows, variants, self.lesson.grammar)
        plan = module.plan(sequences, condition).to(device)  # built on the CPU: no GPU synchronisation
        sequences, condition = sequences.to(device), condition.to(device)
        dropped = moved(drop, device) if part.given is None else None
        with autocast(config), packed(sizes):
            loss, terms = module.loss(sequences, condition, dropped, plan)
        return loss, {**terms, "symbols": sequences.counts.float().mean()}


@torch.no_grad()
def measured(module: Generator, lesson: Lesson, config: dict[str, Any], batch: int = 32) -> dict[str, records.Metric]:
    """Return the bits of the validation clips under the model, given their conditions.

    Bits per code and bits per length symbol tell how well each is predicted. Tokenizers of different lengths are
    compared by bits per clip, lengths included: a code of a short clip carries more.
    """
    was_training = module.training
    module.eval()
    part, clips = lesson.validation, len(lesson.validation.coded)
    bits, symbols, hidden = {"code": 0.0, "length": 0.0}, {"code": 0, "length": 0}, 0.0
    for start in range(0, clips, batch):
        rows = np.arange(start, min(start + batch, clips))
        sequences, condition = part.batch(rows, 0, lesson.grammar)
        sequences, condition = sequences.to(config["device"]), condition.to(config["device"])
        with autocast(config):
            logits = module(sequences, condition)
        targets = sequences.symbols[sequences.valid]
        cost = F.cross_entropy(logits.float(), targets, reduction="none") / math.log(2)
        lengths = targets >= lesson.grammar.codebook_size
        for name, of_kind in (("code", ~lengths), ("length", lengths)):
            bits[name] += float(cost[of_kind].double().sum())
            symbols[name] += int(of_kind.sum())
        if module.text is not None:
            everyone = torch.ones(len(rows), dtype=torch.bool, device=config["device"])
            with autocast(config):
                blind = module(sequences, condition, everyone)
            hidden += float(F.cross_entropy(blind.float(), targets, reduction="sum")) / math.log(2)
    module.train(was_training)
    values = {
        "bits_per_code": bits["code"] / symbols["code"],
        **({"bits_per_length": bits["length"] / symbols["length"]} if symbols["length"] else {}),
        "bits_per_clip": (bits["code"] + bits["length"]) / clips,
        "validation_tokens": symbols["code"] / clips,
        **({"bits_per_clip_without_text": hidden / clips} if module.text is not None else {}),
    }
    return {name: catalogue.of(name).measured(value, clips) for name, value in values.items()}


def training_flops(lesson: Lesson, config: dict[str, Any]) -> float:
    """Count the operations of the whole training, forward and backward, without encoding."""
    symbols = lesson.train.coded.mean_tokens + lesson.grammar.headers
    return generator_operations(lesson.shape, symbols, training=True) * config["steps"] * config["batch"]


def check(config: dict[str, Any]) -> None:
    """Raise ConfigError for settings that cannot be trained with, before clips are loaded."""
    if config["fsdp"] and config["fp16"]:
        raise tracking.ConfigError(
            "config key fsdp: the scale of fp16 is not shared by ranks; use bf16, or leave one out"
        )
    if config["given"] == "row" and not config["uniform_tokens"]:
        raise tracking.ConfigError(
            "config key uniform_tokens: given=row takes the level above and the one below a block of the fixed row; "
            "say how many tokens that has (toy: 16, paper: 256)"
        )


def pace(folder: Path, lesson: Lesson, config: dict[str, Any]) -> dict[str, float]:
    """Measure seconds per step and symbols per second over the whole training so far."""
    last = loop.read_curve(folder)[-1]
    seconds = loop.seconds_spent(folder)
    symbols = lesson.train.coded.mean_tokens + lesson.grammar.headers
    return {
        "step_seconds": seconds / last["step"],
        "symbols_per_second": config["batch"] * symbols * last["step"] / seconds,
    }


if __name__ == "__main__":
    tracking.command_line(ex)
