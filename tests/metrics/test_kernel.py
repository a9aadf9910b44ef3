import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evatok.metrics.kernel_distance import kernel_distance, kernel_distances


def features(count, dimensions=8, seed=0, mean=0.0, spread=1.0):
    return np.random.default_rng(seed).normal(mean, spread, (count, dimensions))


def by_loops(a, b):
    """The definition, pair by pair."""

    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def within(rows):
        return np.mean([k(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])

    return within(a) + within(b) - 2 * np.mean([k(x, y) for x in a for y in b])


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 5), st.integers(0, 1000))
def test_equals_the_definition(count_a, count_b, dimensions, seed):
    a, b = features(count_a, dimensions, seed), features(count_b, dimensions, seed + 1, mean=0.3)
    assert kernel_distance(a, b) == pytest.approx(by_loops(a, b), rel=1e-9, abs=1e-9)


def test_it_is_unbiased_for_two_samples_of_one_distribution():
    """Small samples, where the Frechet distance is far off: the mean of many lies within its standard error of 0."""
    values = np.array([kernel_distance(features(10, seed=2 * s), features(10, seed=2 * s + 1)) for s in range(400)])
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert (values < 0).any()


def test_it_does_not_depend_on_the_number_of_samples():
    """Of distributions that differ the mean is the same from 10 samples as from 40."""

    def mean(count, repeats):
        pairs = range(0, 2 * repeats, 2)
        values = [kernel_distance(features(count, seed=s), features(count, seed=s + 1, mean=0.5)) for s in pairs]
        return np.mean(values), np.std(values) / math.sqrt(repeats)

    (few, error_few), (many, error_many) = mean(10, 400), mean(40, 100)
    assert abs(few - many) < 3 * math.hypot(error_few, error_many)


def test_it_is_positive_and_rising_for_unlike_distributions():
    real = features(200)
    shifted = [kernel_distance(real, features(200, seed=1, mean=mean)) for mean in (0.2, 0.5, 1.0)]
    assert 0 < shifted[0] < shifted[1] < shifted[2]
    assert kernel_distance(real, features(200, seed=1, spread=2.0)) > 0.1


def test_rows_at_a_time_move_no_value(monkeypatch):
    a, b = features(50), features(40, seed=1)
    whole = kernel_distance(a, b)
    monkeypatch.setattr("evatok.metrics.kernel_distance._ROWS", 7)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-10)


class TestSubsets:
    def test_they_follow_the_seed(self):
        a, b = features(60), features(50, seed=1)
        first = kernel_distances(a, b, subset=20, subsets=5, seed=3)
        np.testing.assert_array_equal(first, kernel_distances(a, b, subset=20, subsets=5, seed=3))
        assert not np.array_equal(first, kernel_distances(a, b, subset=20, subsets=5, seed=4))
        assert first.shape == (5,)

    def test_their_mean_estimates_the_same(self):
        a, b = features(400), features(400, seed=1, mean=0.5)
        values = kernel_distances(a, b, subset=50, subsets=60)
        assert kernel_distance(a, b, subset=50, subsets=60) == values.mean()
        assert values.mean() == pytest.approx(kernel_distance(a, b), abs=4 * values.std() / math.sqrt(60))

    def test_a_subset_of_everything_is_everything(self):
        a, b = features(12), features(12, seed=1)
        assert kernel_distance(a, b, subset=12, subsets=2) == pytest.approx(kernel_distance(a, b), rel=1e-9)

    @pytest.mark.parametrize(
        ("subset", "subsets", "cause"), [(1, 5, "of 1"), (31, 5, "of 31"), (10, 0, "at least one")]
    )
    def test_impossible_ones_are_refused(self, subset, subsets, cause):
        with pytest.raises(ValueError, match=cause):
            kernel_distance(features(40), features(30), subset=subset, subsets=subsets)


@pytest.mark.parametrize(
    ("fake", "cause"),
    [
        (np.zeros((1, 8)), "the second features must hold at least 2"),
        (np.zeros((3, 7)), "different dimensions"),
        (np.full((3, 8), math.nan), "the second features hold NaN"),
        (np.zeros(8), "shape"),
    ],
)
def test_wrong_features_are_refused(fake, cause):
    with pytest.raises(ValueError, match=cause):
        kernel_distance(features(5), fake)
