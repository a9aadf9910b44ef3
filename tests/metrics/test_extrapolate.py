import math
from functools import partial

import numpy as np
import pytest

from evatok.metrics.frechet import frechet_distance_of_features
from evatok.metrics.fvd_extrapolation import extrapolated_fvd, spread_sizes

DIMENSIONS = 12
SPREADS = np.linspace(0.5, 2.0, DIMENSIONS)
TRUTH = DIMENSIONS * 0.1**2 + np.square(SPREADS - 1).sum()
"""Of a standard normal distribution and one with mean 0.1 and these standard deviations."""


def two_gaussians(count, seed):
    random = np.random.default_rng(seed)
    shape = count, DIMENSIONS
    return random.normal(size=shape), 0.1 + SPREADS * random.normal(size=shape)


def test_it_comes_closer_to_the_truth_than_the_raw_estimate():
    errors, raw_errors = [], []
    for seed in range(8):
        real, fake = two_gaussians(600, seed)
        errors.append(extrapolated_fvd(real, fake).value - TRUTH)
        raw_errors.append(frechet_distance_of_features(real, fake) - TRUTH)
    assert np.mean(raw_errors) > 0
    assert abs(np.mean(errors)) < 0.5 * np.mean(raw_errors)


def test_two_samples_of_one_distribution_come_near_zero():
    real, _ = two_gaussians(600, 0)
    other, _ = two_gaussians(600, 1)
    raw = frechet_distance_of_features(real, other)
    fit = extrapolated_fvd(real, other)
    assert abs(fit.value) < 0.5 * raw
    assert fit.slope > 0
    assert fit.r2 > 0.95


def test_the_line_is_exact_for_a_distance_that_is_one():
    real, fake = two_gaussians(100, 0)
    fit = extrapolated_fvd(real, fake, sizes=(10, 20, 50, 100), distance=lambda a, b: 7 + 30 / len(a))
    assert fit.value == pytest.approx(7)
    assert fit.slope == pytest.approx(30)
    assert fit.r2 == pytest.approx(1)
    assert fit.points == tuple((size, 7 + 30 / size) for size in (10, 20, 50, 100))


def test_rows_stay_in_pairs_and_parts_are_disjoint():
    rows, seen = np.arange(20.0)[:, None], []

    def distance(a, b):
        np.testing.assert_array_equal(a, -b)
        seen.append(a[:, 0])
        return 1.0

    fit = extrapolated_fvd(rows, -rows, sizes=(5, 10, 20), distance=distance)
    assert [len(part) for part in seen] == [5] * 4 + [10] * 2 + [20]
    for parts in (seen[:4], seen[4:6], seen[6:]):
        assert sorted(np.concatenate(parts)) == sorted(rows[:, 0])
    assert (fit.value, fit.r2) == (pytest.approx(1), 1)


def test_to_itself_it_is_zero():
    real, _ = two_gaussians(50, 0)
    fit = extrapolated_fvd(real, real)
    assert fit.value == fit.slope == 0


def test_the_seed_decides():
    real, fake = two_gaussians(80, 0)
    assert extrapolated_fvd(real, fake, seed=1) == extrapolated_fvd(real, fake, seed=1)
    assert extrapolated_fvd(real, fake, seed=1) != extrapolated_fvd(real, fake, seed=2)


def test_the_last_point_is_the_plain_distance():
    real, fake = two_gaussians(40, 0)
    fid = partial(frechet_distance_of_features, ddof=1)
    assert extrapolated_fvd(real, fake).points[-1] == (40, pytest.approx(frechet_distance_of_features(real, fake)))
    assert extrapolated_fvd(real, fake, distance=fid).points[-1] == (40, pytest.approx(fid(real, fake)))


def test_sizes_are_evenly_spread_in_the_inverse():
    sizes = spread_sizes(1000)
    assert (sizes[0], sizes[-1], len(sizes)) == (250, 1000, 8)
    np.testing.assert_allclose(np.diff(1 / np.array(sizes)), -3 / 1000 / 7, rtol=0.05)


@pytest.mark.parametrize(
    ("sizes", "cause"),
    [((10, 20), "at least 3"), ((10, 10, 20), "at least 3"), ((1, 5, 9), "between 2 and"), ((5, 9, 41), "the 40")],
)
def test_sizes_without_a_line_are_refused(sizes, cause):
    with pytest.raises(ValueError, match=cause):
        extrapolated_fvd(*two_gaussians(40, 0), sizes=sizes)


def test_too_few_samples_are_refused_by_name():
    with pytest.raises(ValueError, match="for 3 samples"):
        extrapolated_fvd(*two_gaussians(3, 0))


def test_wrong_features_are_refused():
    real, fake = two_gaussians(40, 0)
    with pytest.raises(ValueError, match="equally many samples of both, got 40 and 39"):
        extrapolated_fvd(real, fake[:39])
    fake[3, 2] = math.nan
    with pytest.raises(ValueError, match="the second features hold NaN or infinite values, first in sample 3"):
        extrapolated_fvd(real, fake)
