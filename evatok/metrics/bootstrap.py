"""Uncertainty of measured values: bootstrap intervals over clips, and spreads over seeds.

The mean of a per-clip value (PSNR, LPIPS), or a function of sums over clips (motion), has a bootstrap interval. A
distribution distance such as FVD has no per-clip value, and resampling clips would repeat some and bias it: it is
measured on several choices of clips instead. Two systems measured on the same clips are compared pairwise
(`evatok.evaluation.per_clip`).

Legend: N clips.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """One value per seed, in the order of `seeds`, with mean and sample standard deviation (n - 1)."""

    mean: float
    std: float
    values: tuple[float, ...]
    seeds: tuple[int, ...]


def bootstrap(values: Any, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean of `values` (N,) with its percentile bootstrap interval, in the unit of the values.

    N values are drawn with replacement `draws` times; the interval contains a fraction `level` of their means. Equal
    arguments give equal intervals.

    Raises ValueError for the wrong shape, fewer than 2 values, NaN or infinity (equal clips have an infinite PSNR), a
    level outside (0, 1) and fewer than 2 draws.
    """
    return bootstrap_statistic(_samples(values), np.mean, level, draws, seed)


def bootstrap_statistic(
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], Any],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """`statistic` of `rows` (N, ...), one row per clip, with its percentile bootstrap interval.

    N rows are drawn with replacement `draws` times; the interval contains a fraction `level` of the finite statistics.
    Equal arguments give equal intervals.

    Raises ValueError for fewer than 2 rows, a statistic of all rows that is not finite, a level outside (0, 1) and
    fewer than 2 draws.
    """
    if len(rows) < 2:
        raise ValueError(f"a bootstrap needs at least 2 rows (N, ...), got the shape {rows.shape}")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must be between 0 and 1, got {level}")
    if draws < 2:
        raise ValueError(f"a bootstrap needs at least 2 draws, got {draws}")
    return interval_of(*drawn_statistics(rows, statistic, draws, seed), level)


def drawn_statistics(
    rows: np.ndarray, statistic: Callable[[np.ndarray], Any], draws: int, seed: int = 0
) -> tuple[float, np.ndarray]:
    """`statistic` of `rows` (N, ...), and of each draw of N of them, (draws,).

    The draws depend on N and the seed alone: those of two systems on the same clips are pairs. Raises ValueError for a
    statistic of all rows that is not finite.
    """
    value = float(statistic(rows))
    if not np.isfinite(value):
        raise ValueError(f"the statistic of all {len(rows)} rows is {value}: it has no interval")
    random = np.random.default_rng(seed)
    return value, np.array([statistic(rows[random.integers(len(rows), size=len(rows))]) for _ in range(draws)])


def interval_of(value: float, drawn: np.ndarray, level: float = 0.95) -> Interval:
    """A value with the interval that contains a fraction `level` of the finite ones of its draws (draws,)."""
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def over_choices(function: Callable[[int], float], seeds: Sequence[int]) -> Spread:
    """Evaluate `function(seed)`, a measurement on the clips that the seed chooses, for every seed.

    Raises ValueError for fewer than 2 seeds, repeated seeds, and values that are not finite.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"a spread needs at least 2 different seeds, got {list(seeds)}")
    values = tuple(float(function(seed)) for seed in seeds)
    for seed, value in zip(seeds, values, strict=True):
        if not np.isfinite(value):
            raise ValueError(f"the measurement with seed {seed} is {value}: it has no spread")
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)), values, tuple(seeds))


def _samples(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, perhaps on a GPU
        values = values.detach().cpu().double()
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim != 1 or len(samples) < 2:
        raise ValueError(f"a bootstrap needs at least 2 values (N,), got the shape {samples.shape}")
    if not np.isfinite(samples).all():
        first = int(np.isfinite(samples).argmin())
        raise ValueError(f"value {first} is {samples[first]}: the mean of values that are not finite has no interval")
    return samples
