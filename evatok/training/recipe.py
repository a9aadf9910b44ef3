"""How to optimise: steps, learning rates and their schedule, shared by all trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evatok.errors import EvatokError


class TrainingError(EvatokError, ValueError):
    """A training that cannot continue; the last good state stays on disk."""


SCHEDULES = ("cosine", "wsd")
_STABLE = 0.8  # fraction of all steps before a WSD schedule starts to anneal [suppl. C]


@dataclass(frozen=True)
class Recipe:
    """How to optimise. Learning rates are AdamW's; `warmup` and the periods are in steps.

    `schedule` is "cosine", or "wsd" (warm-up, stable, decay): constant for the first 80 % of the steps, then annealed
    to the final rate by one minus the square root of the completed fraction of the rest. A rank computes its part of a
    batch in `accumulate` pieces (`evatok.storage.pieces`); with `fp16` the loss is scaled, and a step whose gradient
    overflows is skipped. With `fsdp` several ranks split the network (`evatok.training.sharding`).
    """

    steps: int
    learning_rate: float
    final_learning_rate: float
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    log_every: int = 20
    save_every: int = 200
    schedule: str = "cosine"
    accumulate: int = 1
    fp16: bool = False
    fsdp: bool = False

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise TrainingError(f"unknown schedule {self.schedule!r}; choose {' or '.join(SCHEDULES)}")
        if min(self.steps, self.log_every, self.save_every) < 1:
            raise TrainingError(f"steps, log_every and save_every must be at least 1, got {self}")
        if self.save_every % self.log_every:
            raise TrainingError(
                f"save_every {self.save_every} must be a multiple of log_every {self.log_every}, or a resumed curve "
                "would lose terms"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up to the peak, then decay to the final rate by the schedule."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        drop = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + drop * (self._cosine(step) if self.schedule == "cosine" else self._wsd(step))

    def _cosine(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * _fraction(step - self.warmup, self.steps - self.warmup)))

    def _wsd(self, step: int) -> float:
        start = max(self.warmup, round(_STABLE * self.steps))
        return 1 - math.sqrt(_fraction(max(0, step - start), self.steps - start))


def _fraction(done: int, total: int) -> float:
    return min(1.0, done / max(1, total))
