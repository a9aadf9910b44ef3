"""Frechet distance of two sets of features, each modelled as a Gaussian: the statistic of FVD and FID.

    distance = |mean_a - mean_b|^2 + tr A + tr B - 2 tr (A B)^(1/2)            with covariances A and B

For any factors with A = F_a' F_a and B = F_b' F_b, the last trace is the sum of the singular values of F_a F_b'. This
avoids the root of a non-symmetric matrix, which can fail silently; with fewer samples than dimensions, the centred
features themselves are an exact, small factor. Everything is float64. No file is read and no network run here.

Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982.

Legend: N samples, D features per sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The mean (D,) and covariance (D, D) of `count` samples, float64.

    Raises ValueError for shapes that do not match, values that are not finite, fewer than two samples and a matrix
    that is not symmetric.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean), len(self.mean)):
            raise ValueError(
                "a Gaussian needs a mean (D,) and a covariance (D, D), got the shapes "
                f"{self.mean.shape} and {self.covariance.shape}"
            )
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("the mean or the covariance holds NaN or infinite values")
        if np.abs(self.covariance - self.covariance.T).max() > 1e-6 * np.abs(self.covariance).max():
            raise ValueError("the covariance is not symmetric")

    @classmethod
    def of(cls, features: Any, ddof: int = 0) -> Gaussian:
        """Fit features (N, D), dividing the covariance by N - `ddof`: 0 in FVD (LARP), 1 in FID.

        Raises ValueError as `as_features`, and for fewer than 2 samples.
        """
        rows = as_features(features, least=2)
        centred = rows - rows.mean(axis=0)
        return cls(rows.mean(axis=0), centred.T @ centred / _divisor(len(rows), ddof), len(rows))


class RunningGaussian:
    """A Gaussian fitted batch by batch, in constant memory.

    Batches are centred on their own mean and merged by the parallel update of Chan, Golub and LeVeque (1979);
    subtracting the mean from a sum of squares at the end would cancel most digits if the mean is large.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def add(self, features: Any) -> None:
        """Add features (N, D), at least one row. Raises ValueError, see `as_features`, and for a different D."""
        rows = as_features(features)
        if self.count and rows.shape[1] != len(self._mean):
            raise ValueError(f"{rows.shape[1]} features per sample follow batches of {len(self._mean)}")
        centred = rows - rows.mean(axis=0)
        self._merge(len(rows), rows.mean(axis=0), centred.T @ centred)

    def merge(self, other: RunningGaussian) -> None:
        """Merge the samples of `other`, such as another shard. Raises ValueError for a different D."""
        if self.count and other.count and len(other._mean) != len(self._mean):
            raise ValueError(f"cannot merge {len(other._mean)} features per sample into {len(self._mean)}")
        if other.count:
            self._merge(other.count, other._mean, other._scatter)

    def result(self, ddof: int = 0) -> Gaussian:
        """Return the Gaussian of all samples, dividing the covariance by N - `ddof`.

        Raises ValueError for fewer than two samples.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return Gaussian(self._mean.copy(), self._scatter / _divisor(self.count, ddof), self.count)

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if self.count == 0:
            self.count, self._mean, self._scatter = count, mean.copy(), scatter.copy()
            return
        total = self.count + count
        offset = mean - self._mean
        self._scatter = self._scatter + scatter + np.outer(offset, offset) * (self.count * count / total)
        self._mean = self._mean + offset * (count / total)
        self.count = total


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians, 0 or more.

    Differences within rounding error count as 0, so that the distance of a Gaussian to itself is 0 and never negative.
    Raises ValueError for different dimensions and for a matrix with negative eigenvalues, which is not a covariance.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"the Gaussians have different dimensions, {len(a.mean)} and {len(b.mean)}")
    return _distance(a.mean, _covariance_factor(a.covariance), b.mean, _covariance_factor(b.covariance))


def frechet_distance_of_features(a: Any, b: Any, ddof: int = 0) -> float:
    """Squared Frechet distance of features (N, D) and (M, D), 0 or more.

    Equal to `frechet_distance(Gaussian.of(a), Gaussian.of(b))` up to rounding, but exact and much faster with fewer
    samples than dimensions. Raises ValueError, see `as_feature_pair`, for fewer than two samples of either.
    """
    a, b = as_feature_pair(a, b, least=2)
    return _distance(a.mean(axis=0), _feature_factor(a, ddof), b.mean(axis=0), _feature_factor(b, ddof))


def frechet_distances_of_draws(a: Any, b: Any, draws: np.ndarray, ddof: int = 0) -> np.ndarray:
    """Distances (S,) of the pairs of samples that each draw (S, N) of a bootstrap takes from features (N, D) of both.

    Equal to `frechet_distance_of_features(a[draw], b[draw])` up to rounding. With at most as many samples as dimensions
    all draws share the inner products of samples, and a draw's repeated samples weigh more instead of taking part
    twice: several times faster. Raises ValueError, see `as_feature_pair`, and for different numbers of samples.
    """
    a, b = as_feature_pair(a, b, least=2)
    if len(a) != len(b):
        raise ValueError(f"draws take pairs of samples, these are {len(a)} and {len(b)}")
    if len(a) > a.shape[1]:
        return np.array([frechet_distance_of_features(a[draw], b[draw], ddof) for draw in draws])
    origin = a.mean(axis=0)  # distances do not depend on it; products around it lose the fewest digits
    a, b = a - origin, b - origin
    products = a @ a.T, b @ b.T, a @ b.T
    return np.array([_distance_of_draw(*products, *np.unique(draw, return_counts=True), ddof) for draw in draws])


def as_features(features: Any, least: int = 1, name: str = "the features") -> np.ndarray:
    """Convert features (an array, a tensor, nested lists) to a float64 array (N, D).

    Raises ValueError, naming the cause, for the wrong shape, fewer than `least` samples, values that are not real
    numbers, and NaN or infinity.
    """
    if hasattr(features, "detach"):  # a tensor, possibly on a GPU or of a type that NumPy lacks
        features = features.detach().cpu().double()
    array = np.asarray(features)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be real numbers, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must have the shape (samples, dimensions), got {array.shape}")
    if len(array) < least:
        raise ValueError(f"{name} must hold at least {least} samples, got {len(array)}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name} hold NaN or infinite values, first in sample {int(finite.argmin())}")
    return array.astype(np.float64)


def as_feature_pair(a: Any, b: Any, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Convert both by `as_features`. Raises ValueError as it does, and for different dimensions."""
    first, second = as_features(a, least, "the first features"), as_features(b, least, "the second features")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the features have different dimensions: {first.shape[1]} and {second.shape[1]}")
    return first, second


