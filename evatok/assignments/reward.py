"""The proxy reward, the choices it implies (best, worst, uniform, threshold), percentile and top-k.

Legend: N clips, A candidates. A quality table is (N, A), higher is better; a choice is (N,) candidate indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evatok.assignments.candidates import CandidateSet


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of the z-scores (suppl. eq. 2, 3).

    Those of quality come from the curation set under all candidates and are reused for other data; those of length are
    exact for uniformly drawn assignments (mean 793.6, deviation 349.1 tokens at the paper's levels).
    """

    quality_mean: float
    quality_std: float
    length_mean: float
    length_std: float

    @classmethod
    def of(cls, quality: np.ndarray, candidates: CandidateSet) -> Scale:
        """Compute the scale of a quality table (N, A).

        Raises:
            ValueError: values that are not finite, or all equal.
        """
        if quality.ndim != 2 or quality.shape[1] != len(candidates):
            raise ValueError(f"quality must be (clips, {len(candidates)}), got {quality.shape}")
        # Not by the deviation: equal scores can have a tiny one by rounding in the mean.
        if not quality.size or not np.isfinite(quality).all() or quality.min() == quality.max():
            raise ValueError("quality scores must be finite and not all equal")
        totals = candidates.totals
        return cls(*(float(v) for v in (quality.mean(), quality.std(), totals.mean(), totals.std())))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scale:
        return cls(**values)


def proxy_reward(
    quality: np.ndarray, candidates: CandidateSet, scale: Scale, w_q: float, w_l: float | None = None
) -> np.ndarray:
    """R = w_q Q - w_l L (main eq. 3, suppl. eq. 1), (N, A); w_l defaults to the paper's 2 - w_q."""
    return weighed(quality, candidates.totals, scale, w_q, w_l)


def weighed(quality: np.ndarray, tokens: np.ndarray, scale: Scale, w_q: float, w_l: float | None = None) -> np.ndarray:
    """Reward of broadcastable qualities and token counts; w_l defaults to 2 - w_q."""
    w_l = 2 - w_q if w_l is None else w_l
    z_quality = (quality - scale.quality_mean) / scale.quality_std
    z_length = (tokens - scale.length_mean) / scale.length_std
    return w_q * z_quality - w_l * z_length


def best(reward: np.ndarray) -> np.ndarray:
    """The max-proxy-reward assignment of each clip; ties go to the lowest index."""
    return reward.argmax(axis=1)


def worst(reward: np.ndarray) -> np.ndarray:
    """The min-proxy-reward assignment of each clip."""
    return reward.argmin(axis=1)


def best_uniform(reward: np.ndarray, candidates: CandidateSet) -> np.ndarray:
    """The best of the m uniform assignments of each clip (suppl. Sec. G)."""
    return candidates.uniform[reward[:, candidates.uniform].argmax(axis=1)]


def fixed(reward: np.ndarray, index: int) -> np.ndarray:
    """The same assignment for every clip."""
    return np.full(len(reward), index)


def best_fixed(reward: np.ndarray) -> int:
    """The single assignment with the highest mean reward over these clips."""
    return int(reward.mean(axis=0).argmax())


def threshold(quality: np.ndarray, candidates: CandidateSet, bound: float) -> np.ndarray:
    """The shortest assignment of each clip whose quality reaches `bound`, else the longest (main Fig. 5).

    Among equally short ones, the one of highest quality.
    """
    totals = candidates.totals
    reached = quality >= bound
    shortest = np.where(reached, totals, np.iinfo(np.int64).max).min(axis=1)
    eligible = reached & (totals == shortest[:, None])
    choice = np.where(eligible, quality, -np.inf).argmax(axis=1)
    return np.where(reached.any(axis=1), choice, totals.argmax())


def percentile(reward: np.ndarray, choice: np.ndarray) -> float:
    """Proxy-reward percentile in points, 0 to 100 (suppl. eq. 4): expectations over clips first, ratio after.

    Raises:
        ValueError: best and worst assignments have equal reward.
    """
    chosen, low, high = reward_bounds(reward, choice)
    return percentile_of_means(chosen.mean(), low.mean(), high.mean())


def reward_bounds(reward: np.ndarray, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards (N,) of the chosen, the worst and the best assignment of each clip."""
    if choice.shape != reward.shape[:1]:
        raise ValueError(f"one choice per clip is needed: {choice.shape} choices for {reward.shape[0]} clips")
    chosen = np.take_along_axis(reward, choice[:, None], axis=1)[:, 0]
    return chosen, reward.min(axis=1), reward.max(axis=1)


def percentile_of_means(chosen: float, low: float, high: float) -> float:
    """Percentile from three mean rewards."""
    if not high > low:
        raise ValueError("best and worst assignments have equal reward: every assignment is optimal")
    return float(100 * (chosen - low) / (high - low))


def top_k(reward: np.ndarray, ranking: np.ndarray, k: int) -> float:
    """Percentage of clips whose best assignment is among the first k of `ranking` (N, >= k)."""
    return float(100 * (ranking[:, :k] == best(reward)[:, None]).any(axis=1).mean())


def matched_weight(quality: np.ndarray, candidates: CandidateSet, scale: Scale, mean_tokens: float) -> float:
    """Find the w_q (with w_l = 2 - w_q) whose best assignments average `mean_tokens`, to 0.001.

    Mean tokens rise with w_q, in steps; the root of the step function is bracketed by (0, 2).

    Raises:
        ValueError: no weight yields that many tokens.
    """

    def excess(w_q: float) -> float:
        choice = best(proxy_reward(quality, candidates, scale, w_q))
        return float(candidates.totals[choice].mean() - mean_tokens)

    low, high = 1e-6, 2 - 1e-6
    if excess(low) > 0 or excess(high) < 0:
        raise ValueError(f"no w_q in (0, 2) spends {mean_tokens:.1f} tokens per clip on average")
    from scipy.optimize import brentq  # here: every command imports this module, and few solve for a weight

    return round(float(brentq(excess, low, high, xtol=5e-4)), 3)
