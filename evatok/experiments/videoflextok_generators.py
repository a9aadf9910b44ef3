"""Recipes of generators on VideoFlexTok's codes, its 3D grid and its controls: equal trainings on equal clips.

Orders and systems are compared on tokenizers trained long, forms of the tokenizer (Tables 2 and 3, Figures 9 and 10) on
those of fewer steps, whose reconstructions show their game in a third of clips. No generator can be expected to show it
more often than its tokenizer's reconstructions do, so these are measured with each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evatok.experiments import videoflextok_recipes as tokenizers
from evatok.experiments.recipe import CHECKPOINTS, Recipe

STEPS, BATCH = 600, 32
KEPT = (1, 2, 4, 8, 16)
GUIDED = 2.0
FLOW_STEPS = (1, 5, 40)
"""Flow steps of Figure 12, beside the usual ones."""
GAMES: dict[str, Any] = {"data": "arcade-seen", "label": "game", "task": "class", "train_clips": 4800}


@dataclass(frozen=True)
class Trained:
    """A generator: its tokenizer's recipe and file, its order, and the tokens per latent frame it is sampled with."""

    recipe: str
    tokenizer: str
    order: str
    kept: tuple[int, ...]

    @classmethod
    def on_row(cls, row: str, order: str, kept: tuple[int, ...]) -> Trained:
        """On one of `videoflextok_recipes.ROWS`."""
        return cls(f"videoflextok-row-{row}-0", tokenizers.row_of(row), order, kept)


_LONG = ("videoflextok-base", tokenizers.BASE)
GENERATORS = {
    "time-first": Trained(*_LONG, "time-first", (4, 16)),
    "depth-first": Trained(*_LONG, "depth-first", (16,)),
    "grid": Trained("videoflextok-base-grid", tokenizers.BASE_GRID, "depth-first", (16,)),
    "2d": Trained.on_row("2d", "time-first", (4, 16)),
    "flat": Trained.on_row("flat", "flat", (4, 16)),
    "full": Trained.on_row("full", "time-first", (4, 16)),
}
UNALIGNED = Trained.on_row("unaligned", "time-first", (1, 4, 16))
"""Generators of Figure 9, of one seed."""

JUDGED = {
    "protocol": "embedded-games-generation",
    "classifier": f"{CHECKPOINTS}/classifier-toy-games.safetensors",
}
"""How samples of games are measured, and reconstructions at as many tokens."""
LONG_FRAMES, LONG_KEPT, LONG_CLIPS = 64, 2, 1600
"""Figure 8: 64 frames with 2 of 16 tokens per latent frame, an eighth of the grid's."""
SAMPLES = "results/samples"
SHIPPED = f"{CHECKPOINTS}/videoflextok-toy-generator.safetensors"
"""The generator to sample from: time-first, of seed 0."""


def recipes() -> Iterator[Recipe]:
    """Return all recipes, of every seed; figures of one seed after those needed for claims over several."""
    for seed in tokenizers.SEEDS:
        for name, trained in GENERATORS.items():
            yield generator(name, trained, seed)
            for kept in trained.kept:
                yield sample(name, trained, seed, kept)
    yield from _figures()
    yield from _pictures()


def groups() -> dict[str, tuple[str, ...]]:
    """Name all of them, the first seed's, and the further points of figures."""
    names = [recipe.name for recipe in recipes()]
    points = tuple(recipe.name for recipe in (*_figures(), *_pictures()))
    return {
        "videoflextok-generators": tuple(names),
        "videoflextok-generators-0": tuple(name for name in names if name not in points and "-0-" in f"{name}-"),
        "videoflextok-generators-figures": points,
    }


def _figures() -> Iterator[Recipe]:
    """Further points of Figures 7, 9, 10 (tokens), 11 (guidance) and 12 (tokens and flow steps), of the first seed."""
    first = GENERATORS["time-first"]
    for kept in (kept for kept in KEPT if kept not in first.kept):
        yield sample("time-first", first, 0, kept)
    for name in ("2d", "full"):
        yield sample(name, GENERATORS[name], 0, 1)
    yield generator("unaligned", UNALIGNED, 0)
    for kept in UNALIGNED.kept:
        yield sample("unaligned", UNALIGNED, 0, kept)
    for name in ("time-first", "grid"):
        yield sample(name, GENERATORS[name], 0, 16, guidance=GUIDED)
    for flow_steps in FLOW_STEPS:
        for kept in (1, 4, 16):
            yield sample("time-first", first, 0, kept, flow_steps=flow_steps)


