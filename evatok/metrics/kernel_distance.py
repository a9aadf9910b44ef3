"""Kernel distance of two sets of features (KVD of videos, KID of images): an unbiased squared MMD.

The kernel is (x . y / D + 1)^3. Unlike the Frechet distance, the estimate is unbiased at any number of samples: two
samples of one distribution give 0 on average, so single values may be negative. Lower is better.

Binkowski et al., "Demystifying MMD GANs", ICLR 2018.

Legend: N, M samples; D features per sample.
"""

from typing import Any

import numpy as np

from evatok.metrics.frechet import as_feature_pair

_ROWS = 1024  # rows of the kernel matrix computed at once


def kernel_distance(a: Any, b: Any, *, subset: int | None = None, subsets: int = 100, seed: int = 0) -> float:
    """Kernel distance of features (N, D) and (M, D): from all samples, or the mean over random subsets.

    Args:
        subset: samples per subset and side (1000 is usual in KID); None for one estimate from all samples.
        subsets: number of subsets; unused without `subset`.
        seed: of the draw; the same seed draws the same subsets.

    Raises ValueError, see `as_feature_pair` and `kernel_distances`, for fewer than two samples of either.
    """
    if subset is not None:
        return float(kernel_distances(a, b, subset=subset, subsets=subsets, seed=seed).mean())
    return _estimate(*as_feature_pair(a, b, least=2))


def kernel_distances(a: Any, b: Any, *, subset: int, subsets: int = 100, seed: int = 0) -> np.ndarray:
    """(subsets,) kernel distances of random subsets drawn without replacement; their spread is that of the estimate.

    Raises ValueError if `subset` is below 2 or above the number of samples, or `subsets` below 1.
    """
    a, b = as_feature_pair(a, b, least=2)
    if not 2 <= subset <= min(len(a), len(b)):
        raise ValueError(f"subsets of {subset} samples cannot be drawn from {len(a)} and {len(b)}")
    if subsets < 1:
        raise ValueError(f"at least one subset is needed, got {subsets}")
    random = np.random.default_rng(seed)

    def draw(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[random.choice(len(rows), subset, replace=False)])

    return np.array([_estimate(draw(a), draw(b)) for _ in range(subsets)])


def _estimate(a: np.ndarray, b: np.ndarray) -> float:
    between = _kernel_sum(a, b) / (len(a) * len(b))
    return float(_mean_off_diagonal(a) + _mean_off_diagonal(b) - 2 * between)


def _mean_off_diagonal(rows: np.ndarray) -> float:
    """Mean kernel of two different samples; a sample with itself would be the bias."""
    diagonal = _cubic(np.square(rows).sum(axis=1), rows.shape[1]).sum()
    return float(_kernel_sum(rows, rows) - diagonal) / (len(rows) * (len(rows) - 1))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(_cubic(a[i : i + _ROWS] @ b.T, a.shape[1]).sum() for i in range(0, len(a), _ROWS)))


def _cubic(products: np.ndarray, dimensions: int) -> np.ndarray:
    return np.asarray((products / dimensions + 1) ** 3)
