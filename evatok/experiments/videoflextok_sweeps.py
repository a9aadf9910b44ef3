"""Recipes of VideoFlexTok's Table 1, with EVATok's generators at equal training FLOPs, of Figure 6, and of captions.

Figure 6 varies the generator's size, its training tokens, and both together: D = 20 N training tokens for N weights in
its layers, in batches of about sqrt(D) tokens, floored to a power of two. Learning rates are inverse to the width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evatok.experiments import videoflextok_generators as generators
from evatok.experiments import videoflextok_recipes as tokenizers
from evatok.experiments.recipe import CHECKPOINTS, WORK, Recipe
from evatok.generation.config import GENERATOR_SIZES, GeneratorConfig
from evatok.generation.flops import generator_operations, trunk_parameters

EVATOK_TOKENS = {"uniform": 256.0, "router": 194.25}
"""Tokens per clip of games: the fixed length, and the mean of the final adaptive tokenizer under its router, as in the
record evaluate-20261129T023735-46102934."""
EVATOK_STEPS = {"uniform": 89, "router": 118}
"""Steps at which EVATok's generators match the training FLOPs of VideoFlexTok's: at EVATOK_TOKENS and their length
symbols."""
WARMUP = 6
"""One step in so many is warm-up, as in the tables' trainings, so that short ones reach their peak learning rate."""
CLIP_TOKENS = 64
"""Tokens per clip of VideoFlexTok and of its grid."""
RATE, RATE_WIDTH = 6e-4, 256
SIZES = ("toy-32", "toy-64", "toy-128", "toy", "toy-384")
TRAINED = (75, 150, 300, 1200)
"""Steps of the middle sweep, beside those of the tables."""
OPTIMAL = ("toy-32", "toy-64", "toy-128")
TOKENS_PER_WEIGHT = 20
SWEPT = {"time-first": (1, 4, 16), "grid": (16,)}
"""Generators of Figure 6, and the tokens per latent frame at which each is sampled."""
TOY_HOURS, TOY_FLOPS = 0.15, 3.4e13
"""Settings of the tables' generators."""


@dataclass(frozen=True)
class Training:
    """A point of Figure 6: a named size, its steps and clips per step."""

    model: str
    steps: int
    batch: int = generators.BATCH

    @property
    def settings(self) -> dict[str, Any]:
        width = GENERATOR_SIZES[self.model]["width"]
        rate = RATE * RATE_WIDTH / width
        shape = {"model": self.model, "steps": self.steps, "batch": self.batch}
        return {**shape, "learning_rate": rate, "warmup": round(self.steps / WARMUP)}

    @property
    def hours(self) -> float:
        """Estimate hours in proportion to operations, never below the startup and measurement time."""
        each = generator_operations(shape_of(self.model), CLIP_TOKENS, training=True)
        return round(max(0.03, TOY_HOURS * each * self.steps * self.batch / TOY_FLOPS), 2)

    @property
    def name(self) -> str:
        return f"{self.model}-{self.steps}x{self.batch}"


def recipes() -> Iterator[Recipe]:
    """Return Table 1's further rows, then the points of Figure 6, each after its prerequisites."""
    for seed in tokenizers.SEEDS:
        for rule in EVATOK_STEPS:
            yield from _evatok(rule, seed)
    for training in trainings():
        for row in SWEPT:
            yield from _point(training, row)
    yield from _text()


def groups() -> dict[str, tuple[str, ...]]:
    """Name the recipes of Table 1 and Figure 6, without the tables' own generators."""
    names = [recipe.name for recipe in recipes()]
    return {
        "videoflextok-systems": tuple(name for name in names if "-evatok-" in name),
        "videoflextok-sweeps": tuple(name for name in names if "-evatok-" not in name and "-text" not in name),
        "videoflextok-text": tuple(name for name in names if "-text" in name),
    }


