"""Stage 5: train a Llama-like model on the codes of a tokenizer, adaptive or fixed (EVATok Sec. 4.3, 4.4).

It learns clips of a class (`task=class`), or to go on from five given frames (`task=frames`). The tokenizer codes all
clips once, plain and mirrored, into the cache; training then sees codes alone. `assignment=router` lets a router name
the lengths, `assignment=uniform` makes the baseline of fixed length. Run again, the same command goes on where a killed
one stopped, be it coding or training.

    python -m evatok.experiments.stage5_generator with toy
    python -m evatok.experiments.stage5_generator with toy assignment=uniform tokenizer=PATH
    python -m evatok.experiments.stage5_generator with toy task=frames
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from evatok import checkpoints, coding, generation, records, training
from evatok.checkpoints import Checkpoint
from evatok.coding import CodedSet, Coder, Rule
from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments import tracking
from evatok.experiments.setting import autocast, claim_folder, log_to, of_size, optional_artifact, recipe, set_threads
from evatok.grammar import Grammar, Sequences
from evatok.models.generator import GENERATOR_SIZES, Condition, Generator, GeneratorConfig
from evatok.models.tokenizer import AdaptiveTokenizer
from evatok.routing import Router

ex = tracking.experiment("stage5_generator", __doc__)


@ex.config
def config() -> None:
    size = "toy"  # the records' status: toy, small or paper
    model = "toy"  # network size: toy, small, B (99M), L (327M) or XL (633M; the paper's GPT-L-plus) [Sec. 4.3]
    task = "class"  # class (class-to-video) or frames (five frames are given [Sec. 4.4])
    tokenizer = "results/checkpoints/final-toy-router.safetensors"  # whose codes are learnt
    assignment = "router"  # who names the lengths of the training clips: router, or uniform (the baseline)
    router = "results/checkpoints/router-toy-pyramid-matched.safetensors"  # as the tokenizer was trained [Sec. 3.4]
    uniform_tokens = 0  # tokens a block of uniform; 0: the tokenizer's own row, else its middle level
    given = "levels"  # tokens of given frames under a router [512, 128 in Sec. 4.4]: levels (longest, middle) or row
    # (the level above and the one below uniform_tokens)
    data = "freedoom"  # freedoom, arcade, mixed, a built set's folder, a manifest CSV, a folder of class folders
    label = "motion"  # label column that names the class; motion+game: the last that a clip has (for mixed)
    fps = None  # frames a second taken from a user's videos; None keeps their own
    train_clips = 6400  # clips of the training split; 0 takes all of a user's set
    validation_clips = 320  # clips on which cross-entropy is measured
    positions = "learned"  # learned (absolute; what the paper's parameter counts fit) or rope
    dropout = 0.1  # of tokens, residual and feed-forward branches (not stated; LARP: 0.1)
    class_dropout = 0.1  # share of clips whose class is hidden, for guidance (not stated; LARP: 0.1)
    steps = 3000  # optimiser steps (paper: UCF-101 3000 epochs, K600 75 epochs [suppl. C])
    batch = 64  # clips a step (paper: 128 [suppl. C])
    learning_rate = 6e-4  # constant part of WSD (not stated; LARP: 6e-4)
    final_learning_rate = 0.0  # end of WSD's annealing [suppl. C]
    warmup = 100  # steps (not stated; LARP: 4 epochs)
    schedule = (
        "wsd"  # wsd: constant for 80 % of the steps, then annealed [suppl. C] (by 1 - sqrt: GigaTok's), or cosine
    )
    weight_decay = 0.05  # of AdamW with betas 0.9, 0.95 (not stated; LARP: these)
    clip_norm = 1.0  # gradient norm (not stated; GigaTok: 1.0)
    ema = 0.0  # decay of the weights' running mean, which is what ships (not stated); 0: the last weights ship
    flip = True  # each epoch takes a clip plain or mirrored, whose class stays: motions and games go either way
    bf16 = True  # autocast while training; losses are float32
    code_bf16 = False  # autocast of the tokenizer while coding; the router decides in float32
    minutes = 0.0  # stop the training after so many minutes with the state saved, to be run again; 0: no limit
    device = "cpu"  # cpu or cuda
    threads = 0  # CPU threads; 0 leaves PyTorch's choice
    log_every = 20  # steps a line of the curve
    save_every = 200  # steps between resumable states and looks at the validation clips
    work = "results/work/stage5_generator"  # folder of the resumable state and the curve
    checkpoint = "results/work/stage5_generator/generator.safetensors"  # where the finished generator goes
    records_folder = "results/records"  # where the record goes
    seed = 0


@ex.named_config
def toy() -> None:
    steps = 1000


@ex.named_config
def small() -> None:
    size = "small"
    model = "small"
    train_clips = 20000
    steps = 20000
    batch = 128
    warmup = 500
    device = "cuda"


# Give `data` (a manifest CSV or class folders; UCF-101: all 9537 training clips) and `tokenizer` (8192 codes).
_PAPER = {
    "size": "paper",
    "model": "XL",
    "label": "label",
    "train_clips": 0,
    "validation_clips": 0,
    "batch": 128,
    "code_bf16": True,
    "device": "cuda",
    "log_every": 100,
    "save_every": 1000,
}

# 3000 epochs of 74 steps; warm-up over 4 epochs. Ablations: model=B, at the same schedule.
ex.add_named_config("paper_ucf", {**_PAPER, "steps": 223500, "warmup": 300})
# 75 epochs of some 370000 clips, without classes; warm-up over less than LARP's 4 epochs, which would be 5 % of all.
ex.add_named_config("paper_k600", {**_PAPER, "task": "frames", "class_dropout": 0.0, "steps": 217000, "warmup": 3000})


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    check(config)
    steps = recipe(config)
    lesson = Lesson.read(config)
    folder = claim_folder(Path(config["work"]), config, lesson.identity, tracker)
    module = Generator(lesson.shape).to(config["device"])
    log = log_to(tracker)

    def look(step: int, line: dict[str, float]) -> None:
        log(step, line)
        if step % config["save_every"] == 0:
            for name, metric in measured(module, lesson, config).items():
                tracker.scalar(f"validation.{name}", metric.value, step)

    objective = Objective(lesson, config)
    limit = 60 * config["minutes"] or None
    try:
        averaged = training.train(module, objective, steps, folder, description="stage 5", on_log=look, seconds=limit)
    except training.SliceEnded as ended:
        return {"complete": False, "step": ended.step, "steps": ended.steps, **pace(folder, lesson, config)}
    path = Path(config["checkpoint"])
    checkpoints.save(
        path,
        averaged,
        kind="generator",
        config=lesson.shape.to_dict(),
        parents=lesson.parents,
        facts=lesson.facts,
        dtype=torch.float16,
    )
    record = recorded(config, tracker, path, averaged, lesson, folder)
    written = records.write(record, config["records_folder"])
    tracker.artifact(folder / "curve.jsonl")
    return {
        "complete": True,
        "checkpoint": str(path),
        "record": written.stem,
        "metrics": {name: metric.value for name, metric in record.metrics.items()},
        **pace(folder, lesson, config),
    }


@dataclass(frozen=True)
class Part:
    """One split as the generator sees it.

    Attributes:
        coded: its clips' codes.
        classes: (N,) class numbers; None in frame prediction.
        given: codes of what frame prediction is given of each clip; None for classes.
    """

    coded: CodedSet
    classes: np.ndarray | None
    given: CodedSet | None

    def batch(
        self, rows: np.ndarray, variants: np.ndarray | int, grammar: Grammar, device: str
    ) -> tuple[Sequences, Condition]:
        """Sequences and conditions of clips `rows` (B,) in their variants (B,), on a device."""
        sequences = grammar.build(self.coded.batch(rows, variants))
        classes = None if self.classes is None else torch.from_numpy(self.classes[rows])
        given = None
        if self.given is not None:
            given = generation.condition_symbols(self.given.batch(rows, variants), grammar)
        moved = Sequences(sequences.symbols.to(device), sequences.counts.to(device))
        return moved, Condition(classes, given).to(device)


@dataclass(frozen=True)
class Lesson:
    """All that a generator learns from, coded, and what its checkpoint has to tell of it."""

    train: Part
    validation: Part
    grammar: Grammar
    shape: GeneratorConfig
    parents: dict[str, str]
    facts: dict[str, Any]
    protocol: dict[str, Any]

    @property
    def identity(self) -> str:
        return " ".join(self.parents.values())

    @classmethod
    def read(cls, config: dict[str, Any]) -> Lesson:
        """Tokenizer, clips, classes and codes, these as far as they are not in the cache.

        Raises:
            CheckpointError, RoutingError: a tokenizer or router that is absent, damaged or does not fit.
            CodingError: clips without the label column.
            GenerationError: a validation clip of a class that no training clip has.
        """
        tokenizer, checkpoint = AdaptiveTokenizer.load(Path(config["tokenizer"]))
        tokenizer.to(config["device"])
        row = uniform_row(config, tokenizer, checkpoint)
        prefix = prefix_of(config, tokenizer, row) if config["task"] == "frames" else ()
        fixed = row if config["assignment"] == "uniform" else None
        rule, parents = rule_of(config, tokenizer, fixed, prefix)
        clips = {name: clips_of(config, tokenizer, name) for name in ("train", "validation")}
        classes, numbers = classes_of(config, clips)
        coder = coding.clip_coder(tokenizer, checkpoint.sha256, rule, bf16=config["code_bf16"])
        giver = generation.condition_coder(tokenizer, checkpoint.sha256, prefix, bf16=config["code_bf16"])
        parts = {
            name: Part(
                _coded(coder, its, config, name),
                numbers.get(name),
                _coded(giver, its, config, f"{name}, given frames") if prefix else None,
            )
            for name, its in clips.items()
        }
        grammar = Grammar.of(tokenizer.config)
        return cls(
            parts["train"],
            parts["validation"],
            grammar,
            shape_of(config, grammar, len(classes), generation.condition_length(prefix)),
            {"tokenizer": checkpoint.sha256, "clips": clips["train"].sha256, **parents},
            facts_of(config, classes, fixed, prefix, parts["train"].coded.mean_tokens),
            protocol_of(config, clips),
        )


class Objective:
    """The loss of one step: a batch of coded clips, each in the variant that its epoch takes."""

    def __init__(self, lesson: Lesson, config: dict[str, Any]) -> None:
        self.lesson, self.config = lesson, config

    def __call__(self, module: Generator, step: int, generator: torch.Generator) -> tuple[torch.Tensor, training.Terms]:
        config, part = self.config, self.lesson.train
        rows = training.batch_indices(len(part.coded), config["batch"], step, config["seed"])
        epoch = step // (len(part.coded) // config["batch"])
        variants = coding.variants_of_epoch(len(part.coded), epoch, config["seed"], config["flip"])[rows]
        sequences, condition = part.batch(rows, variants, self.lesson.grammar, config["device"])
        drop = (torch.rand(len(rows), generator=generator) < config["class_dropout"]).to(config["device"])
        with autocast(config):
            loss, terms = module.loss(sequences, condition, drop if part.given is None else None)
        return loss, {**terms, "symbols": sequences.counts.float().mean()}


@torch.no_grad()
def measured(module: Generator, lesson: Lesson, config: dict[str, Any], batch: int = 32) -> dict[str, records.Metric]:
    """What the validation clips cost under a model that knows their conditions.

    Bits a code and bits a length symbol tell how well each is guessed. Tokenizers of different lengths compare by bits
    a clip alone, lengths included: a code of a short clip has more to tell.
    """
    was_training = module.training
    module.eval()
    part, clips = lesson.validation, len(lesson.validation.coded)
    bits, symbols = {"code": 0.0, "length": 0.0}, {"code": 0, "length": 0}
    for start in range(0, clips, batch):
        rows = np.arange(start, min(start + batch, clips))
        sequences, condition = part.batch(rows, 0, lesson.grammar, config["device"])
        with autocast(config):
            logits = module(sequences, condition)
        targets = sequences.symbols[sequences.valid]
        cost = F.cross_entropy(logits.float(), targets, reduction="none") / math.log(2)
        lengths = targets >= lesson.grammar.codebook_size
        for name, of_kind in (("code", ~lengths), ("length", lengths)):
            bits[name] += float(cost[of_kind].double().sum())
            symbols[name] += int(of_kind.sum())
    module.train(was_training)
    return {
        "bits_per_code": records.Metric(bits["code"] / symbols["code"], "bit", clips, "lower"),
        "bits_per_length": records.Metric(bits["length"] / symbols["length"], "bit", clips, "lower"),
        "bits_per_clip": records.Metric((bits["code"] + bits["length"]) / clips, "bit", clips, "lower"),
        "validation_tokens": records.Metric(symbols["code"] / clips, "tokens", clips, "lower"),
    }


def recorded(
    config: dict[str, Any], tracker: tracking.Tracker, path: Path, module: Generator, lesson: Lesson, folder: Path
) -> records.Record:
    """Measure the checkpoint as it was saved, in its precision: what is measured is what ships."""
    shipped = checkpoints.load(path, "generator")
    shipped.fill(module)
    clips = len(lesson.train.coded)
    rate = pace(folder, lesson, config)
    return records.new_record(
        kind="stage5_generator",
        status=config["size"],
        protocol=lesson.protocol,
        model={
            "sha256": shipped.sha256,
            "parents": shipped.parents,
            "facts": shipped.facts,
            "parameters": sum(p.numel() for p in module.parameters()),
            "run": tracker.run_id,
        },
        metrics={
            **measured(module, lesson, config),
            "mean_tokens": records.Metric(lesson.train.coded.mean_tokens, "tokens", clips, "lower"),
            "step_seconds": records.Metric(rate["step_seconds"], "s", config["steps"], "lower"),
        },
        config=config,
        environment={**tracker.environment(), "wall_seconds": training.seconds_spent(folder)},
        artifacts=optional_artifact("checkpoint", path),
    )


def check(config: dict[str, Any]) -> None:
    """Raise ConfigError for what no training can be made of, before clips are made."""
    if config["task"] not in generation.TASKS:
        raise tracking.ConfigError(f"config key task: {config['task']!r} is none of {', '.join(generation.TASKS)}")
    if config["assignment"] not in ("router", "uniform"):
        raise tracking.ConfigError(f"config key assignment: {config['assignment']!r} is neither router nor uniform")
    if config["given"] not in ("levels", "row"):
        raise tracking.ConfigError(f"config key given: {config['given']!r} is neither levels nor row")
    if config["positions"] not in ("learned", "rope"):
        raise tracking.ConfigError(f"config key positions: {config['positions']!r} is neither learned nor rope")
    if not (0 <= config["dropout"] < 1 and 0 <= config["class_dropout"] < 1) or config["minutes"] < 0:
        raise tracking.ConfigError(
            "config keys dropout, class_dropout, minutes: shares from 0 to below 1, minutes from 0"
        )
    of_size(GENERATOR_SIZES, config["model"], "model")


def uniform_row(config: dict[str, Any], tokenizer: AdaptiveTokenizer, checkpoint: Checkpoint) -> tuple[int, ...]:
    """Tokens of each block under assignment=uniform.

    Raises:
        ConfigError: tokens that are no level.
    """
    shape = tokenizer.config
    own = checkpoint.facts.get("row", [shape.levels[len(shape.levels) // 2]])
    tokens = config["uniform_tokens"] or own[0]
    if tokens not in shape.levels:
        raise tracking.ConfigError(f"config key uniform_tokens: {tokens} is none of the levels {shape.levels}")
    return (tokens,) * shape.candidates.blocks


def prefix_of(config: dict[str, Any], tokenizer: AdaptiveTokenizer, row: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens of the given frames' blocks."""
    if config["assignment"] == "uniform":
        return generation.condition_prefix(tokenizer.config, row)
    return generation.condition_prefix(tokenizer.config, None, row[0] if config["given"] == "row" else None)


