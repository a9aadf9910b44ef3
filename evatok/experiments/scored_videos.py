"""A user's own videos on a proxy: their scores under every candidate or a beam's, and their quality-cost curves.

Tables and figures share them: what one script scored, the next one finds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.evaluation import beam_study, router_study
from evatok.evaluation.operating_points import Pairs, uniform_points
from evatok.evaluation.pairs import Networks, PairRunner
from evatok.evaluation.router_study import Shelf
from evatok.evaluation.searched import Searched
from evatok.experiments import curves as curves_experiment
from evatok.experiments import stage2_curation
from evatok.experiments.own_study import PAPER, OwnStudy
from evatok.metrics.perceptual import scoring_metric
from evatok.models.precision import bf16_is_native
from evatok.reporting.command_line import CommandLineError
from evatok.search import candidate_table, tree
from evatok.storage.shards import ShardStore
from evatok.tokenizers.evatok import AdaptiveTokenizer

SPLIT = "all"
FRAMES = 1  # per block, by which a metric with a network is estimated
_POINTS = 25  # assignments per clip that the curves measure, about: many of their rules agree


def scored_videos(asked: argparse.Namespace, study: OwnStudy) -> router_study.Scored:
    """A user's videos, scored by the proxy under every candidate: stage 2, which resumes.

    Says first how long it takes.

    Args:
        asked: the options of `evatok.reporting.command_line.with_own`.
    """
    shelf, proxy = study.shelf, study.tokenizer
    clips = own_clips(asked, proxy.config.size, proxy.config.frames)
    table = table_of(shelf, study, clips)
    settings = {
        **{"tokenizer": str(study.proxy), "data": asked.data, "fps": asked.fps, "split": SPLIT, "clips": asked.clips},
        **{"size": shelf.size, "table": str(table), "work": str(table.parent)},
        **{"perceptual": study.perceptual, "perceptual_frames": FRAMES},
        **{"records_folder": str(shelf.root / "records"), "shard_length": 16, "batch": 16},
    }
    if not table.exists():
        told = f"scoring {counted(clips)} under {len(proxy.config.candidates)} assignments"
        tell_time(told, seconds_to_score(study, clips) * len(clips))
        stage2_curation.ex.run(config_updates=settings)
    return router_study.Scored(clips, candidate_table.read(table), proxy, ShardStore(table.parent))


def searched_videos(asked: argparse.Namespace, study: OwnStudy) -> Searched:
    """A user's videos for a beam, and for scores of choices one by one; says first how long the beam takes.

    Raises:
        CommandLineError: no router says by which scores rewards are scaled, and a beam cannot tell.
    """
    if not study.comparisons:
        raise CommandLineError(
            "--search beam needs --router: a reward is scaled by the scores of all candidates, which a router keeps of "
            "its training clips and a beam does not compute; --search tree goes without"
        )
    shelf, proxy, bf16 = study.shelf, study.tokenizer, bf16_is_native("cpu")
    clips = own_clips(asked, proxy.config.size, proxy.config.frames)
    perceptual = scoring_metric(study.perceptual, FRAMES, "cpu", bf16=bf16)
    networks = {} if perceptual is None else {study.perceptual: perceptual}
    store = ShardStore(shelf.root / "work" / "table3-beam")
    searched = Searched(clips, proxy, networks, FRAMES, store, bf16)
    first, began = replace(searched, clips=clips.head(1), store=None), time.perf_counter()
    for comparison in study.comparisons:
        beam_study.chosen_rewards(first, comparison)
    seconds = (time.perf_counter() - began) * len(clips)
    tell_time(f"searching {counted(clips)} for {len(study.comparisons)} rewards by a beam", seconds)
    return searched


def own_clips(asked: argparse.Namespace, size: int, frames: int) -> ClipSet:
    """All clips of a user's set, or as many as asked, whatever split they are in: nothing here was trained on them."""
    return clip_set(asked.data, SPLIT, asked.clips, size=size, frames=frames, fps=asked.fps)


def counted(clips: ClipSet) -> str:
    """How many clips, or images, a set has, in words."""
    return f"{len(clips)} {'images' if clips.clips.shape[1] == 1 else 'clips'}"


