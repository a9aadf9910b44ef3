"""The proxy reward and the choices read off it, on tables small enough to decide by hand, and by their laws."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evatok.assignments import reward
from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale
from evatok.metrics import catalogue

# Two levels over two blocks: candidates (1,1) (1,3) (3,1) (3,3) with 2, 4, 4, 6 tokens; 0 and 3 are uniform.
FOUR = CandidateSet((1, 3), 2)
REWARD = np.array([[0.0, 2.0, -1.0, 1.0], [5.0, 1.0, 3.0, 4.0], [0.0, 0.0, 7.0, -3.0]])
NINE = CandidateSet((2, 4, 8), 2)

seeds = st.integers(0, 2**32 - 1)
weights = st.floats(0.05, 1.95)


def table(seed: int, clips: int = 12) -> np.ndarray:
    """Random distances (clips, 9), lower is better, which tend to fall with length as a tokenizer's do."""
    random = np.random.default_rng(seed)
    need = random.uniform(0.2, 3, (clips, 1))
    return need / NINE.totals**0.5 + random.normal(0, 0.1, (clips, len(NINE)))


def rewards(scores: np.ndarray, w_q: float, metric: str = "l1") -> np.ndarray:
    quality = catalogue.quality(scores, metric)
    return reward.proxy_reward(quality, NINE, Scale.of(quality, NINE), w_q)


def test_choices_of_a_table_made_by_hand():
    assert reward.best(REWARD).tolist() == [1, 0, 2]
    assert reward.worst(REWARD).tolist() == [2, 1, 3]
    assert reward.best_uniform(REWARD, FOUR).tolist() == [3, 0, 0]
    assert reward.fixed(REWARD, 2).tolist() == [2, 2, 2]
    assert reward.best_fixed(REWARD) == 2  # means: 5/3, 1, 3, 2/3


def test_reward_of_one_clip_by_hand():
    quality = np.array([[1.0, 2.0, 3.0, 6.0]])
    scale = Scale(quality_mean=3, quality_std=2, length_mean=4, length_std=1)
    # z-scores: quality -1, -0.5, 0, 1.5; length -2, 0, 0, 2.
    expected = [[1.2 * -1 + 0.8 * 2, 1.2 * -0.5, 0.0, 1.2 * 1.5 - 0.8 * 2]]
    assert reward.proxy_reward(quality, FOUR, scale, 1.2) == pytest.approx(np.array(expected))
    assert reward.proxy_reward(quality, FOUR, scale, 1.2, w_l=0.0) == pytest.approx(1.2 * (quality - 3) / 2)


def test_threshold_takes_the_shortest_that_reaches_the_bound():
    quality = np.array([[9.0, 9, 9, 9], [1.0, 5, 6, 9], [1.0, 2, 3, 9], [1.0, 2, 3, 4]])
    # All reach: the shortest. Two of equal length reach: the better one. Only the longest. None: the longest.
    assert reward.threshold(quality, FOUR, 5).tolist() == [0, 2, 3, 3]


def test_threshold_falls_back_to_the_longest_even_if_it_is_not_the_best():
    assert reward.threshold(np.array([[4.0, 3, 2, 1]]), FOUR, 5).tolist() == [3]


@given(seed=seeds, low=st.floats(-2, 2), step=st.floats(0, 2))
def test_a_stricter_threshold_never_saves_tokens(seed, low, step):
    quality = catalogue.quality(table(seed), "l1")
    loose, strict = (NINE.totals[reward.threshold(quality, NINE, bound)] for bound in (low, low + step))
    assert (strict >= loose).all()


def test_percentile_takes_expectations_before_the_ratio():
    # Means: chosen (2 + 4 + 0) / 3 = 2, worst (-1 + 1 - 3) / 3 = -1, best (2 + 5 + 7) / 3 = 14 / 3.
    assert reward.percentile(REWARD, np.array([1, 3, 0])) == pytest.approx(100 * 3 / (17 / 3))


@given(seed=seeds, w_q=weights)
def test_percentile_runs_from_worst_to_best(seed, w_q):
    table_of_rewards = rewards(table(seed), w_q)
    assert reward.percentile(table_of_rewards, reward.best(table_of_rewards)) == pytest.approx(100)
    assert reward.percentile(table_of_rewards, reward.worst(table_of_rewards)) == pytest.approx(0)
    uniform = reward.percentile(table_of_rewards, reward.best_uniform(table_of_rewards, NINE))
    constant = reward.percentile(table_of_rewards, reward.fixed(table_of_rewards, NINE.uniform[1]))
    assert -1e-9 <= constant <= uniform + 1e-9 <= 100 + 1e-8


