"""What the networks and statistics of FVD cost: each fast path against the plain one, same clips or features.

pytest benchmarks/test_metrics.py --benchmark-only
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from evatok.metrics.frechet import Gaussian, frechet_distance, frechet_distance_of_features
from evatok.metrics.i3d import I3D, SIZE, I3DFeatures

SAMPLES, DIMENSIONS = 320, 400

Pass = Callable[[], object]


def plain() -> Pass:
    """float32 in the layout of the definition."""
    network, clips = I3D().eval(), 2 * torch.rand(1, 3, 16, SIZE, SIZE) - 1
    return lambda: network(clips)


def channels_last(dtype: torch.dtype) -> Pass:
    """As `load_i3d` prepares it; the weights are random, which costs the same."""
    network = I3DFeatures(I3D(), {}).to(dtype).to(memory_format=torch.channels_last_3d)
    clips = torch.rand(1, 3, 16, 64, 64)
    return lambda: network(clips)


@pytest.mark.benchmark(group="I3D, one clip of 16 frames: OPS are clips/s", min_rounds=3, max_time=1)
@pytest.mark.parametrize(
    "make",
    [plain, lambda: channels_last(torch.float32), lambda: channels_last(torch.bfloat16)],
    ids=["plain-fp32", "fp32", "bf16"],
)
def test_i3d(benchmark: BenchmarkFixture, make: Callable[[], Pass]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        benchmark(make())


def by_matrix_root(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it is usually written."""
    one, two = Gaussian.of(a), Gaussian.of(b)
    root = scipy.linalg.sqrtm(one.covariance @ two.covariance).real
    traces = np.trace(one.covariance) + np.trace(two.covariance) - 2 * np.trace(root)
    return float(np.square(one.mean - two.mean).sum() + traces)


def by_eigenvalues(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


@pytest.mark.benchmark(group=f"Frechet distance, {SAMPLES} samples of {DIMENSIONS}", min_rounds=3, max_time=1)
@pytest.mark.parametrize("distance", [by_matrix_root, by_eigenvalues, frechet_distance_of_features])
def test_frechet(benchmark: BenchmarkFixture, distance: Callable[[np.ndarray, np.ndarray], float]) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, SAMPLES, DIMENSIONS))
    assert benchmark(distance, a, b) == pytest.approx(by_eigenvalues(a, b), rel=1e-3)
