"""Score answers: accuracy by category and by what must be seen, and paired differences between rows with intervals.

Two rows that answered the same questions are compared clip by clip, as a clip's questions are easy or hard together:
the bootstrap draws clips, so that its interval is over clips and not over trainings.

Legend: N clips, Q questions of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evatok.data.embedded import camera_text
from evatok.data.embedded.scene_text import CATEGORIES, NEEDS
from evatok.errors import EvatokError
from evatok.metrics import catalogue
from evatok.storage.records import Metric

if TYPE_CHECKING:
    from evatok.metrics.bootstrap import Interval

RIGHT, ASKED = "right", "needs"
"""Contents of an outcome file: (N, Q) correct answers, and the index of their need in NEEDS; -1: not asked."""
AVERAGE = "accuracy"
_SCORED_AS = {camera_text.CATEGORY: "motion"}
"""Categories of other sets, mapped to the moving-shapes category they are scored under."""
DRAWS = 1000  # of clips, per interval


class ScoringError(EvatokError, ValueError):
    """Outcomes that do not belong together."""


@dataclass(frozen=True)
class Outcomes:
    """Which questions were answered correctly.

    Attributes:
        right: (N, Q) 0 or 1.
        needs: (N, Q) indices into NEEDS; -1 where a clip has no question of that category.
    """

    right: np.ndarray
    needs: np.ndarray

    def __post_init__(self) -> None:
        if self.right.shape != self.needs.shape or self.right.ndim != 2 or self.right.shape[1] != len(CATEGORIES):
            raise ScoringError(
                f"outcomes must be two arrays (N, {len(CATEGORIES)}), got {self.right.shape} and {self.needs.shape}"
            )

    @classmethod
    def of(cls, right: np.ndarray, needs: np.ndarray, categories: Sequence[str]) -> Outcomes:
        """Build from questions of some categories, with needs by name; what a camera does counts as motion."""
        places = [CATEGORIES.index(_SCORED_AS.get(name, name)) for name in categories]
        held = np.zeros((len(right), len(CATEGORIES)))
        asked = np.full(held.shape, -1, dtype=np.int64)
        held[:, places] = right
        asked[:, places] = np.vectorize(NEEDS.index)(needs)
        return cls(held, asked)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the file beside a record, in the format of `evatok.evaluation.per_clip`."""
        return {RIGHT: self.right.astype(np.int8), ASKED: self.needs.astype(np.int8)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Outcomes:
        return cls(arrays[RIGHT].astype(np.float64), arrays[ASKED].astype(np.int64))

    def mask(self, metric: str = AVERAGE) -> np.ndarray:
        """Return (N, Q) booleans: the questions of `accuracy` or `accuracy.<category or need>`.

        Raises:
            ScoringError: no such category or need.
        """
        part = metric.removeprefix(AVERAGE).removeprefix(".")
        asked = self.needs >= 0
        if not part:
            return asked
        if part in CATEGORIES:
            return asked & (np.arange(len(CATEGORIES)) == CATEGORIES.index(part))
        if part in NEEDS:
            return asked & (self.needs == NEEDS.index(part))
        raise ScoringError(f"no category or need {part!r}; choose one of {', '.join((*CATEGORIES, *NEEDS))}")

    def metrics(self) -> dict[str, Metric]:
        """Compute accuracy in percent over all, each category and each need, with half its 95 % interval as spread."""
        found = {}
        for name in METRICS:
            mask = self.mask(name)
            if mask.any():
                interval = lead(self.right, mask) if len(self.right) > 1 else None
                half = None if interval is None else (interval.high - interval.low) / 2
                found[name] = catalogue.of("accuracy").measured(_share(self.right, mask), int(mask.sum()), half)
        return found


METRICS = (AVERAGE, *(f"{AVERAGE}.{name}" for name in (*CATEGORIES, *NEEDS)))


def lead(gains: np.ndarray, mask: np.ndarray) -> Interval:
    """Return the mean of gains (N, Q) over the questions of a mask (N, Q), in points, with its 95 % interval.

    The interval is of draws of clips: for a row's gains over another these are paired.

    Raises:
        ScoringError: no question is of this kind.
    """
    from evatok.metrics.bootstrap import bootstrap_statistic  # imports PyTorch

    if not mask.any():
        raise ScoringError("no question is of the kind that rows are compared by")
    rows = np.stack([(gains * mask).sum(1), mask.sum(1)], axis=1)
    return bootstrap_statistic(rows, lambda drawn: 100 * drawn[:, 0].sum() / max(1.0, drawn[:, 1].sum()), draws=DRAWS)


def check_same(one: Outcomes, other: Outcomes) -> None:
    """Raise ScoringError if two rows did not answer the same questions."""
    if not np.array_equal(one.needs, other.needs):
        raise ScoringError("rows answered different questions: only answers to the same ones are compared")


def _share(right: np.ndarray, mask: np.ndarray) -> float:
    return 100 * float(right[mask].mean())
