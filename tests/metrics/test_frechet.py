import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from evatok.metrics.frechet import (
    Gaussian,
    RunningGaussian,
    as_features,
    frechet_distance,
    frechet_distance_of_features,
    frechet_distances_of_draws,
)

seeds = st.integers(0, 2**32 - 1)


def features(count, dimensions, seed=0, mean=0.0):
    """Correlated features whose directions have unlike spreads."""
    random = np.random.default_rng(seed)
    return random.normal(size=(count, dimensions)) @ random.normal(size=(dimensions, dimensions)) + mean


def by_scipy(a: Gaussian, b: Gaussian) -> float:
    root = np.real(sqrtm(a.covariance @ b.covariance))
    return float(np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(dimensions=st.integers(1, 24), seed=seeds)
def test_equals_scipy_on_random_gaussians(dimensions, seed):
    a = Gaussian.of(features(6 * dimensions + 10, dimensions, seed))
    b = Gaussian.of(features(5 * dimensions + 10, dimensions, seed + 1, mean=0.5))
    assert frechet_distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-8)


@given(
    st.lists(
        st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(1e-3, 100)] * 2),
        min_size=1,
        max_size=10,
    )
)
def test_equals_the_closed_form_for_diagonal_covariances(rows):
    mean_a, mean_b, std_a, std_b = np.array(rows).T
    a, b = Gaussian(mean_a, np.diag(std_a**2), 100), Gaussian(mean_b, np.diag(std_b**2), 100)
    expected = np.square(mean_a - mean_b).sum() + np.square(std_a - std_b).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8, abs=1e-10 * (std_a**2 + std_b**2).sum())


@given(st.integers(2, 30), st.integers(2, 60), seeds)
def test_few_samples_take_a_short_cut_to_the_same_value(count_a, count_b, seed):
    a, b = features(count_a, 40, seed), features(count_b, 40, seed + 1)
    in_full = frechet_distance(Gaussian.of(a), Gaussian.of(b))
    assert frechet_distance_of_features(a, b) == pytest.approx(in_full, rel=1e-6)


@given(st.integers(3, 30), st.integers(1, 40), st.integers(0, 1), seeds)
def test_draws_weigh_what_they_repeat(count, dimensions, ddof, seed):
    a = features(count, dimensions, seed, mean=3.0)
    b = a + features(count, dimensions, seed + 1)
    draws = np.random.default_rng(seed).integers(count, size=(3, count))
    one_by_one = [frechet_distance_of_features(a[draw], b[draw], ddof) for draw in draws]
    scale = np.square(a - a.mean(0)).sum() + np.square(b - a.mean(0)).sum()
    assert frechet_distances_of_draws(a, b, draws, ddof) == pytest.approx(one_by_one, rel=1e-6, abs=1e-9 * scale)
    assert frechet_distances_of_draws(a, a, draws, ddof) == pytest.approx(0, abs=1e-12 * scale)


@given(st.integers(2, 40), st.integers(1, 20), seeds)
def test_to_itself_it_is_exactly_zero(count, dimensions, seed):
    a = features(count, dimensions, seed, mean=3.0)
    assert frechet_distance_of_features(a, a) == 0.0
    assert frechet_distance(Gaussian.of(a), Gaussian.of(a)) == 0.0


@given(st.integers(2, 40), st.integers(1, 20), seeds)
def test_it_is_symmetric_and_never_negative(count, dimensions, seed):
    a, b = features(count, dimensions, seed), features(count + 3, dimensions, seed + 1)
    there, back = frechet_distance_of_features(a, b), frechet_distance_of_features(b, a)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-9)


@given(st.integers(3, 30), st.floats(0.01, 50), seeds)
def test_a_shift_adds_its_own_square(count, shift, seed):
    a = features(count, 6, seed)
    direction = np.random.default_rng(seed).normal(size=6)
    moved = a + shift * direction / np.linalg.norm(direction)
    assert frechet_distance_of_features(a, moved) == pytest.approx(shift**2, rel=1e-8)


@given(seeds, st.floats(0.1, 10))
def test_it_is_squared_in_the_unit_and_blind_to_rotations(seed, unit):
    a, b = features(12, 5, seed), features(20, 5, seed + 1, mean=1.0)
    distance = frechet_distance_of_features(a, b)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))
    assert frechet_distance_of_features(unit * a @ turn, unit * b @ turn) == pytest.approx(unit**2 * distance, rel=1e-7)


def test_it_rises_with_noise():
    a = features(200, 8)
    noise = np.random.default_rng(1).normal(size=a.shape)
    values = [frechet_distance_of_features(a, a + amount * noise) for amount in (0, 0.1, 0.3, 1.0)]
    assert values == sorted(set(values))


