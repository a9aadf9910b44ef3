"""Points obey their rules, pairs are asked for once, and curves save and dominate what they should."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evatok.assignments import reward
from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale
from evatok.evaluation import operating_points as rules
from evatok.evaluation import tradeoff
from evatok.evaluation.operating_points import Pairs, Point, PointError
from evatok.evaluation.tradeoff import Curve
from evatok.metrics.frechet import frechet_distance_of_features

CANDIDATES = CandidateSet((2, 4, 8), 3)
CLIPS = 12


@pytest.fixture
def quality() -> np.ndarray:
    """(12, 27) qualities that rise with the tokens, each clip's in its own way."""
    random = np.random.default_rng(0)
    return random.normal(0, 0.2, (CLIPS, 27)) + np.log(CANDIDATES.totals) * random.uniform(0.2, 1, (CLIPS, 1))


@pytest.fixture
def points(quality) -> list[Point]:
    scale = Scale.of(quality, CANDIDATES)
    return [
        *rules.uniform_points(CANDIDATES, CLIPS),
        *rules.reward_points(quality, CANDIDATES, scale, [0.4, 1.0, 1.6]),
        *rules.threshold_points(quality, CANDIDATES, 5),
    ]


def test_uniform_points_give_every_clip_and_block_the_same(points):
    for point, level in zip(points[:3], (2, 4, 8), strict=True):
        assert point.name == f"uniform.{level}"
        assert (point.assignments == level).all()
        assert point.assignments.shape == (CLIPS, 3)


def test_reward_points_are_the_best_of_their_weight(points, quality):
    table = reward.proxy_reward(quality, CANDIDATES, Scale.of(quality, CANDIDATES), 1.6)
    chosen = CANDIDATES.index(next(p for p in points if p.name == "max_reward.1.6").assignments)
    assert np.array_equal(table[np.arange(CLIPS), chosen], table.max(axis=1))


def test_threshold_points_meet_their_bound_with_the_fewest_tokens(points, quality):
    thresholds = [p for p in points if p.rule == "threshold"]
    assert 3 <= len(thresholds) <= 5
    for point in thresholds:
        bounds = [bound for bound in (float(point.parameter), -float(point.parameter))]
        chosen = CANDIDATES.index(point.assignments)
        bound = next(b for b in bounds if np.array_equal(reward.threshold(quality, CANDIDATES, b), chosen))
        for clip, choice in enumerate(chosen):
            meeting = CANDIDATES.totals[quality[clip] >= bound]
            if len(meeting):
                assert quality[clip, choice] >= bound
                assert CANDIDATES.totals[choice] == meeting.min()
            else:
                assert CANDIDATES.totals[choice] == CANDIDATES.totals.max()


def test_thresholds_are_spread_from_the_shortest_to_the_longest(points):
    spent = np.sort([p.tokens.mean() for p in points if p.rule == "threshold"])
    assert (spent[0], spent[-1]) == (6, pytest.approx(24, rel=0.1))
    assert np.diff(np.log(spent)).max() < 2 * np.log(4) / 4


@pytest.mark.parametrize(
    ("kind", "target", "head", "rule"),
    [
        ("vit", "hard", "joint", "router"),
        ("vit", "soft", "joint", "router_soft"),
        ("pyramid", "soft", "joint", "pyramid_router"),
        ("features", "reward", "per_block", "feature_router_reward_per_block"),
    ],
)
def test_routers_are_named_by_what_they_are(kind, target, head, rule):
    router = SimpleNamespace(
        config=SimpleNamespace(kind=kind, head=head),
        checkpoint=SimpleNamespace(facts={"target": target}),
        point=SimpleNamespace(w_q=1.585),
    )
    assert rules.router_name(router) == f"{rule}.1.585"


def test_every_pair_is_asked_for_once_and_found_again(points):
    pairs = Pairs.of(points, CANDIDATES)
    asked = {(clip, int(i)) for p in points for clip, i in enumerate(CANDIDATES.index(p.assignments))}
    held = list(zip(pairs.clips.tolist(), pairs.candidates.tolist(), strict=True))
    assert len(held) == len(set(held)) == len(pairs)
    assert set(held) == asked
    for point, where in zip(points, pairs.where, strict=True):
        assert np.array_equal(pairs.clips[where], np.arange(CLIPS))
        assert np.array_equal(CANDIDATES.row(pairs.candidates[where]), point.assignments)


def test_points_added_later_leave_earlier_pairs_where_they_were(points):
    few, all_of_them = Pairs.of(points[:5], CANDIDATES), Pairs.of(points, CANDIDATES)
    assert np.array_equal(few.candidates, all_of_them.candidates[: len(few)])
    assert few.shards(5) == all_of_them.shards(5)[: len(few.shards(5))]


