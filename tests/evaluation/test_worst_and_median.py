"""The clips that are shown are the worst and those in the middle, whichever way a metric goes."""

import numpy as np
import pytest

from evatok.evaluation.showing import worst_and_median

VALUES = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0])


@pytest.mark.parametrize("higher", [True, False])
def test_half_are_the_worst_and_half_lie_around_the_median(higher):
    values = VALUES if higher else -VALUES
    chosen = worst_and_median(values, 4, higher=higher)
    assert [VALUES[index] for index in chosen] == [1.0, 2.0, 4.0, 5.0]
    assert list(chosen.values()) == ["worst", "worst", "median", "median"]
    assert [VALUES[index] for index in worst_and_median(values, 1, higher=higher)] == [1.0]


@pytest.mark.parametrize("count", [9, 10, 100])
def test_no_clip_is_shown_twice(count):
    assert sorted(worst_and_median(VALUES, count, higher=True)) == list(range(9))
