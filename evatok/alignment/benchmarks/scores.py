"""Accuracy over a benchmark's questions and by group. For intervals, questions about one video are drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evatok.alignment.benchmarks.items import Item
from evatok.metrics import catalogue
from evatok.metrics.bootstrap import bootstrap_statistic
from evatok.storage.records import Metric
from evatok.vtok.scoring import AVERAGE, DRAWS


def accuracies(right: np.ndarray, groups: Sequence[str], videos: Sequence[str] = ()) -> dict[str, Metric]:
    """Compute accuracy in percent over all questions and per group, with half its 95 % interval as spread.

    Args:
        right: (N,) booleans.
        videos: the video of each question; empty: all different.
    """
    named = np.array(list(groups), dtype=str)
    about = np.array(list(videos) or [str(number) for number in range(len(right))], dtype=str)
    found = {AVERAGE: _accuracy(right, about)}
    for group in sorted(set(groups)) if len(set(groups)) > 1 else []:
        inside = named == group
        found[f"{AVERAGE}.{group}"] = _accuracy(right[inside], about[inside])
    return found


def outcomes(items: Sequence[Item], right: np.ndarray) -> dict[str, np.ndarray]:
    """Build the file beside a record: what was asked, and whether the answer is correct."""
    return {"right": right.astype(np.int8), "question": np.array([item.name for item in items], dtype=str)}


def _accuracy(right: np.ndarray, videos: np.ndarray) -> Metric:
    _, place = np.unique(videos, return_inverse=True)
    rows = np.stack([np.bincount(place, right.astype(float)), np.bincount(place)], axis=1)
    half = None
    if len(rows) > 1:
        drawn = bootstrap_statistic(rows, lambda some: 100 * some[:, 0].sum() / some[:, 1].sum(), draws=DRAWS)
        half = (drawn.high - drawn.low) / 2
    return catalogue.of(AVERAGE).measured(100 * float(right.mean()), len(right), half)