def _pictures() -> Iterator[Recipe]:
    """Figures 5 and 8: one condition at growing numbers of tokens, and long clips, from a generator of their own."""
    generator, tokenizer = _places("time-first", GENERATORS["time-first"], 0)
    usual = {"threads": 1, "generator": generator, "tokenizer": tokenizer, "flow_steps": 20}
    growing = {**usual, "shown": f"{SAMPLES}/videoflextok-growing.npz"}
    needs: tuple[str, ...] = ("videoflextok-generator-time-first-0",)
    yield Recipe("videoflextok-growing", "videoflextok_growing", growing, "toy", needs=needs, hours=0.05)
    outcome = f"{tokenizers.FOLDER}/generator-long-0.safetensors"
    taught = {
        **GAMES,
        "threads": 1,
        "train_clips": LONG_CLIPS,
        "tokenizer": tokenizers.SECOND,
        "frames": LONG_FRAMES,
        "kept": LONG_KEPT,
        "steps": STEPS,
        "batch": BATCH,
        "work": outcome.removesuffix(".safetensors"),
        "checkpoint": outcome,
    }
    needs, parents = ("videoflextok-stage2-full-0",), {"tokenizer": tokenizers.SECOND}
    name = "videoflextok-generator-long-0"
    yield Recipe(name, "stage5_generator", taught, "toy", outcome, needs, parents, hours=0.3)
    long = {**usual, "generator": outcome, "tokenizer": tokenizers.SECOND, "shown": f"{SAMPLES}/videoflextok-long.npz"}
    yield Recipe("videoflextok-long-samples", "videoflextok_long_samples", long, "toy", needs=(name,), hours=0.1)


def _places(name: str, trained: Trained, seed: int, point: str = "") -> tuple[str, str]:
    """Return the checkpoints of a generator and its tokenizer; `point` names a sweep's point."""
    outcome = f"{tokenizers.FOLDER}/{_stem(name, seed, point)}.safetensors"
    return SHIPPED if (name, seed, point) == ("time-first", 0, "") else outcome, trained.tokenizer


def _stem(name: str, seed: int, point: str) -> str:
    """Name a generator in its recipe, folder and file."""
    return f"generator-{name}-{seed}" + f"-{point}" * bool(point)


def generator(
    name: str, trained: Trained, seed: int, further: Mapping[str, Any] | None = None, point: str = ""
) -> Recipe:
    """Train one of GENERATORS; `further` overrides settings for a point of a sweep."""
    outcome, tokenizer = _places(name, trained, seed, point)
    settings = {
        **GAMES,
        "threads": 1,
        "tokenizer": tokenizer,
        "order": trained.order,
        "steps": STEPS,
        "batch": BATCH,
        "seed": seed,
        "work": f"{tokenizers.FOLDER}/{_stem(name, seed, point)}",
        "checkpoint": outcome,
        **(further or {}),
    }
    needs, parents = (trained.recipe,), {"tokenizer": tokenizer}
    recipe = f"videoflextok-{_stem(name, seed, point)}"
    return Recipe(recipe, "stage5_generator", settings, "toy", outcome, needs, parents, hours=0.15)


def sample(
    name: str,
    trained: Trained,
    seed: int,
    kept: int,
    *,
    guidance: float = 1.0,
    flow_steps: int = 20,
    point: str = "",
) -> Recipe:
    """Sample one of GENERATORS with `kept` tokens per latent frame."""
    outcome, tokenizer = _places(name, trained, seed, point)
    settings = {
        "threads": 1,
        "generator": outcome,
        "tokenizer": tokenizer,
        "router": "",
        **JUDGED,
        "kept": kept if kept < 16 else 0,
        "guidance": guidance,
        "flow_steps": flow_steps,
        "seed": seed,
        "work": f"{tokenizers.FOLDER}/samples",
        "output": "",
    }
    told = f"-guidance{guidance:g}" * (guidance != 1) + f"-steps{flow_steps}" * (flow_steps != 20)
    told += f"-{point}" * bool(point)
    recipe, needs = (
        f"videoflextok-sample-{name}-{seed}-k{kept}{told}",
        (generator(name, trained, seed, point=point).name,),
    )
    return Recipe(recipe, "sample", settings, "", needs=needs, hours=0.05)
