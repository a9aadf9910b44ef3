"""Recipes of the shipped artefacts: which experiment makes each, with which settings, and from which others.

A recipe is a command line as data. `python -m evatok.experiments.make` runs those that an artefact needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from evatok.experiments import (
    final_recipes,
    image_recipes,
    scratch_recipes,
    videoflextok_generators,
    videoflextok_recipes,
    videoflextok_sweeps,
    vtok_generation_recipes,
    vtok_recipes,
)
from evatok.experiments.recipe import ALL_METRICS, CHECKPOINTS, MATCHED, PROXY, TABLES, WORK, Recipe, RecipeError

__all__ = ["Recipe", "RecipeError", "every_recipe", "groups", "wanted"]

TRAIN_TABLE = f"{WORK}/embedded/train.parquet"
CURVE_METRICS = "psnr,l1,st_lpips_alex,rfvd"

SCORED = {
    "freedoom-validation": ("freedoom", "validation", 320),
    "freedoom-test": ("freedoom", "test", 320),
    "arcade-seen-validation": ("arcade-seen", "validation", 320),
    "arcade-held-out-validation": ("arcade-held-out", "validation", 320),
    "freedoom-train": ("freedoom", "train", 3072),
}
"""Candidate tables: data, split, clips."""

POINTS: dict[str, dict[str, Any]] = {
    "matched": {"token_share": 0.704},
    "wq1.2": {"token_share": 0.0},
    "st-lpips": {"token_share": 0.0, "metric": "st-lpips"},
}
"""Operating points of Table 3: the w_q that matches the savings of the paper's router and the paper's w_q, both with L1
as quality; and the paper's w_q with ST-LPIPS, the closest to its LPIPS."""

FURTHER_POINTS = (("pyramid", 0.8), ("pyramid", 1.4), ("pyramid", 1.8), ("pyramid", 1.9), ("hard", 1.9))
"""Further routers of main Fig. 4, by kind and w_q: those at 1.9 reach the tokens of the fixed-length baseline."""

ROUTERS: dict[str, dict[str, Any]] = {
    "hard": {"target": "hard", "steps": 1000},
    "soft": {"target": "soft", "steps": 1000},
    "pyramid": {
        "router": "pyramid",
        "target": "soft",
        "steps": 3000,
        "batch": 64,
        "learning_rate": 1e-3,
        "dropout": 0.2,
        "save_every": 500,
    },
    "features": {"router": "features", "target": "soft", "steps": 1500, "learning_rate": 2e-3},
}


@cache
def every_recipe() -> Mapping[str, Recipe]:
    """Return all recipes by name, prerequisites first."""
    made = [
        *_proxy(),
        *map(_scores, SCORED),
        *(_router(kind, point) for point in POINTS for kind in ROUTERS),
        *(_router(kind, f"wq{w_q}", {"token_share": 0.0, "w_q": w_q}) for kind, w_q in FURTHER_POINTS),
        *_proxy_figures(),
        *_quantisers(),
        *final_recipes.recipes(),
        *videoflextok_recipes.recipes(),
        *videoflextok_generators.recipes(),
        *videoflextok_sweeps.recipes(),
        *vtok_recipes.recipes(),
        *vtok_generation_recipes.recipes(),
        *image_recipes.recipes(),
        *scratch_recipes.recipes(),
    ]
    return {recipe.name: recipe for recipe in made}


def groups() -> dict[str, tuple[str, ...]]:
    """Name several recipes at once: what a table or figure reads."""
    known = every_recipe()

    def named(*beginnings: str) -> tuple[str, ...]:
        return tuple(name for name in known if name.startswith(beginnings))

    return {
        "table3": named("scores-", "router-"),
        "curves": named("evaluate-proxy-", "curves"),
        "quantisers": named("quantiser-", "evaluate-quantiser-"),
        **final_recipes.groups(),
        **videoflextok_recipes.groups(),
        **videoflextok_generators.groups(),
        **videoflextok_sweeps.groups(),
        "vtok": named("vtok-"),
        "vtok-freedoom": named("vtok_freedoom-"),
        "vtok-longer": named("vtok_longer-"),
        "vtok-generation": named("vtok_generation-"),
        "images": named("image-", "evaluate-image-"),
        "scratch": named("scratch-"),
        "all": tuple(name for name in known if not name.startswith("scratch-")),
    }


def wanted(names: Iterable[str]) -> list[Recipe]:
    """Return the named recipes and groups with all prerequisites, in a runnable order.

    Raises:
        RecipeError: an unknown name.
    """
    known, of_group = every_recipe(), groups()
    order: dict[str, Recipe] = {}

    def add(name: str) -> None:
        for need in known[name].needs:
            add(need)
        order.setdefault(name, known[name])

    for name in names:
        if name not in known and name not in of_group:
            raise RecipeError(f"no recipe or group called {name!r}; --list shows them")
        for member in of_group.get(name, (name,)):
            add(member)
    return list(order.values())


