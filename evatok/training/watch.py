"""Conditions that every step has to meet, looked at when the curve is written or the state saved.

To look at a number a program waits until the device has computed it, and to look in every step keeps the device idle in
each of them. So a step only notes what has to hold, and the loop looks at all of it at once before it writes anything:
a state that breaks a condition is never saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from evatok.storage import ranks
from evatok.training.recipe import TrainingError


class Watch:
    """The conditions since the last look."""

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
        """Raise TrainingError, on every rank, for the first condition that does not hold."""
        noted, self._noted = self._noted, []
        held = torch.stack([holds for holds, _ in noted]).tolist() if noted else []
        if ranks.all_true(all(held)):
            return
        if all(held):
            raise TrainingError("another rank met a number that is not finite, see its message; last state kept")
        raise TrainingError(noted[held.index(False)][1]())


_current: Watch | None = None


def expect(holds: torch.Tensor, told: Callable[[], str]) -> None:
    """Note that a step is in order if `holds` (), a boolean; outside a training loop, look at once.

    Args:
        told: what is wrong otherwise.

    Raises:
        TrainingError: outside a loop, if it does not hold.
    """
    if _current is not None:
        _current.note(holds, told)
    elif not ranks.all_true(holds):
        raise TrainingError(told())