def rule_of(
    config: dict[str, Any], tokenizer: AdaptiveTokenizer, row: tuple[int, ...] | None, prefix: tuple[int, ...]
) -> tuple[Rule, dict[str, str]]:
    """The configured rule of assignment, and the hash of the router that it stands on."""
    if row is not None:
        return coding.uniform(tokenizer.config, row[0]), {}
    router = Router.load(Path(config["router"]))
    router.module.requires_grad_(False).to(config["device"])
    return coding.routed(router, tokenizer.config, prefix), {"router": router.checkpoint.sha256}


def clips_of(config: dict[str, Any], tokenizer: AdaptiveTokenizer, split: str) -> ClipSet:
    """The configured clips of a split, of the tokenizer's shape."""
    shape = tokenizer.config
    count = config[f"{split}_clips"]
    return clip_set(config["data"], split, count, size=shape.size, frames=shape.frames, fps=config["fps"])


def classes_of(config: dict[str, Any], clips: dict[str, ClipSet]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The classes of the training clips, sorted, and each split's (N,) class numbers; nothing in frame prediction."""
    if config["task"] == "frames":
        return [], {}
    labels = {name: coding.labels_of(its, config["label"]).tolist() for name, its in clips.items()}
    classes = sorted(set(labels["train"]))
    return classes, {name: generation.class_numbers(words, classes) for name, words in labels.items()}


def shape_of(config: dict[str, Any], grammar: Grammar, classes: int, condition: int) -> GeneratorConfig:
    """The configured network for a grammar."""
    return GeneratorConfig.of(
        grammar,
        config["model"],
        classes=classes,
        condition=condition,
        positions=config["positions"],
        dropout=config["dropout"],
        class_dropout=config["class_dropout"],
    )


def facts_of(
    config: dict[str, Any],
    classes: list[str],
    row: tuple[int, ...] | None,
    prefix: tuple[int, ...],
    tokens: float,
) -> dict[str, Any]:
    """How a generator was trained, for its checkpoint's header; sampling needs task, classes and prefix."""
    told = {name: config[name] for name in ("task", "assignment", "size", "model", "steps", "batch", "seed")}
    return {
        "stage": 5,
        **told,
        "classes": classes,
        "label": config["label"] if classes else "",
        **({"row": list(row)} if row else {}),
        "prefix": list(prefix),
        **({"given": config["given"]} if prefix and not row else {}),
        "tokens_per_clip": tokens,
        "variants": coding.VARIANTS_RULE if config["flip"] else "plain clips only",
    }


def protocol_of(config: dict[str, Any], clips: dict[str, ClipSet]) -> dict[str, Any]:
    """What the record's validation figures were measured on, and what was trained on."""
    return {
        "data": config["data"],
        "split": "validation",
        "clips": len(clips["validation"]),
        "sha256": clips["validation"].sha256,
        "train": clips["train"].manifest,
    }


def pace(folder: Path, lesson: Lesson, config: dict[str, Any]) -> dict[str, float]:
    """Seconds a step and symbols a second, over all of a training so far."""
    last = training.read_curve(folder)[-1]
    seconds = training.seconds_spent(folder)
    symbols = lesson.train.coded.mean_tokens + lesson.grammar.candidates.blocks
    return {
        "step_seconds": seconds / last["step"],
        "symbols_per_second": config["batch"] * symbols * last["step"] / seconds,
    }


def _coded(coder: Coder, clips: ClipSet, config: dict[str, Any], name: str) -> CodedSet:
    """The set's codes; of training clips also mirrored, if `flip`."""
    mirrored = config["flip"] and name.startswith("train")
    with tqdm(total=len(clips), desc=f"codes of {name}", disable=None) as bar:
        return coding.code_set(coder, clips.clips, mirrored=mirrored, device=config["device"], tick=bar.update)


if __name__ == "__main__":
    tracking.command_line(ex)
