"""Conditions that every step must meet, checked when the curve is written or the state saved.

Reading a number waits until the device has computed it, and reading in every step would idle the device in each of
them. So a step only notes its conditions, and the loop checks all of them at once before it writes anything: a state
that violates a condition is never saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from evatok.storage import ranks
from evatok.training.recipe import TrainingError


class Watch:
    """The conditions since the last check."""

    def __init__(self) -> None:
        self._noted: list[tuple[torch.Tensor, Callable[[], str]]] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Within, `expect` notes its conditions here."""
        global _current
        before, _current = _current, self
        try:
            yield
        finally:
            _current = before

    def note(self, holds: torch.Tensor, told: Callable[[], str]) -> None:
        self._noted.append((holds.detach(), told))

    def look(self) -> None:
        """Raise TrainingError, on every rank, for the first violated condition."""
        noted, self._noted = self._noted, []
        held = torch.stack([holds for holds, _ in noted]).tolist() if noted else []
        if ranks.all_true(all(held)):
            return
        if all(held):
            raise TrainingError("another rank met a number that is not finite, see its message; last state kept")
        raise TrainingError(noted[held.index(False)][1]())


_current: Watch | None = None


def expect(holds: torch.Tensor, told: Callable[[], str]) -> None:
    """Note that a step is valid if `holds` (), a boolean; outside a training loop, check immediately.

    Args:
        told: description of the violation.

    Raises:
        TrainingError: outside a loop, if violated.
    """
    if _current is not None:
        _current.note(holds, told)
    elif not ranks.all_true(holds):
        raise TrainingError(told())
