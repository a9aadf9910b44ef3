"""Dropout whose masks do not depend on how a batch is computed: number of ranks, pieces, packing, recomputation.

Legend: B clips of the global batch, M rows of activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from evatok.storage import ranks

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Span:
    """Rows [start, start + n) of this rank among `of` rows in total."""

    start: int
    of: int


_span: _Span | None = None


@contextmanager
def packed(sizes: np.ndarray) -> Iterator[None]:
    """Within, activation rows are those of sequences of unequal lengths: `sizes` (B,) of the global batch."""
    global _span
    clips = len(sizes) // ranks.parts()
    _span = _Span(int(sizes[: ranks.part() * clips].sum()), int(sizes.sum())) if ranks.parts() > 1 else None
    try:
        yield
    finally:
        _span = None


def as_now(function: Callable[..., Made]) -> Callable[..., Made]:
    """Bind a function to the current rows of `packed`, for later recomputation."""
    span = _span

    def again(*arguments: Any) -> Made:
        global _span
        before, _span = _span, span
        try:
            return function(*arguments)
        finally:
            _span = before

    return again


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn for the global batch, along the first dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if ranks.parts() == 1 or not self.training or not self.p:
            return super().forward(x)
        span = _span or _Span(ranks.part() * len(x), ranks.whole(len(x)))
        mask = F.dropout(_ones_like(x, span.of), self.p)
        return x * mask[span.start : span.start + len(x)]


def _ones_like(x: torch.Tensor, rows: int) -> torch.Tensor:
    """Ones in the shape of `rows` rows of x, in x's memory order, in which random numbers are drawn."""
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    shape = (rows, *x.shape[1:])
    return x.new_ones([shape[dim] for dim in order]).permute([order.index(dim) for dim in range(x.ndim)])
