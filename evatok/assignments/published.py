"""Assignment rules of other papers that need no router, as baselines of the routers in Table 3.

Legend: N clips, K temporal blocks.
"""

from __future__ import annotations

import numpy as np

from evatok.assignments.candidates import CandidateSet

ADAPTOK_ROW = (456, 242, 172, 150)
"""Tokens of the four blocks in AdapTok's published table, with a mean of 256 tokens per block."""

INFOTOK_LEAST = 1 / 16
"""The smallest fraction of a block's slots that InfoTok's rule assigns."""


def adaptok_row(candidates: CandidateSet, mean_tokens: float) -> int:
    """The one assignment with the shape of AdapTok's published block budgets, at about `mean_tokens` per clip.

    Each block takes the nearest level: (512, 256, 128, 128) for 1,024 tokens at the paper's levels.

    Raises:
        ValueError: the candidates do not have the published number of blocks.
    """
    if candidates.blocks != len(ADAPTOK_ROW):
        raise ValueError(f"AdapTok's row has {len(ADAPTOK_ROW)} blocks, the candidates have {candidates.blocks}")
    tokens = np.array(ADAPTOK_ROW) * mean_tokens / sum(ADAPTOK_ROW)
    return int(candidates.index(_nearest(tokens, candidates)))


def infotok(losses: np.ndarray, candidates: CandidateSet, mean_tokens: float, *, across: bool = False) -> np.ndarray:
    """(N,) assignments by InfoTok's ELBO rule (`elbo`, or `global_elbo` with `across`), about `mean_tokens` per clip.

    The fraction of slots that a block gets rises linearly with its loss l_t under the longest assignment,
    r (1 + s (l_t / mean - 1)) with s = min(max_t w_t, 1 / r - 1) / max_t w_t and w_t = l_t / mean - 1, clipped to
    [1/16, 1] and rounded to the nearest level. With `across`, r is that of the set times the clip's loss over the mean
    loss. r is solved for, so that rules are compared at equal tokens.

    Args:
        losses: (N, K) of each block, see `evatok.evaluation.full_length`.
        mean_tokens: matched as closely as discrete levels allow.
    """
    losses = np.asarray(losses, dtype=np.float64)

    def chosen(rate: float) -> np.ndarray:
        return candidates.index(_nearest(_shares(losses, rate, across) * candidates.levels[-1], candidates))

    def excess(rate: float) -> float:
        return float(candidates.totals[chosen(rate)].mean() - mean_tokens)

    low, high = 1e-3, 1.0
    if excess(low) >= 0:
        return chosen(low)
    if excess(high) <= 0:
        return chosen(high)
    from scipy.optimize import brentq  # as in `matched_weight`

    return chosen(float(brentq(excess, low, high, xtol=1e-4)))


def _shares(losses: np.ndarray, rate: float, across: bool) -> np.ndarray:
    """(N, K) fractions of the slots by InfoTok's rule."""
    means = losses.mean(axis=1, keepdims=True)
    rates = np.clip(rate * means / means.mean(), 1e-6, 1.0) if across else np.full_like(means, rate)
    excess = losses / means - 1
    most = np.maximum(excess.max(axis=1, keepdims=True), 1e-12)
    scale = np.minimum(most, 1 / rates - 1) / most
    return np.clip(rates * (1 + excess * scale), INFOTOK_LEAST, 1)


def _nearest(tokens: np.ndarray, candidates: CandidateSet) -> np.ndarray:
    """Round token counts (..., K) to the nearest levels, by ratio."""
    levels = np.asarray(candidates.levels)
    return levels[np.abs(np.log(tokens[..., None] / levels)).argmin(axis=-1)]