def table_of(shelf: Shelf, study: OwnStudy, clips: ClipSet) -> Path:
    """Where the scores of a set by a proxy lie."""
    name = f"{clips.name}-{clips.sha256[:8]}-{study.tokenizer.checkpoint.sha256[:8]}.parquet"
    return shelf.root / "work" / f"table3-{study.perceptual}" / name


def seconds_to_score(study: OwnStudy, clips: ClipSet) -> float:
    """Seconds per clip, measured on the first."""
    first, bf16, began = clips.clips[:1], bf16_is_native("cpu"), time.perf_counter()
    perceptual = scoring_metric(study.perceptual, FRAMES, "cpu", bf16=bf16)
    tree.score_set(study.tokenizer, first, bf16=bf16, perceptual=perceptual, name=study.perceptual)
    return time.perf_counter() - began


def tell_time(what: str, seconds: float) -> None:
    """Say what is about to be done and about how long it takes, before it is begun."""
    lasts = f"{seconds:.0f} s" if seconds < 90 else f"{math.ceil(seconds / 60)} minutes"
    print(f"{what}: about {lasts} in all; killed, the same command resumes", flush=True)


def curves(asked: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Measure the quality-cost curves of a user's videos; returns their row, and the set and split of their record.

    Args:
        asked: those options, and `metrics`.
    """
    study = OwnStudy.read(asked)
    shelf, scored = study.shelf, scored_videos(asked, study)
    metrics = [name.strip() for name in asked.metrics.split(",") if name.strip()]
    settings: dict[str, Any] = {
        **{"checkpoint": str(study.proxy), "table": str(table_of(shelf, study, scored.clips))},
        **{"routers": ",".join(curve_routers(shelf, study)), "metric": curve_quality(study)},
        **{"size": shelf.size, "metrics": ",".join(metrics), "fps": asked.fps},
        **{"work": str(shelf.root / "work" / "curves"), "records_folder": str(shelf.root / "records")},
    }
    seconds = len(scored.clips) * seconds_per_pair(study.tokenizer, scored.clips, metrics)
    tell_time(
        f"reconstructing {counted(scored.clips)} under the assignments of some {_POINTS} rules", _POINTS * seconds
    )
    curves_experiment.ex.run(named_configs=("embedded",), config_updates=settings)
    return {row_of(scored.clips.name): (scored.clips.name, SPLIT)}


def curve_routers(shelf: Shelf, study: OwnStudy) -> list[str]:
    """Paths, or patterns of them, of the routers that the curves show: of the shipped ones, those of quality L1."""
    if not study.shipped:
        return [str(path) for path in study.paths]
    kinds = ("matched", "wq*")
    return [str(shelf.checkpoints / f"router-{shelf.size}-*-{point}.safetensors") for point in kinds]


def curve_quality(study: OwnStudy) -> str:
    """The quality of the curves' rewards. Raises CommandLineError for routers that do not share it and its scale."""
    if study.shipped or not study.comparisons:
        return PAPER[0]
    points = [comparison.point for comparison in study.comparisons]
    if len({(point.metric, point.scale) for point in points}) > 1:
        raise CommandLineError("--router: one figure shows routers of one quality and one scale; give them in turn")
    return points[0].metric


def seconds_per_pair(
    tokenizer: AdaptiveTokenizer, clips: ClipSet, metrics: Sequence[str], *, i3d_bf16: bool = True
) -> float:
    """Seconds of reconstructing and measuring a clip under one assignment, measured on the first."""
    networks, candidates = Networks.load(metrics, "cpu", i3d_bf16=i3d_bf16), tokenizer.config.candidates
    pairs = Pairs.of(uniform_points(candidates, 1)[-1:], candidates)
    began = time.perf_counter()
    PairRunner(tokenizer, {}, clips.clips[:1], pairs, networks).measure(np.arange(1), lambda done: None)
    return time.perf_counter() - began


def row_of(name: str) -> str:
    """What tables call a user's set: never as they call one of the paper's."""
    return f"{name} (own)" if name in router_study.SETS else name
