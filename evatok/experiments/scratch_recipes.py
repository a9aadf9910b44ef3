"""Recipes of stages 1 to 3 from scratch, on a CPU at toy size, in their own results folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evatok.experiments.recipe import Recipe

FOLDER = "results/toy"
PROXY = f"{FOLDER}/checkpoints/proxy-toy.safetensors"
RECORDS = {"records_folder": f"{FOLDER}/records"}

SCORED = {"freedoom-train": 160, "freedoom-validation": 32, "arcade-validation": 32}
"""Clips of each candidate table."""

POINTS = {"matched": 0.704, "wq1.2": 0.0}
"""`token_share` of each operating point; w_q is the paper's."""

ROUTERS: dict[str, dict[str, Any]] = {
    "hard": {"target": "hard"},
    "soft": {"target": "soft"},
    "pyramid": {"router": "pyramid", "target": "soft", "learning_rate": 1e-3, "dropout": 0.2},
    "features": {"router": "features", "target": "soft", "learning_rate": 2e-3},
}


def recipes() -> Iterator[Recipe]:
    """Return all of them, prerequisites first."""
    places = {**RECORDS, "work": f"{FOLDER}/work/proxy", "checkpoint": PROXY}
    yield Recipe("scratch-proxy", "stage1_proxy", places, "toy", PROXY, hours=0.15)
    for name, clips in SCORED.items():
        data, _, split = name.partition("-")
        scored = {"tokenizer": PROXY, "data": data, "split": split, "clips": clips, "table": _table(name)}
        settings = {**RECORDS, **scored, "work": f"{FOLDER}/work/curation"}
        parents = {"tokenizer": PROXY}
        yield Recipe(
            f"scratch-scores-{name}", "stage2_curation", settings, "toy", _table(name), ("scratch-proxy",), parents
        )
    tables = {f"{split}_table": _table(f"freedoom-{split}") for split in ("train", "validation")}
    needs = tuple(f"scratch-scores-{name}" for name in SCORED)
    for point, share in POINTS.items():
        for kind, router in ROUTERS.items():
            outcome = f"{FOLDER}/checkpoints/router-toy-{kind}-{point}.safetensors"
            places = {"work": f"{FOLDER}/work/router-{kind}-{point}", "checkpoint": outcome}
            settings = {**RECORDS, "w_q": 1.2, "token_share": share, **router, **tables, **places}
            name, parents = f"scratch-router-{kind}-{point}", {"tokenizer": PROXY}
            yield Recipe(name, "stage3_router", settings, "toy", outcome, needs, parents, hours=0.02)


def _table(name: str) -> str:
    return f"{FOLDER}/tables/candidates/{name}.parquet"
