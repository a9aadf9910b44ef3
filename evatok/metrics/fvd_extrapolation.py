"""Extrapolate the Frechet distance to infinitely many samples by a linear fit in 1/N.

Estimated from N samples, the distance is too large by about slope/N, so values of different N cannot be compared. The
intercept of a line fitted at several N removes this bias. The bias is linear in 1/N only if N is well above the number
of features; below that, the intercept is still too large, which r2 need not show.

Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", CVPR 2020.

Legend: N samples, D features per sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evatok.metrics.frechet import as_feature_pair, frechet_distance_of_features


@dataclass(frozen=True)
class Extrapolation:
    """The fit of distance = value + slope / N.

    `value` is not clipped: slightly below 0 it means that no distance was found. `points` are the fitted pairs
    (N, distance), `r2` is the fraction of their variance that the line explains.
    """

    value: float
    slope: float
    points: tuple[tuple[int, float], ...]
    r2: float


def extrapolated_fvd(
    real: Any,
    fake: Any,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    distance: Callable[[np.ndarray, np.ndarray], float] = frechet_distance_of_features,
) -> Extrapolation:
    """Extrapolate the distance of features (N, D) and (N, D) to infinitely many samples.

    For each size the samples, shuffled once, are split into as many disjoint parts of that size as possible, whose
    distances are averaged, so that small sizes are not noisier than large ones. Row i of `real` and row i of `fake`
    stay paired, as a reconstruction must with its clip; for independent samples it makes no difference.

    Args:
        sizes: at least 3 different numbers of samples; None for `spread_sizes(N)`.
        seed: of the shuffle.
        distance: of two arrays of features; FVD's by default.

    Raises ValueError, see `as_feature_pair`, for different numbers of samples, and for sizes that cannot be fitted.
    """
    real, fake = as_feature_pair(real, fake, least=2)
    if len(real) != len(fake):
        raise ValueError(f"the extrapolation needs equally many samples of both, got {len(real)} and {len(fake)}")
    sizes = _checked(spread_sizes(len(real)) if sizes is None else sizes, len(real))
    order = np.random.default_rng(seed).permutation(len(real))

    def mean_distance(size: int) -> float:
        parts = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        return float(np.mean([distance(real[part], fake[part]) for part in parts]))

    return _fit([(size, mean_distance(size)) for size in sizes])


def spread_sizes(count: int, points: int = 8) -> tuple[int, ...]:
    """Up to `points` sizes from a quarter of `count` to `count`, evenly spaced in 1/N, ascending."""
    inverse = np.linspace(4 / count, 1 / count, points)
    return tuple(sorted({max(2, round(1 / value)) for value in inverse}))


def _checked(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    ascending = tuple(sorted(set(sizes)))
    if len(ascending) < 3:
        raise ValueError(f"a line needs at least 3 different sizes to be judged, got {ascending} for {count} samples")
    if ascending[0] < 2 or ascending[-1] > count:
        raise ValueError(f"sizes must lie between 2 and the {count} samples there are, got {ascending}")
    return ascending


def _fit(points: Sequence[tuple[int, float]]) -> Extrapolation:
    inverse = np.array([1 / size for size, _ in points])
    distances = np.array([distance for _, distance in points])
    slope, value = np.polyfit(inverse, distances, 1)
    residual = np.square(distances - value - slope * inverse).sum()
    variance = np.square(distances - distances.mean()).sum()
    r2 = 1 - residual / variance if variance > 0 else 1.0  # all points equal: a horizontal line fits every one
    return Extrapolation(float(value), float(slope), tuple(points), float(r2))