def _distance(mean_a: np.ndarray, factor_a: np.ndarray, mean_b: np.ndarray, factor_b: np.ndarray) -> float:
    traces = np.square(factor_a).sum() + np.square(factor_b).sum()
    return float(np.square(mean_a - mean_b).sum() + _spread(traces, factor_a @ factor_b.T, len(mean_a)))


def _spread(traces: float, across: np.ndarray, dimensions: int) -> float:
    """Return the covariances' contribution: the sum of their traces, and the product of their factors."""
    spread = traces - 2 * np.linalg.svd(across, compute_uv=False).sum()
    return float(spread) if spread >= 10 * dimensions * _EPSILON * traces else 0.0


def _distance_of_draw(
    of_a: np.ndarray, of_b: np.ndarray, across: np.ndarray, rows: np.ndarray, counts: np.ndarray, ddof: int
) -> float:
    """Compute the distance from inner products (N, N) within and across both, of `rows` drawn `counts` times."""
    samples, count = len(of_a), int(counts.sum())
    part, root = counts / count, np.sqrt(counts / _divisor(count, ddof))
    of_a, of_b, across = (products[np.ix_(rows, rows)] for products in (of_a, of_b, across))
    mean_a, mean_b, between = (part @ products @ part for products in (of_a, of_b, across))
    traces = np.square(root) @ (np.diag(of_a) - mean_a + np.diag(of_b) - mean_b)
    centred = across - (across @ part)[:, None] - part @ across + between
    moved = max(mean_a + mean_b - 2 * between, 0.0)
    return float(moved + _spread(float(traces), root[:, None] * centred * root, samples))


def _feature_factor(rows: np.ndarray, ddof: int) -> np.ndarray:
    """F with F' F equal to the covariance of `rows` (N, D); F has at most D rows."""
    if len(rows) >= rows.shape[1]:
        return _covariance_factor(Gaussian.of(rows, ddof).covariance)
    return (rows - rows.mean(axis=0)) / np.sqrt(_divisor(len(rows), ddof))


def _covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """F (D, D) with F' F = `covariance`.

    Eigenvalues within rounding error of the largest are set to 0: without full rank they are only rounding error, and
    their roots would be 1e-8 instead of 0.
    """
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-6 * abs(values[-1]):
        raise ValueError(f"a covariance has no negative eigenvalues, this matrix has {values[0]:.3g}")
    values = np.where(values > len(values) * _EPSILON * values[-1], values, 0.0)
    return np.sqrt(values)[:, None] * vectors.T


def _divisor(count: int, ddof: int) -> int:
    if count <= ddof:
        raise ValueError(f"{count} samples leave nothing to divide by with ddof={ddof}")
    return count - ddof