def test_shards_cover_all_pairs_and_short_assignments_come_first(points):
    pairs = Pairs.of(points, CANDIDATES)
    shards = pairs.shards(5)
    assert [i for start, stop in shards for i in range(start, stop)] == list(range(len(pairs)))
    assert max(stop - start for start, stop in shards) == 5
    for start, stop in shards:
        assert (np.diff(CANDIDATES.totals[pairs.candidates[start:stop]]) >= 0).all()


def test_points_of_one_name_are_refused(points):
    with pytest.raises(PointError, match=r"two points are called uniform\.2"):
        Pairs.of([points[0], points[0]], CANDIDATES)


CURVE = Curve.through(np.array([64.0, 16.0, 256.0]), np.array([2.0, 1.0, 3.0]))


def test_a_curve_is_straight_in_the_logarithm_of_tokens():
    assert CURVE.tokens_at(1.5) == pytest.approx(32)
    assert CURVE.tokens_at(2.5) == pytest.approx(128)
    assert CURVE.quality_at(32) == pytest.approx(1.5)
    assert [CURVE.tokens_at(q) for q in (1.0, 2.0, 3.0)] == pytest.approx([16, 64, 256])


def test_a_curve_says_nothing_outside_its_points():
    assert CURVE.tokens_at(0.99) is None
    assert CURVE.tokens_at(3.01) is None
    assert CURVE.quality_at(15) is None
    assert CURVE.quality_at(257) is None


def test_a_dearer_point_that_is_worse_counts_as_the_cheaper_one():
    curve = Curve.through(np.array([16.0, 64.0, 128.0, 256.0]), np.array([1.0, 2.0, 0.0, 3.0]))
    assert curve.quality_at(128) == 2
    assert curve.tokens_at(2.0) == pytest.approx(64)
    assert curve.tokens_at(2.5) == pytest.approx(np.sqrt(128 * 256))


def test_of_equally_dear_points_the_best_counts():
    curve = Curve.through(np.array([16.0, 16.0, 64.0]), np.array([0.0, 1.0, 2.0]))
    assert curve.tokens_at(1.0) == 16
    assert curve.tokens_at(0.5) is None


@given(arrays.arrays(float, (2, 6), elements=st.floats(1, 100), unique=True), st.floats(0, 1))
def test_reaching_a_quality_and_having_it_agree(values, share):
    curve = Curve.through(*values)
    wanted = curve.quality[0] + share * (curve.quality[-1] - curve.quality[0])
    spent = curve.tokens_at(wanted)
    assert spent is not None
    assert curve.quality_at(min(spent, curve.tokens[-1])) == pytest.approx(wanted, rel=1e-6)


def test_saving_is_a_share_of_the_references_tokens():
    assert tradeoff.saving(CURVE, 128, 2.0) == pytest.approx(50)
    assert tradeoff.saving(CURVE, 32, 2.0) == pytest.approx(-100)
    assert tradeoff.saving(CURVE, 128, 0.5) is None