def _text() -> Iterator[Recipe]:
    """Text-to-video on the moving-shapes set: a tokenizer of its clips, a generator on its captions, samples.

    Samples have a gFVD and pictures; whether they follow their captions is not measured.
    """
    shapes, folder = {"data": "moving-shapes", "threads": 1}, tokenizers.FOLDER
    tokenizer, outcome = f"{folder}/text-tokenizer.safetensors", f"{folder}/generator-text.safetensors"
    coded = {**shapes, "alignment_stored": True, "codebook_size": tokenizers.CODEBOOK, "steps": tokenizers.ROW_STEPS}
    coded |= {"validation_data": "moving-shapes", "work": f"{folder}/text-tokenizer", "checkpoint": tokenizer}
    yield Recipe("videoflextok-text-tokenizer", "videoflextok_stage1", coded, "toy", tokenizer, hours=0.1)
    taught = {**shapes, "task": "text", "tokenizer": tokenizer, "train_clips": 4800, "steps": 2 * generators.STEPS}
    taught |= {"batch": generators.BATCH, "flip": False, "work": f"{folder}/generator-text", "checkpoint": outcome}
    needs, parents = ("videoflextok-text-tokenizer",), {"tokenizer": tokenizer}
    name = "videoflextok-text-generator"
    yield Recipe(name, "stage5_generator", taught, "toy", outcome, needs, parents, hours=0.35)
    for kept in (4, 16):
        drawn = {"threads": 1, "generator": outcome, "tokenizer": tokenizer, "router": "", "classifier": ""}
        drawn |= {"kept": kept if kept < 16 else 0, "guidance": generators.GUIDED, "work": f"{folder}/samples"}
        shown = {"output": f"{folder}/text-k{kept}"}
        yield Recipe(f"videoflextok-text-sample-k{kept}", "sample", {**drawn, **shown}, "", needs=(name,), hours=0.05)


def trainings() -> list[Training]:
    """Return the points of all three sweeps that the tables lack, each once."""
    sizes = [Training(model, generators.STEPS) for model in SIZES if model != "toy"]
    tokens = [Training("toy", steps) for steps in TRAINED]
    return list(dict.fromkeys([*sizes, *tokens, *map(compute_optimal, OPTIMAL)]))


def compute_optimal(model: str) -> Training:
    """Return a size's training on D = 20 N tokens, in batches of sqrt(D) tokens floored to a power of two."""
    tokens = TOKENS_PER_WEIGHT * trunk_parameters(shape_of(model))
    batch = max(1, 2 ** int(math.log2(tokens**0.5)) // CLIP_TOKENS)
    return Training(model, round(tokens / (batch * CLIP_TOKENS)), batch)


def shape_of(model: str) -> GeneratorConfig:
    """Return the shape of a named size on VideoFlexTok's codes."""
    symbols = {"vocabulary": tokenizers.CODEBOOK, "levels": 0, "longest": CLIP_TOKENS}
    return GeneratorConfig.from_dict({**symbols, **GENERATOR_SIZES[model]})


def _evatok(rule: str, seed: int) -> Iterator[Recipe]:
    """A generator on EVATok's final tokenizer, fixed or adaptive, with its samples."""
    name, tokenizer = f"evatok-{rule}-{seed}", f"{CHECKPOINTS}/final-toy-{rule}.safetensors"
    router = f"{CHECKPOINTS}/router-toy-pyramid-matched.safetensors"
    outcome = f"{tokenizers.FOLDER}/generator-{name}.safetensors"
    taught = {
        **generators.GAMES,
        "threads": 1,
        "tokenizer": tokenizer,
        "assignment": rule,
        "router": router,
        "steps": EVATOK_STEPS[rule],
        "warmup": round(EVATOK_STEPS[rule] / WARMUP),
        "batch": generators.BATCH,
        "seed": seed,
        "work": outcome.removesuffix(".safetensors"),
        "checkpoint": outcome,
    }
    recipe, needs = f"videoflextok-generator-{name}", (f"final-{rule}-semantic-0",)
    parents = {"tokenizer": tokenizer, **({"router": router} if rule == "router" else {})}
    yield Recipe(recipe, "stage5_generator", taught, "toy", outcome, needs, parents, hours=TOY_HOURS)
    drawn = {
        "threads": 1,
        "generator": outcome,
        "tokenizer": tokenizer,
        "router": router,
        **generators.JUDGED,
        "seed": seed,
        "work": f"{WORK}/videoflextok/samples",
        "output": "",
    }
    yield Recipe(f"videoflextok-sample-{name}", "sample", drawn, "", needs=(recipe,), hours=0.05)


def _point(training: Training, row: str) -> Iterator[Recipe]:
    """A generator of Figure 6 with its samples."""
    taught = generators.generator(row, generators.GENERATORS[row], 0, training.settings, training.name)
    yield Recipe(**{**vars(taught), "hours": training.hours})
    for kept in SWEPT[row]:
        yield generators.sample(row, generators.GENERATORS[row], 0, kept, point=training.name)
