"""Score a user's own videos with a proxy, under every candidate or by a beam, and measure their quality-cost curves.

Tables and figures share the scores: what one script has scored, the next one finds.
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
from evatok.evaluation.folders import EvaluationError
from evatok.evaluation.operating_points import Pairs, uniform_points
from evatok.evaluation.pairs import Networks, PairRunner, check_metrics
from evatok.evaluation.per_clip import DISTANCES
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
FRAMES = 1  # per block, for timing estimates of a metric with a network
_POINTS = 25  # approximate assignments per clip on the curves: many of the rules agree


def scored_videos(asked: argparse.Namespace, study: OwnStudy, clips: ClipSet | None = None) -> router_study.Scored:
    """Score a user's videos under every candidate with the proxy: stage 2, resumably.

    Prints an estimate of the time first.

    Args:
        asked: the options of `evatok.reporting.command_line.with_own`.
        clips: the videos, if they are loaded already.
    """
    shelf, proxy = study.shelf, study.tokenizer
    clips = clips or own_clips(asked, proxy.config.size, proxy.config.frames)
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
    """Prepare a user's videos for a beam and for scoring individual choices; print the beam's estimated time first.

    Raises:
        CommandLineError: no router gives the scale of the rewards, and a beam cannot estimate it.
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
    """Load a user's clips, all or as many as requested, of any split: nothing here was trained on them."""
    return clip_set(asked.data, SPLIT, asked.clips, size=size, frames=frames, fps=asked.fps)


def metrics_of(asked: argparse.Namespace) -> tuple[str, ...]:
    """Return the names in `--metrics`. Raises CommandLineError for none, and for one that is not measured here."""
    names = tuple(name.strip() for name in asked.metrics.split(",") if name.strip())
    try:
        check_metrics(names)
    except EvaluationError as error:
        raise CommandLineError(f"--metrics {asked.metrics!r}: {error}") from error
    return names


def check_enough(clips: ClipSet, metrics: Sequence[str]) -> None:
    """Raise CommandLineError for a single clip and a metric that compares sets."""
    of_sets = [name for name in metrics if name in DISTANCES]
    if of_sets and len(clips) < 2:
        raise CommandLineError(
            f"--metrics: {of_sets[0]} compares sets of at least 2 clips, and {clips.name} has {len(clips)}; give more "
            "clips, or --metrics without it"
        )


def counted(clips: ClipSet) -> str:
    """Say how many clips, or images, a set has."""
    return f"{len(clips)} {'images' if clips.clips.shape[1] == 1 else 'clips'}"


def table_of(shelf: Shelf, study: OwnStudy, clips: ClipSet) -> Path:
    """Return the path of a set's scores by a proxy."""
    name = f"{clips.name}-{clips.sha256[:8]}-{study.tokenizer.checkpoint.sha256[:8]}.parquet"
    return shelf.root / "work" / f"table3-{study.perceptual}" / name


def seconds_to_score(study: OwnStudy, clips: ClipSet) -> float:
    """Measure the seconds per clip, on the first one."""
    first, bf16, began = clips.clips[:1], bf16_is_native("cpu"), time.perf_counter()
    perceptual = scoring_metric(study.perceptual, FRAMES, "cpu", bf16=bf16)
    tree.score_set(study.tokenizer, first, bf16=bf16, perceptual=perceptual, name=study.perceptual)
    return time.perf_counter() - began


def tell_time(what: str, seconds: float) -> None:
    """Announce what comes next and roughly how long it takes."""
    lasts = f"{seconds:.0f} s" if seconds < 90 else f"{math.ceil(seconds / 60)} minutes"
    print(f"{what}: about {lasts} in all; killed, the same command resumes", flush=True)


def curves(asked: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Measure the quality-cost curves of a user's videos; return their row, and the set and split of their record.

    What cannot be measured is refused before the hours of scoring.

    Args:
        asked: those options, and `metrics`.

    Raises:
        CommandLineError: a metric that is unknown, or compares sets, and there is one clip; routers of several rewards.
        WeightsError: networks of metrics that are not available.
    """
    metrics = metrics_of(asked)
    study = OwnStudy.read(asked)
    shelf, quality, shape = study.shelf, curve_quality(study), study.tokenizer.config
    networks = Networks.load(metrics, "cpu", i3d_bf16=True)
    clips = own_clips(asked, shape.size, shape.frames)
    check_enough(clips, metrics)
    seconds = len(clips) * seconds_per_pair(study.tokenizer, clips, networks)
    scored = scored_videos(asked, study, clips)
    settings: dict[str, Any] = {
        **{"checkpoint": str(study.proxy), "table": str(table_of(shelf, study, scored.clips))},
        **{"routers": ",".join(curve_routers(shelf, study)), "metric": quality},
        **{"size": shelf.size, "metrics": ",".join(metrics), "fps": asked.fps},
        **{"work": str(shelf.root / "work" / "curves"), "records_folder": str(shelf.root / "records")},
    }
    tell_time(
        f"reconstructing {counted(scored.clips)} under the assignments of some {_POINTS} rules", _POINTS * seconds
    )
    curves_experiment.ex.run(named_configs=("embedded",), config_updates=settings)
    return {row_of(scored.clips.name): (scored.clips.name, SPLIT)}


def curve_routers(shelf: Shelf, study: OwnStudy) -> list[str]:
    """Return paths or patterns of the routers shown on the curves: of the shipped ones, those with quality L1."""
    if not study.shipped:
        return [str(path) for path in study.paths]
    kinds = ("matched", "wq*")
    return [str(shelf.checkpoints / f"router-{shelf.size}-*-{point}.safetensors") for point in kinds]


def curve_quality(study: OwnStudy) -> str:
    """Return the quality in the curves' rewards. Raises CommandLineError if the routers differ in it or its scale."""
    if study.shipped or not study.comparisons:
        return PAPER[0]
    points = [comparison.point for comparison in study.comparisons]
    if len({(point.metric, point.scale) for point in points}) > 1:
        raise CommandLineError("--router: one figure shows routers of one quality and one scale; give them in turn")
    return points[0].metric


def seconds_per_pair(tokenizer: AdaptiveTokenizer, clips: ClipSet, networks: Networks) -> float:
    """Measure the seconds to reconstruct and measure a clip under one assignment, on the first one."""
    candidates = tokenizer.config.candidates
    pairs = Pairs.of(uniform_points(candidates, 1)[-1:], candidates)
    began = time.perf_counter()
    PairRunner(tokenizer, {}, clips.clips[:1], pairs, networks).measure(np.arange(1), lambda done: None)
    return time.perf_counter() - began


def row_of(name: str) -> str:
    """Return what tables call a user's set: never the name of one of the paper's."""
    return f"{name} (own)" if name in router_study.SETS else name