class TestGaussian:
    def test_the_covariance_divides_by_n_or_by_n_minus_one(self):
        a = features(9, 4)
        np.testing.assert_allclose(Gaussian.of(a).covariance, np.cov(a.T, ddof=0))
        np.testing.assert_allclose(Gaussian.of(a, ddof=1).covariance, np.cov(a.T))
        assert Gaussian.of(a).count == 9

    def test_one_sample_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 samples, got 1"):
            Gaussian.of(np.zeros((1, 3)))

    @pytest.mark.parametrize(
        ("mean", "covariance", "cause"),
        [
            (np.zeros(3), np.eye(2), r"shapes \(3,\) and \(2, 2\)"),
            (np.zeros(2), np.diag([1.0, math.nan]), "NaN or infinite"),
            (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        ],
    )
    def test_what_is_no_gaussian_is_refused(self, mean, covariance, cause):
        with pytest.raises(ValueError, match=cause):
            Gaussian(mean, covariance, 10)

    def test_a_negative_eigenvalue_is_refused(self):
        good = Gaussian(np.zeros(2), np.eye(2), 10)
        with pytest.raises(ValueError, match="no negative eigenvalues, this matrix has -1"):
            frechet_distance(good, Gaussian(np.zeros(2), np.diag([1.0, -1.0]), 10))

    def test_unlike_dimensions_are_refused(self):
        with pytest.raises(ValueError, match="different dimensions, 2 and 3"):
            frechet_distance(Gaussian.of(features(9, 2)), Gaussian.of(features(9, 3)))


class TestRunningGaussian:
    @given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.sampled_from([0.0, 1.0, 1e5]), seeds)
    def test_streamed_equals_stacked(self, batches, mean, seed):
        a = features(sum(batches), 7, seed, mean)
        running = RunningGaussian()
        for batch in np.split(a, np.cumsum(batches)[:-1]):
            running.add(batch)
        streamed, stacked = running.result(), Gaussian.of(a)
        assert streamed.count == stacked.count
        np.testing.assert_allclose(streamed.mean, stacked.mean, rtol=1e-12, atol=1e-12)
        size = np.abs(stacked.covariance).max()
        np.testing.assert_allclose(streamed.covariance, stacked.covariance, rtol=0, atol=1e-9 * size)

    def test_streaming_moves_no_distance(self):
        real, fake = features(30, 50), features(40, 50, seed=1)
        streams = []
        for rows in (real, fake):
            running = RunningGaussian()
            for start in range(0, len(rows), 7):
                running.add(rows[start : start + 7])
            streams.append(running.result())
        assert frechet_distance(*streams) == pytest.approx(frechet_distance_of_features(real, fake), rel=1e-6)

    def test_shards_merge_to_the_whole(self):
        a = features(20, 3)
        shards = [RunningGaussian() for _ in range(3)]
        shards[0].add(a[:8])
        shards[1].add(a[8:])
        for shard in (shards[0], shards[1]):
            shards[2].merge(shard)
        np.testing.assert_allclose(shards[2].result(ddof=1).covariance, np.cov(a.T), rtol=1e-10)
        assert shards[0].count == 8

    def test_slips_are_refused(self):
        running = RunningGaussian()
        with pytest.raises(ValueError, match="at least 2 samples, got 0"):
            running.result()
        running.add(np.zeros((1, 3)))
        with pytest.raises(ValueError, match="4 features per sample follow batches of 3"):
            running.add(np.zeros((1, 4)))
        other = RunningGaussian()
        other.add(np.zeros((1, 4)))
        with pytest.raises(ValueError, match="cannot merge 4 features"):
            running.merge(other)
        with pytest.raises(ValueError, match="at least 2 samples, got 1"):
            running.result()


class TestFeatures:
    def test_tensors_of_low_precision_are_taken(self):
        tensor = torch.randn(4, 3, requires_grad=True).bfloat16()
        rows = as_features(tensor)
        assert rows.dtype == np.float64
        np.testing.assert_array_equal(rows, tensor.detach().double().numpy())

    @pytest.mark.parametrize(
        ("wrong", "cause"),
        [
            (np.zeros(4), r"shape \(samples, dimensions\), got \(4,\)"),
            (np.zeros((4, 0)), r"got \(4, 0\)"),
            (np.zeros((2, 2), dtype=complex), "real numbers, not complex128"),
            ([["a", "b"]], "real numbers"),
            (np.array([[0.0, 1.0], [math.nan, 1.0]]), "NaN or infinite values, first in sample 1"),
            (np.array([[math.inf, 1.0]]), "first in sample 0"),
        ],
    )
    def test_wrong_features_are_refused(self, wrong, cause):
        with pytest.raises(ValueError, match=cause):
            as_features(wrong)

    def test_the_side_that_is_wrong_is_named(self):
        good = np.zeros((3, 2))
        with pytest.raises(ValueError, match="the second features hold NaN"):
            frechet_distance_of_features(good, np.full((3, 2), math.nan))
        with pytest.raises(ValueError, match="the first features must hold at least 2 samples, got 1"):
            frechet_distance_of_features(good[:1], good)
        with pytest.raises(ValueError, match="different dimensions: 2 and 1"):
            frechet_distance_of_features(good, good[:, :1])

    def test_a_divisor_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="2 samples leave nothing to divide by with ddof=2"):
            frechet_distance_of_features(np.eye(2), np.eye(2), ddof=2)