def _proxy() -> Iterable[Recipe]:
    """The shipped proxy, trained twice: the second training starts from the first with a lower learning rate."""
    folder = f"{WORK}/embedded"
    start = f"{folder}/proxy-start.safetensors"
    yield Recipe("proxy-toy-motion-start", "stage1_proxy", {"checkpoint": start}, outcome=start, hours=2.5)
    more = {"start_from": start, "steps": 2600, "learning_rate": 1e-3, "seed": 1, "work": f"{folder}/stage1_more"}
    needs, parents = ("proxy-toy-motion-start",), {"start": start}
    yield Recipe("proxy-toy-motion", "stage1_proxy", more, outcome=PROXY, needs=needs, parents=parents, hours=1.2)


def _scores(name: str) -> Recipe:
    data, split, clips = SCORED[name]
    outcome = TRAIN_TABLE if split == "train" else f"{TABLES}/{name}.parquet"
    return Recipe(
        f"scores-{name}",
        "stage2_curation",
        {"shard_length": 32, "data": data, "split": split, "clips": clips, "table": outcome},
        outcome=outcome,
        needs=("proxy-toy-motion",),
        parents={"tokenizer": PROXY},
        processes=2,
        hours=clips * 2 / 3600,
    )


def _router(kind: str, point: str, weights: Mapping[str, Any] | None = None) -> Recipe:
    outcome = f"{CHECKPOINTS}/router-toy-{kind}-{point}.safetensors"
    places = {"work": f"{WORK}/embedded/router-{kind}-{point}", "checkpoint": outcome}
    tables = {"train_table": TRAIN_TABLE, "validation_table": f"{TABLES}/freedoom-validation.parquet"}
    return Recipe(
        f"router-toy-{kind}-{point}",
        "stage3_router",
        {**ROUTERS[kind], **(weights or POINTS[point]), **places},
        outcome=outcome,
        needs=("scores-freedoom-train", "scores-freedoom-validation"),
        parents={"tokenizer": PROXY, **tables},
    )


def _proxy_figures() -> Iterable[Recipe]:
    """Evaluations of the proxy, and the curves of main Figures 4 and 5."""
    by_router = f"router:{MATCHED}"
    for name, assignment, protocol in (
        ("32", "uniform:32", "embedded-reconstruction"),
        ("64", "uniform:64", "embedded-reconstruction"),
        ("routed", by_router, "embedded-reconstruction"),
        ("games-uniform", "uniform:64", "embedded-unseen"),
        ("games-router", by_router, "embedded-unseen"),
    ):
        settings = {
            "assignment": assignment,
            "protocol": protocol,
            "checkpoint": PROXY,
            "metrics": ALL_METRICS,
            "work": f"{WORK}/embedded/evaluate",
        }
        needs = ("router-toy-pyramid-matched",) if assignment == by_router else ("proxy-toy-motion",)
        yield Recipe(f"evaluate-proxy-{name}", "evaluate", settings, "", needs=needs)
    routers = tuple(f"router-toy-{kind}-{point}" for kind in ROUTERS for point in ("matched", "wq1.2"))
    further = tuple(f"router-toy-{kind}-wq{w_q}" for kind, w_q in FURTHER_POINTS)
    for name in SCORED:
        if not name.endswith("-train"):
            settings = {"table": f"{TABLES}/{name}.parquet", "metrics": CURVE_METRICS}
            yield Recipe(f"curves-{name}", "curves", settings, needs=(*routers, *further, f"scores-{name}"), hours=0.5)


def _quantisers() -> Iterable[Recipe]:
    """Two short proxies that differ only in quantiser, with the codes they use."""
    kinds: dict[str, dict[str, Any]] = {
        "vq": {"quantiser": "vq", "codebook_size": 4096, "entropy_weight": 0.02},
        "fsq": {},
    }
    for kind, settings in kinds.items():
        work = f"{WORK}/quantisers/{kind}"
        trained = {**settings, "steps": 600, "work": work, "checkpoint": f"{work}.safetensors"}
        yield Recipe(f"quantiser-{kind}", "stage1_proxy", trained, outcome=f"{work}.safetensors", hours=0.3)
        measured = {
            "checkpoint": f"{work}.safetensors",
            "assignment": "uniform:64",
            "metrics": "psnr,st_lpips_alex",
            "work": f"{WORK}/quantisers/evaluate",
        }
        yield Recipe(f"evaluate-quantiser-{kind}", "evaluate", measured, "", needs=(f"quantiser-{kind}",))
