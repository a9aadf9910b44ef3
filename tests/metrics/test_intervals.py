import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evatok.metrics.bootstrap import bootstrap, bootstrap_statistic, over_choices


class TestBootstrap:
    def test_it_covers_the_true_mean_about_as_often_as_it_says(self):
        hits = 0
        for seed in range(200):
            interval = bootstrap(np.random.default_rng(seed).normal(3, 2, 40), level=0.9, draws=200, seed=seed)
            hits += interval.low <= 3 <= interval.high
        assert 0.82 <= hits / 200 <= 0.95

    def test_its_width_is_that_of_the_normal_law(self):
        values = np.random.default_rng(0).normal(0, 2, 400)
        interval = bootstrap(values, level=0.95)
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)

    def test_more_clips_narrow_it_and_a_higher_level_widens_it(self):
        values = np.random.default_rng(0).normal(size=400)

        def width(count, level):
            interval = bootstrap(values[:count], level, draws=400)
            return interval.high - interval.low

        assert width(400, 0.95) < 0.7 * width(100, 0.95)
        assert width(100, 0.5) < width(100, 0.95) < width(100, 0.99)

    @given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
    def test_it_lies_within_the_values(self, values):
        interval = bootstrap(values, draws=20)
        slack = 1e-9 * (1 + max(map(abs, values)))
        assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
        assert interval.value == pytest.approx(np.mean(values))

    def test_equal_values_have_no_width(self):
        interval = bootstrap(torch.full((5,), 0.25), draws=10)
        assert (interval.value, interval.low, interval.high) == (0.25, 0.25, 0.25)

    def test_the_seed_decides(self):
        values = np.random.default_rng(0).normal(size=20)
        assert bootstrap(values, draws=50, seed=1) == bootstrap(values, draws=50, seed=1)
        assert bootstrap(values, draws=50, seed=1) != bootstrap(values, draws=50, seed=2)

    @pytest.mark.parametrize(
        ("values", "arguments", "cause"),
        [
            ([1.0], {}, r"at least 2 values \(N,\), got the shape \(1,\)"),
            ([[1.0, 2.0]], {}, r"shape \(1, 2\)"),
            ([1.0, math.nan], {}, "value 1 is nan"),
            ([math.inf, 30.0], {}, "value 0 is inf"),
            ([1.0, 2.0], {"level": 95}, "between 0 and 1, got 95"),
            ([1.0, 2.0], {"level": 0.0}, "between 0 and 1"),
            ([1.0, 2.0], {"draws": 1}, "at least 2 draws"),
        ],
    )
    def test_slips_are_refused(self, values, arguments, cause):
        with pytest.raises(ValueError, match=cause):
            bootstrap(values, **arguments)


class TestBootstrapStatistic:
    def test_of_a_mean_it_is_the_bootstrap_of_the_mean(self):
        values = np.random.default_rng(0).normal(size=20)
        assert bootstrap_statistic(values, np.mean, draws=50) == bootstrap(values, draws=50)

    def test_rows_stay_together(self):
        halves = np.random.default_rng(0).uniform(1, 2, (30, 1)) * [1.0, 2.0]
        found = bootstrap_statistic(halves, lambda rows: rows[:, 0].sum() / rows[:, 1].sum(), draws=50)
        assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))

    def test_draws_in_which_it_has_no_value_are_left_out(self):
        rows = np.array([[0.0], [0.0], [3.0]])
        found = bootstrap_statistic(rows, lambda drawn: 1.0 if drawn.any() else math.nan, draws=200)
        assert (found.value, found.low, found.high) == (1, 1, 1)

    def test_slips_are_refused(self):
        with pytest.raises(ValueError, match=r"at least 2 rows \(N, ...\), got the shape \(1, 8\)"):
            bootstrap_statistic(np.ones((1, 8)), np.mean)
        with pytest.raises(ValueError, match="of all 3 rows is nan: it has no interval"):
            bootstrap_statistic(np.ones((3, 8)), lambda rows: math.nan)


class TestOverChoices:
    def test_it_measures_once_a_seed(self):
        spread = over_choices(lambda seed: 10.0 + seed, [4, 1, 7])
        assert spread.values == (14.0, 11.0, 17.0)
        assert spread.seeds == (4, 1, 7)
        assert (spread.mean, spread.std) == (14.0, 3.0)

    def test_slips_are_refused(self):
        with pytest.raises(ValueError, match=r"at least 2 different seeds, got \[1\]"):
            over_choices(float, [1])
        with pytest.raises(ValueError, match=r"different seeds, got \[1, 2, 1\]"):
            over_choices(float, [1, 2, 1])
        with pytest.raises(ValueError, match="measurement with seed 2 is nan"):
            over_choices(lambda seed: math.nan if seed == 2 else 1.0, [1, 2])