@given(seed=seeds, w_q=weights, factor=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_rewards_do_not_depend_on_the_scores_unit(seed, w_q, factor, shift):
    scores = table(seed)
    assert rewards(factor * scores + shift, w_q) == pytest.approx(rewards(scores, w_q), abs=1e-6)


@given(seed=seeds, low=weights, high=weights)
def test_more_weight_on_quality_never_buys_fewer_tokens(seed, low, high):
    low, high = sorted((low, high))
    scores = table(seed)
    spent = [NINE.totals[reward.best(rewards(scores, w_q))] for w_q in (low, high)]
    assert (spent[1] >= spent[0]).all()


@given(seed=seeds, w_q=weights, clip=st.integers(0, 11), candidate=st.integers(0, 8))
@pytest.mark.parametrize("metric", ["psnr", "l1", "mse", "lpips-vgg", "lpips-alex", "st-lpips"])
def test_a_better_score_raises_the_reward(metric, seed, w_q, clip, candidate):
    """The trap of the paper's printed formula: there a higher LPIPS would raise it."""
    scores = table(seed)
    quality = catalogue.quality(scores, metric)
    scale = Scale.of(quality, NINE)
    better = scores.copy()
    better[clip, candidate] += 0.5 if metric == "psnr" else -0.5
    before = reward.proxy_reward(quality, NINE, scale, w_q)
    after = reward.proxy_reward(catalogue.quality(better, metric), NINE, scale, w_q)
    assert after[clip, candidate] > before[clip, candidate]
    assert (after != before).sum() == 1


def test_an_unknown_metric_is_named_with_the_known_ones():
    with pytest.raises(catalogue.CatalogueError, match=r"no metric 'sofa' in the catalogue: psnr, ssim"):
        catalogue.quality(np.zeros((1, 9)), "sofa")


def test_top_k_is_the_share_of_clips_whose_best_is_ranked_that_high():
    ranking = np.array([[1, 0, 2, 3], [3, 0, 1, 2], [0, 1, 3, 2]])  # best: 1, 0, 2
    shares = [reward.top_k(REWARD, ranking, k) for k in (1, 2, 3, 4)]
    assert shares == pytest.approx([100 / 3, 200 / 3, 200 / 3, 100])


@given(seed=seeds)
def test_a_perfect_ranking_is_always_right(seed):
    table_of_rewards = rewards(table(seed), 1.2)
    assert reward.top_k(table_of_rewards, np.argsort(-table_of_rewards, axis=1), 1) == 100


@given(seed=seeds, share=st.floats(0.05, 0.95))
@settings(max_examples=40)
def test_matched_weight_spends_the_tokens_asked_for_within_a_step(seed, share):
    quality = catalogue.quality(table(seed, clips=40), "l1")
    scale = Scale.of(quality, NINE)

    def spent(w_q: float) -> float:
        return float(NINE.totals[reward.best(reward.proxy_reward(quality, NINE, scale, w_q))].mean())

    least, most = spent(1e-3), spent(2 - 1e-3)
    target = least + share * (most - least)
    w_q = reward.matched_weight(quality, NINE, scale, target)
    assert spent(w_q - 0.002) <= target <= spent(w_q + 0.002)


def test_matched_weight_says_when_no_weight_will_do():
    quality = catalogue.quality(table(0), "l1")
    with pytest.raises(ValueError, match=r"no w_q in \(0, 2\) spends 99.0 tokens"):
        reward.matched_weight(quality, NINE, Scale.of(quality, NINE), 99)


def test_the_length_scale_is_the_papers():
    paper = CandidateSet((32, 64, 128, 256, 512), 4)
    scale = Scale.of(np.random.default_rng(0).normal(size=(2, 625)), paper)
    assert (scale.length_mean, scale.length_std) == pytest.approx((793.6, 349.137), abs=5e-4)
    assert Scale.from_dict(dataclasses.asdict(scale)) == scale


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_a_flat_table_has_no_scale(value):
    """The mean of many equal numbers is rounded, so that their deviation may be tiny instead of 0."""
    with pytest.raises(ValueError, match="not all equal"):
        Scale.of(np.full((5, 9), value), NINE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_table_with_a_hole_has_no_scale(value):
    quality = table(0)
    quality[3, 4] = value
    with pytest.raises(ValueError, match="finite"):
        Scale.of(quality, NINE)


def test_a_table_of_another_candidate_set_has_no_scale():
    with pytest.raises(ValueError, match=r"\(clips, 9\), got \(12, 4\)"):
        Scale.of(table(0)[:, :4], NINE)


def test_percentile_of_equal_rewards_is_an_error():
    with pytest.raises(ValueError, match="every assignment is optimal"):
        reward.percentile(np.ones((3, 4)), np.zeros(3, dtype=int))


def test_percentile_needs_a_choice_for_each_clip():
    with pytest.raises(ValueError, match=r"\(2,\) choices for 3 clips"):
        reward.percentile(REWARD, np.array([0, 1]))
