"""Recipes of generators on VideoFlexTok's codes, its 3D grid and its controls: equal trainings on equal clips.

All stand on tokenizers of equally many steps (`videoflextok_recipes.ROWS`). Games are what they write: the classifier
tells those apart on reconstructions too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evatok.experiments import videoflextok_recipes as tokenizers
from evatok.experiments.recipe import CHECKPOINTS, Recipe

STEPS, BATCH = 600, 32
KEPT = (1, 2, 4, 8, 16)
GUIDED = 2.0
FLOW_STEPS = (1, 5, 40)
"""Flow steps of Figure 12 beside the usual ones."""
GAMES: dict[str, Any] = {"data": "arcade", "label": "game", "task": "class", "train_clips": 4800}


@dataclass(frozen=True)
class Trained:
    """A generator: the row of its tokenizer, its order, and the tokens per latent frame at which it is sampled."""

    row: str
    order: str
    kept: tuple[int, ...]


GENERATORS = {
    "time-first": Trained("2d", "time-first", (4, 16)),
    "depth-first": Trained("2d", "depth-first", (16,)),
    "flat": Trained("flat", "flat", (4, 16)),
    "full": Trained("full", "time-first", (4, 16)),
    "grid": Trained("grid", "depth-first", (16,)),
}


def recipes() -> Iterator[Recipe]:
    """All of them, those of every seed; figures of one seed after those that claims of several rest on."""
    for seed in tokenizers.SEEDS:
        for name, trained in GENERATORS.items():
            yield _generator(name, trained, seed)
            for kept in trained.kept:
                yield _sample(name, trained, seed, kept)
    yield from _figures()


def groups() -> dict[str, tuple[str, ...]]:
    """Names of all, of the first seed's, and of the further points of figures."""
    names = [recipe.name for recipe in recipes()]
    points = tuple(recipe.name for recipe in _figures())
    return {
        "videoflextok-generators": tuple(names),
        "videoflextok-generators-0": tuple(name for name in names if name not in points and "-0-" in f"{name}-"),
        "videoflextok-generators-figures": points,
    }


def _figures() -> Iterator[Recipe]:
    """Further points of Figures 7 (tokens), 11 (guidance) and 12 (tokens and flow steps), of the first seed."""
    first = GENERATORS["time-first"]
    for kept in (kept for kept in KEPT if kept not in first.kept):
        yield _sample("time-first", first, 0, kept)
    for name in ("time-first", "grid"):
        yield _sample(name, GENERATORS[name], 0, 16, guidance=GUIDED)
    for flow_steps in FLOW_STEPS:
        for kept in (1, 4, 16):
            yield _sample("time-first", first, 0, kept, flow_steps=flow_steps)


def _places(name: str, trained: Trained, seed: int) -> tuple[str, str]:
    """The checkpoints of a generator and of its tokenizer."""
    folder = tokenizers.FOLDER
    return f"{folder}/generator-{name}-{seed}.safetensors", f"{folder}/row-{trained.row}-0.safetensors"


def _generator(name: str, trained: Trained, seed: int) -> Recipe:
    outcome, tokenizer = _places(name, trained, seed)
    settings = {
        **GAMES,
        "threads": 1,
        "tokenizer": tokenizer,
        "order": trained.order,
        "steps": STEPS,
        "batch": BATCH,
        "seed": seed,
        "work": outcome.removesuffix(".safetensors"),
        "checkpoint": outcome,
    }
    needs, parents = (f"videoflextok-row-{trained.row}-0",), {"tokenizer": tokenizer}
    recipe = f"videoflextok-generator-{name}-{seed}"
    return Recipe(recipe, "stage5_generator", settings, "toy", outcome, needs, parents, hours=0.15)


def _sample(name: str, trained: Trained, seed: int, kept: int, guidance: float = 1.0, flow_steps: int = 20) -> Recipe:
    generator, tokenizer = _places(name, trained, seed)
    settings = {
        "threads": 1,
        "generator": generator,
        "tokenizer": tokenizer,
        "router": "",
        "protocol": "embedded-games-generation",
        "classifier": f"{CHECKPOINTS}/classifier-toy-games.safetensors",
        "kept": kept if kept < 16 else 0,
        "guidance": guidance,
        "flow_steps": flow_steps,
        "seed": seed,
        "work": f"{tokenizers.FOLDER}/samples",
        "output": "",
    }
    told = f"-guidance{guidance:g}" * (guidance != 1) + f"-steps{flow_steps}" * (flow_steps != 20)
    recipe = f"videoflextok-sample-{name}-{seed}-k{kept}{told}"
    return Recipe(recipe, "sample", settings, "", needs=(f"videoflextok-generator-{name}-{seed}",), hours=0.05)