def repeated(curve: Curve, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(curve.tokens, (count, 1)), np.tile(curve.quality, (count, 1))


def test_the_interval_of_a_saving_is_that_of_its_draws():
    reference = np.array([2.0, *np.linspace(1.5, 2.5, 101)])
    found = tradeoff.saving_of_draws(*repeated(CURVE, 102), np.full(102, 256.0), reference)
    assert found.value == pytest.approx(75)
    expected = [100 * (1 - 16 * 4 ** (q - 1) / 256) for q in (1.52, 2.47)]
    assert [found.high, found.low] == pytest.approx(expected, abs=1)
    assert found.at_least is None


def test_an_interval_that_leaves_the_curve_is_open_on_that_side():
    reference = np.array([1.1, *np.linspace(0.9, 1.3, 101)])
    found = tradeoff.saving_of_draws(*repeated(CURVE, 102), np.full(102, 256.0), reference)
    assert found.high is None
    assert found.low is not None
    assert found.value is not None
    worse = tradeoff.saving_of_draws(*repeated(CURVE, 102), np.full(102, 256.0), reference + 1.9)
    assert (worse.low, worse.high is None) == (None, False)


def test_a_reference_worse_than_the_cheapest_point_gives_a_bound_only():
    found = tradeoff.saving_of_draws(*repeated(CURVE, 3), np.full(3, 64.0), np.full(3, 0.5))
    assert (found.value, found.at_least) == (None, 75)
    above = tradeoff.saving_of_draws(*repeated(CURVE, 3), np.full(3, 64.0), np.full(3, 3.5))
    assert (above.value, above.at_least) == (None, None)


def test_dominance_is_decided_by_the_least_margin_of_shared_budgets():
    below = Curve.through(np.array([32.0, 128.0, 512.0]), np.array([1.4, 2.0, 9.0]))
    margin = tradeoff.smallest_margin(CURVE, below)
    assert margin is not None
    # Where both are defined, 32 to 256, the second one overtakes on the way to 512 tokens.
    assert margin.tokens == 256
    assert margin.difference == pytest.approx(3.0 - 5.5)
    assert tradeoff.dominates(CURVE, below) is False
    assert tradeoff.dominates(CURVE, below, tolerance=2.6) is True
    ahead = Curve.through(np.array([32.0, 128.0]), np.array([1.4, 2.0]))
    assert tradeoff.smallest_margin(CURVE, ahead) == tradeoff.Comparison(pytest.approx(0.1), 32.0)
    assert tradeoff.dominates(CURVE, ahead) is True


def test_curves_without_a_shared_budget_cannot_be_compared():
    far = Curve.through(np.array([512.0, 1024.0]), np.array([1.0, 2.0]))
    assert tradeoff.smallest_margin(CURVE, far) is None
    assert tradeoff.dominates(CURVE, far) is None


def test_the_largest_gap_is_relative_and_skips_what_the_curve_does_not_cover():
    gap = tradeoff.largest_gap(CURVE, np.array([32.0, 64.0, 999.0]), np.array([1.5, 1.9, 9.0]))
    assert gap == tradeoff.Comparison(pytest.approx(-0.05), 64.0)
    assert tradeoff.largest_gap(CURVE, np.array([1.0]), np.array([1.0])) is None


def test_the_first_draw_is_all_clips_and_equal_seeds_draw_alike():
    positions = tradeoff.draws(CLIPS, 20)
    assert positions.shape == (21, CLIPS)
    assert np.array_equal(positions[0], np.arange(CLIPS))
    assert np.array_equal(positions, tradeoff.draws(CLIPS, 20))
    values = np.random.default_rng(0).normal(size=(2, CLIPS))
    found = tradeoff.means_of_draws(values, positions)
    assert found[0] == pytest.approx(values.mean(axis=1))
    assert found[7, 1] == pytest.approx(values[1, positions[7]].mean())


def test_distances_are_between_the_same_clips_of_both_sides():
    random = np.random.default_rng(0)
    real = random.normal(size=(CLIPS, 3))
    fake = np.stack([real, real + 1])
    positions = tradeoff.draws(CLIPS, 4)
    found = tradeoff.distances_of_draws(real, fake, positions)
    assert found[:, 0] == pytest.approx(0, abs=1e-9)
    assert found[:, 1] == pytest.approx(3)
    assert found[0, 1] == pytest.approx(frechet_distance_of_features(real, real + 1))


def test_a_spread_is_half_an_interval_and_needs_draws():
    values = np.stack([np.r_[0.0, np.linspace(0, 1, 1001)], np.zeros(1002)], axis=1)
    assert tradeoff.spread_of_draws(values) == pytest.approx([0.475, 0])
    assert tradeoff.spread_of_draws(values[:1]) is None


def draws_of(lead: np.ndarray, gap: float) -> tradeoff.Draws:
    """Rewards `lead` (D,) in PSNR above uniform at both budgets, and a router that lies a share `gap` beneath them."""
    uniform = np.tile([20.0, 30.0], (len(lead), 1))
    best = uniform + lead[:, None]
    names = ["uniform.4", "uniform.16", "max_reward.1", "max_reward.2", "router.1.2"]
    values = {
        "psnr": np.concatenate([uniform, best, best[:, 1:] * (1 - gap)], axis=1),
        "tokens": np.tile([16.0, 64.0, 16.0, 64.0, 64.0], (len(lead), 1)),
    }
    return tradeoff.Draws(names, 1, 320, values)


def test_a_lead_has_the_interval_of_its_draws():
    """Draw 0 is all clips; within one draw both curves are of the same clips."""
    lead = np.concatenate([[2.0], np.linspace(1, 3, 101)])
    found = draws_of(lead, 0.0).leads()
    assert found.keys() == {"max_reward.uniform"}, "no threshold was measured"
    assert found["max_reward.uniform"]["psnr"] == pytest.approx({"value": 2.0, "low": 1.05, "high": 2.95})


def test_a_routers_gap_is_told_by_its_size():
    found = draws_of(np.ones(12), 0.01).gaps()
    assert found.keys() == {"router"}
    assert found["router"]["psnr"] == pytest.approx({"value": 0.01, "low": 0.01, "high": 0.01})


def test_without_draws_a_lead_has_no_ends():
    assert draws_of(np.ones(1), 0.0).leads()["max_reward.uniform"]["psnr"] == {"value": 1, "low": None, "high": None}
