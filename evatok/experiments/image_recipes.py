"""Recipes of supplement Table 4 and Figure 7: image tokenizers, their scores and routers, finals and generators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evatok.experiments.recipe import CHECKPOINTS, TABLES, WORK, Recipe

FOLDER = f"{WORK}/images"
PROXY = f"{CHECKPOINTS}/image-proxy-toy.safetensors"
ROUTER = f"{CHECKPOINTS}/image-router-toy.safetensors"
SCORED = {"train": (f"{FOLDER}/train.parquet", 3000), "validation": (f"{TABLES}/images-validation.parquet", 1024)}
"""Candidate table and images of each split."""

ROUTERS: dict[str, dict[str, Any]] = {
    "image-router-toy": {},
    "image-router-toy-wq1.0": {"w_q": 1.0},
    "image-router-toy-wq1.6": {"w_q": 1.6},
    "image-router-toy-pyramid": {"router": "pyramid", "target": "soft", "learning_rate": 1e-3, "dropout": 0.2},
}
"""The paper's router at its weight and at two other points of the curve, and one on what pooling loses."""

SEEDS = range(3)


def recipes() -> Iterator[Recipe]:
    """Return all of them, prerequisites first."""
    yield from _proxies()
    yield from (_scores(split) for split in SCORED)
    yield from (_router(name, settings) for name, settings in ROUTERS.items())
    yield Recipe("image-curves", "curves", {"work": f"{FOLDER}/curves"}, "image_toy", needs=tuple(ROUTERS), hours=0.5)
    yield from (final for seed in SEEDS for assignment in ("uniform", "router") for final in _final(assignment, seed))
    yield from (made for assignment in ("uniform", "router") for made in _generator(assignment))


def _proxies() -> Iterator[Recipe]:
    """The proxy and, for comparison, the same proxy with the linear front of videos, at equal steps."""
    linear = f"{FOLDER}/proxy-linear.safetensors"
    for name, outcome, settings in (
        ("image-proxy-toy", PROXY, {}),
        ("image-proxy-linear", linear, {"front": "linear"}),
    ):
        places = {"work": f"{FOLDER}/{name}", "checkpoint": outcome}
        yield Recipe(name, "stage1_proxy", {**settings, **places}, "image_toy", outcome, hours=1.2)
        yield _evaluation(name, outcome, "uniform:64")


def _scores(split: str) -> Recipe:
    outcome, clips = SCORED[split]
    settings = {"tokenizer": PROXY, "split": split, "clips": clips, "table": outcome}
    return Recipe(
        f"image-scores-{split}",
        "stage2_curation",
        settings,
        "image_toy",
        outcome,
        ("image-proxy-toy",),
        {"tokenizer": PROXY},
        hours=clips / 3000 / 6,
    )


def _router(name: str, settings: dict[str, Any]) -> Recipe:
    tables = {f"{split}_table": outcome for split, (outcome, _) in SCORED.items()}
    outcome = f"{CHECKPOINTS}/{name}.safetensors"
    places = {"work": f"{FOLDER}/{name}", "checkpoint": outcome}
    needs = tuple(f"image-scores-{split}" for split in SCORED)
    parents = {"tokenizer": PROXY, **tables}
    return Recipe(name, "stage3_router", {**settings, **tables, **places}, "image_toy", outcome, needs, parents)


def _final(assignment: str, seed: int) -> Iterator[Recipe]:
    name = f"image-final-{assignment}-{seed}"
    outcome = tokenizer_of(assignment, seed)
    places = {"work": f"{FOLDER}/{name}", "checkpoint": outcome, "start_from": PROXY, "router": ROUTER}
    settings = {"assignment": assignment, "seed": seed, **places}
    parents = {"start": PROXY, **({"router": ROUTER} if assignment == "router" else {})}
    yield Recipe(name, "stage4_final", settings, "image_toy", outcome, ("image-router-toy",), parents, hours=0.8)
    yield _evaluation(name, outcome, f"router:{ROUTER}" if assignment == "router" else "uniform:64")


def _generator(assignment: str) -> Iterator[Recipe]:
    name, tokenizer = f"image-generator-{assignment}", tokenizer_of(assignment, 0)
    outcome = f"{CHECKPOINTS}/generator-toy-image-{assignment}.safetensors"
    common = {"tokenizer": tokenizer, "router": ROUTER}
    places = {"work": f"{FOLDER}/{name}", "checkpoint": outcome}
    parents = {"tokenizer": tokenizer, **({"router": ROUTER} if assignment == "router" else {})}
    needs = (f"image-final-{assignment}-0",)
    trained = {"assignment": assignment, **common, **places}
    yield Recipe(name, "stage5_generator", trained, "image_toy", outcome, needs, parents, hours=0.5)
    work = f"{FOLDER}/samples-{assignment}"
    sampled = {**common, "generator": outcome, "work": work, "output": f"{work}/shown"}
    yield Recipe(f"image-sample-{assignment}", "sample", sampled, "image_toy", needs=(name,))


def _evaluation(name: str, checkpoint: str, assignment: str) -> Recipe:
    settings = {"checkpoint": checkpoint, "assignment": assignment, "work": f"{FOLDER}/evaluate"}
    return Recipe(f"evaluate-{name}", "evaluate", settings, "image_toy", needs=(name,))


def tokenizer_of(assignment: str, seed: int) -> str:
    """Return the file of a final tokenizer: the first seed's ships."""
    if seed == 0:
        return f"{CHECKPOINTS}/image-final-toy-{assignment}.safetensors"
    return f"{FOLDER}/final-{assignment}-{seed}.safetensors"
