"""A user's own videos on the shipped proxy: their scores under every candidate, and their quality-cost curves.

Tables and figures share them: what one script scored, the next one finds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.evaluation import router_quality, router_study
from evatok.evaluation.operating_points import Pairs, uniform_points
from evatok.evaluation.pairs import Networks, PairRunner
from evatok.evaluation.router_study import Shelf
from evatok.experiments import curves as curves_experiment
from evatok.experiments import stage2_curation
from evatok.metrics.perceptual import scoring_metric
from evatok.models.precision import bf16_is_native
from evatok.search import candidate_table, tree
from evatok.tokenizers.evatok import AdaptiveTokenizer

PERCEPTUAL = "st-lpips"
"""Scored beside L1, on one frame per block, since one of the table's operating points asks for it."""
SPLIT = "all"
_TRIED = 2  # clips scored to estimate the time
_POINTS = 25  # assignments per clip that the curves measure, about: many of their rules agree


def scored_videos(asked: argparse.Namespace) -> router_study.Scored:
    """A user's videos, scored by the shipped proxy under every candidate: stage 2, which resumes.

    Says first how long it takes.

    Args:
        asked: the options of `evatok.reporting.command_line.with_own`.
    """
    shelf = Shelf(asked.results, asked.size)
    proxy = AdaptiveTokenizer.load(shelf.proxy)
    clips = own_clips(asked, proxy.config.size, proxy.config.frames)
    work, table = shelf.root / "work" / f"table3-{PERCEPTUAL}", table_of(shelf, clips)
    settings = {
        **{"tokenizer": str(shelf.proxy), "data": asked.data, "fps": asked.fps, "split": SPLIT, "clips": asked.clips},
        **{"size": shelf.size, "table": str(table), "work": str(work)},
        **{"perceptual": PERCEPTUAL, "perceptual_frames": 1},
        **{"records_folder": str(shelf.root / "records"), "shard_length": 16, "batch": 16},
    }
    if not table.exists():
        told = f"scoring {len(clips)} clips under {len(proxy.config.candidates)} assignments"
        tell_time(told, seconds_to_score(proxy, clips) * len(clips))
        stage2_curation.ex.run(config_updates=settings)
    scores = candidate_table.read(table)
    return router_study.Scored(clips, scores, router_quality.full_length_losses(proxy, clips.clips))


def own_clips(asked: argparse.Namespace, size: int, frames: int) -> ClipSet:
    """All clips of a user's set, or as many as asked, whatever split they are in: nothing here was trained on them."""
    return clip_set(asked.data, SPLIT, asked.clips, size=size, frames=frames, fps=asked.fps)


def table_of(shelf: Shelf, clips: ClipSet) -> Path:
    """Where the scores of a set lie."""
    return shelf.root / "work" / f"table3-{PERCEPTUAL}" / f"{clips.name}-{clips.sha256[:8]}.parquet"


def seconds_to_score(proxy: AdaptiveTokenizer, clips: ClipSet) -> float:
    """Seconds per clip, measured on the first few."""
    few, bf16, began = clips.clips[:_TRIED], bf16_is_native("cpu"), time.perf_counter()
    perceptual = scoring_metric(PERCEPTUAL, 1, "cpu", bf16=bf16)
    tree.score_set(proxy, few, bf16=bf16, perceptual=perceptual, name=PERCEPTUAL)
    return (time.perf_counter() - began) / len(few)


def tell_time(what: str, seconds: float) -> None:
    """Say what is about to be done and about how long it takes, before it is begun."""
    lasts = f"{seconds:.0f} s" if seconds < 90 else f"{math.ceil(seconds / 60)} minutes"
    print(f"{what}: about {lasts} in all; killed, the same command resumes", flush=True)


def curves(asked: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Measure the quality-cost curves of a user's videos; returns their row, and the set and split of their record.

    Args:
        asked: those options, and `metrics`.
    """
    shelf, scored = Shelf(asked.results, asked.size), scored_videos(asked)
    kinds = ("matched", "wq*")
    routers = [str(shelf.root / "checkpoints" / f"router-{shelf.size}-*-{point}.safetensors") for point in kinds]
    metrics = [name.strip() for name in asked.metrics.split(",") if name.strip()]
    settings: dict[str, Any] = {
        **{"checkpoint": str(shelf.proxy), "table": str(table_of(shelf, scored.clips)), "routers": ",".join(routers)},
        **{"size": shelf.size, "metrics": ",".join(metrics), "fps": asked.fps},
        **{"work": str(shelf.root / "work" / "curves"), "records_folder": str(shelf.root / "records")},
    }
    seconds = len(scored.clips) * seconds_per_pair(AdaptiveTokenizer.load(shelf.proxy), scored.clips, metrics)
    tell_time(
        f"reconstructing {len(scored.clips)} clips under the assignments of some {_POINTS} rules", _POINTS * seconds
    )
    curves_experiment.ex.run(named_configs=("embedded",), config_updates=settings)
    return {row_of(scored.clips.name): (scored.clips.name, SPLIT)}


def seconds_per_pair(
    tokenizer: AdaptiveTokenizer, clips: ClipSet, metrics: Sequence[str], *, i3d_bf16: bool = True
) -> float:
    """Seconds of reconstructing and measuring a clip under one assignment, measured on the first few."""
    networks, candidates = Networks.load(metrics, "cpu", i3d_bf16=i3d_bf16), tokenizer.config.candidates
    few = clips.clips[:_TRIED]
    pairs = Pairs.of(uniform_points(candidates, len(few))[-1:], candidates)
    began = time.perf_counter()
    PairRunner(tokenizer, {}, few, pairs, networks).measure(np.arange(len(few)), lambda done: None)
    return (time.perf_counter() - began) / len(few)


def row_of(name: str) -> str:
    """What tables call a user's set: never as they call one of the paper's."""
    return f"{name} (own)" if name in router_study.SETS else name
