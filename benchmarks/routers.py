"""Routers: their cost beside the tokenizer's, and rankings of one set by several of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.ratios import Ratio
from benchmarks.setting import Setting, noise, tokenizer_of
from evatok.assignments.reward import Scale
from evatok.data.clips import from_network
from evatok.evaluation import flops
from evatok.routing.networks import ROUTER_SIZES, build_router
from evatok.routing.rankings import Rankings
from evatok.routing.trained_router import OperatingPoint, Router
from evatok.storage import checkpoints
from evatok.storage.shards import ShardStore
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import TOKENIZER_SIZES

KINDS = ("vit", "pyramid")  # the paper's, and the one that ships
ROUTER_NOTE = "a pass of the tokenizer at the uniform row, against the router's: 50 or more is 2 % or less"


def routing(setting: Setting) -> list[Ratio]:
    """Seconds and operations of the router against those of a pass of the tokenizer, here and at paper size."""
    ratios, paper = _router_times(setting, "router"), setting
    if setting.size == "toy" and setting.tokenizer == TOKENIZER_SIZES["toy"]:
        paper = replace(setting, tokenizer=TOKENIZER_SIZES["paper"], router=ROUTER_SIZES["paper"])
        few = min(setting.batch, 32) if setting.device == "cuda" else 1
        ratios += _router_times(replace(paper, batch=few, repeats=1), "router_paper_size")
    return ratios + [_router_operations(paper, kind) for kind in KINDS]


def _router_times(setting: Setting, row: str) -> list[Ratio]:
    tokenizer, clips = tokenizer_of(setting), noise(setting)
    rows = expand_assignment(setting.uniform, setting.batch).to(setting.device)
    torch.manual_seed(0)
    routers = [build_router(replace(setting.router, kind=kind)).eval().to(setting.device) for kind in KINDS]
    own, *its = setting.seconds(
        lambda: tokenizer(clips, rows), *(lambda module=module: module(clips) for module in routers)
    )
    named = zip(KINDS, its, strict=True)
    return [Ratio(f"{row}_{kind}", "wall_seconds", own, seconds, ROUTER_NOTE) for kind, seconds in named]


def _router_operations(setting: Setting, kind: str) -> Ratio:
    own = flops.tokenizer_operations(setting.tokenizer, np.array([sum(setting.uniform)]), training=False)
    its = float(flops.router_operations(replace(setting.router, kind=kind), training=False))
    return Ratio(f"router_paper_size_{kind}", "flop", own, its, f"{ROUTER_NOTE}; matrix products alone are counted")


def ranking(setting: Setting) -> list[Ratio]:
    """Rank one set by the twelve routers of Table 3: one by one, sharing what they see of a clip, and found again."""
    clips = from_network(noise(setting))
    with tempfile.TemporaryDirectory() as folder:
        routers = _table3_routers(setting, Path(folder))
        store = ShardStore(Path(folder) / "kept")

        def by_all(kept: ShardStore | None) -> Callable[[], object]:
            def run() -> None:
                rankings = Rankings(clips, kept)
                for router in routers:
                    rankings.by(router)

            return run

        alone, shared, found = setting.seconds(
            lambda: [router.ranking(clips) for router in routers], by_all(None), by_all(store), bf16=False
        )
    note = f"{len(routers)} routers that each read the clips, against"
    return [
        Ratio("table3_rankings", "wall_seconds_shared", alone, shared, f"{note} statistics shared by those of a kind"),
        Ratio(
            "table3_rankings", "wall_seconds_kept", alone, found, f"{note} rankings read from an earlier run's store"
        ),
    ]


def _table3_routers(setting: Setting, folder: Path) -> list[Router]:
    """Untrained ones: two ViTs and two on statistics, at three rewards."""
    point = OperatingPoint("l1", 1.2, Scale(0.0, 1.0, 0.0, 1.0))
    routers = []
    for seed, kind in enumerate(("vit", "vit", "pyramid", "features") * 3):
        torch.manual_seed(seed)
        module, path = build_router(replace(setting.router, kind=kind)), folder / f"{seed}.safetensors"
        facts = {"point": asdict(point)}
        checkpoints.save(path, module, kind="router", config=module.config.to_dict(), facts=facts)
        routers.append(Router.load(path, setting.device))
    return routers
