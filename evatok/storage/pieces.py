"""Gradient accumulation: the pieces a rank's part of a batch is computed in, one after another.

A term such as a mean over tokens, whose number differs between pieces, depends on all clips of the batch. Every piece
is therefore first computed without gradients, a rehearsal, which notes the sums that pieces contribute (`Ledger.add`);
then each is computed again with the sums over all of them (`Ledger.take`). A batch in pieces thus has the loss and
gradients of the whole batch, for a third more time. What depends on no other piece needs no rehearsal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from evatok.errors import EvatokError

Values = TypeVar("Values", np.ndarray, torch.Tensor)


class PieceError(EvatokError, RuntimeError):
    """A term that cannot be computed on a piece of a batch."""


@dataclass
class Ledger:
    """What the pieces of one step contribute to sums, in the order each piece contributes."""

    sums: list[torch.Tensor] = field(default_factory=list)
    number: int = 0  # index of the sum the current piece contributes to or asks for next
    complete: bool = False

    def begin(self) -> None:
        """Start another piece."""
        self.number = 0

    def add(self, value: torch.Tensor) -> None:
        if self.number == len(self.sums):
            self.sums.append(value.detach().clone())
        else:
            self.sums[self.number] += value.detach()
        self.number += 1

    def take(self) -> torch.Tensor:
        if self.number >= len(self.sums):
            raise PieceError("a term of all clips was not rehearsed: train without accumulate")
        self.number += 1
        return self.sums[self.number - 1]


@dataclass(frozen=True)
class Piece:
    """The current piece, `number` of `of`; in a rehearsal nothing is learned from it."""

    number: int
    of: int
    ledger: Ledger

    @property
    def rehearsed(self) -> bool:
        """Whether this is the rehearsal."""
        return not self.ledger.complete

    @property
    def last(self) -> bool:
        return self.number + 1 == self.of


_current: Piece | None = None


def current() -> Piece | None:
    """Return the current piece, None if a batch is computed at once."""
    return _current


@contextmanager
def within(piece: Piece | None) -> Iterator[None]:
    """Within, batches are that piece of a rank's part; for None, all of it."""
    global _current
    before, _current = _current, piece
    try:
        yield
    finally:
        _current = before


def mine(values: Values) -> Values:
    """Return this piece's share of a rank's values, (b, ...) -> (b / of, ...)."""
    if _current is None:
        return values
    size = len(values) // _current.of
    return values[_current.number * size : (_current.number + 1) * size]
