"""Draw symbols from logits: temperature, top-k, top-p, and the inverse of the cumulative distribution.

Legend: n requests, V vocabulary or a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from evatok.errors import EvatokError


class SamplingError(EvatokError, ValueError):
    """A generator, a condition or sampling options that do not fit together."""


@dataclass(frozen=True)
class Sampling:
    """Sampling options.

    Attributes:
        guidance: scale g in unconditional + g * (conditional - unconditional) logits; 1 disables guidance and its cost.
        temperature: divisor of the logits.
        top_k: number of most probable symbols to draw from; 0 for all.
        top_p: draw from the most probable symbols that together reach this probability; 1 for all.
    """

    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.guidance) or self.guidance < 0:
            raise SamplingError(f"guidance must be finite and at least 0, got {self.guidance}")
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise SamplingError(f"temperature must be above 0, got {self.temperature}; use top_k=1 for greedy decoding")
        if self.top_k < 0:
            raise SamplingError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p must be above 0 and at most 1, got {self.top_p}")


def probabilities(logits: torch.Tensor, options: Sampling) -> torch.Tensor:
    """Apply temperature, then top-k, then top-p to logits (n, V); returns unnormalised probabilities (n, V).

    The logits are overwritten: for a large codebook, fresh memory costs as much as the exponentials.
    """
    if options.temperature != 1:
        logits.div_(options.temperature)
    if 0 < options.top_k < logits.shape[1]:
        least = logits.topk(options.top_k).values[:, -1:]
        logits.masked_fill_(logits < least, -torch.inf)
    weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    if options.top_p == 1:
        return weights
    ordered, order = weights.sort(-1, descending=True)
    cumulative = ordered.cumsum(-1, dtype=torch.float64)
    kept = cumulative - ordered < options.top_p * cumulative[:, -1:]
    return torch.zeros_like(weights).scatter(-1, order, ordered * kept)


_CHUNK = 128
"""Columns that `draw` sums before it searches within them."""


def draw(weights: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one column per row by the inverse of the cumulative distribution.

    Finds the chunk of columns first, then the column within it: only the sums of the chunks and one chunk have to be
    accumulated sequentially, where a large codebook has thousands of columns.

    Args:
        weights: (n, V) unnormalised probabilities.
        uniform: (n, 1) random numbers in [0, 1), float64.

    Returns:
        Columns (n,), and the sum of each row's weights (n, 1) in float64.
    """
    spare = -weights.shape[1] % _CHUNK
    padded = F.pad(weights, (0, spare)) if spare else weights
    chunks = padded.unflatten(1, (-1, _CHUNK))
    ends = chunks.sum(2).cumsum(1, dtype=torch.float64)
    total = ends[:, -1:]
    target = uniform * total
    chunk = _first_above(ends, target)
    before = torch.where(chunk > 0, ends.gather(1, (chunk - 1).clamp_min(0)), 0)
    within = chunks[torch.arange(len(weights), device=weights.device), chunk[:, 0]].cumsum(1, dtype=torch.float64)
    column = chunk * _CHUNK + _first_above(within, target - before)
    return column[:, 0].clamp_max(weights.shape[1] - 1), total


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(n, 1) first column whose cumulative sum (n, m) exceeds the target (n, 1), hence one with a positive weight.

    Any column where the sums are not positive and finite; such logits are rejected later.
    """
    last = cumulative[:, -1:]
    # Rounding must not lead past the last column with a positive weight.
    target = target.minimum(last.nextafter(torch.zeros_like(last)))
    return torch.searchsorted(cumulative, target, right=True).clamp_max(cumulative.shape[1] - 1)
