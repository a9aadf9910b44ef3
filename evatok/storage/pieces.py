"""The pieces that a rank's part of a batch is computed in, one after the other: gradient accumulation.

A term such as a mean over tokens, of which pieces have unequally many, depends on all clips of the batch. Every piece
is therefore first computed without gradients, a rehearsal, in which the sums that pieces contribute are noted
(`Ledger.add`); then each is computed again and finds the sums over all of them (`Ledger.take`). So a batch in pieces
has the loss and the gradients of the batch as a whole, for a third more time. What depends on no other piece needs no
rehearsal.
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
    """A term that cannot be computed of a piece of a batch."""


@dataclass
class Ledger:
    """What the pieces of one step contribute to sums, in the order in which each piece does."""

    sums: list[torch.Tensor] = field(default_factory=list)
    number: int = 0  # of the sum that the piece under way contributes to or asks for next
    complete: bool = False

    def begin(self) -> None:
        """Another piece."""
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
    """The piece `number` of `of` that is under way; in a rehearsal nothing is learnt from it."""

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
    """The piece under way, None where a batch is computed at once."""
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
    """The piece of values of a rank's part, (b, ...) -> (b / of, ...)."""
    if _current is None:
        return values
    size = len(values) // _current.of
    return values[_current.number * size : (_current.number + 1) * size]
