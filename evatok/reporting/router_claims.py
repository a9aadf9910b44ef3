"""Claims about Table 3: routers against the best uniform assignment per clip, and against one for all clips.

The paper compares with the first; the second, chosen in hindsight on the very same clips, is a control it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from evatok.evaluation.router_study import ROUTERS
from evatok.metrics import catalogue
from evatok.reporting.claims import NO_INTERVAL, RULE, UNKNOWN, Sign, around, verdict
from evatok.storage.records import Metric, Record

RIVALS = ("best_uniform", "best_fixed")
DECIDES = (
    f"{RULE}. The half-interval after ± is 1.96 times the root of the summed squares of both rows' standard errors "
    "over draws of clips, as if they were of different clips."
)


def signs(
    found: Mapping[str, Record | None], paper: Mapping[tuple[str, str], float], routers: Iterable[str] = ROUTERS
) -> list[Sign]:
    """Return the claims about every set, from its record at one operating point."""
    return [
        better(row, record, name, rival, paper) for row, record in found.items() for rival in RIVALS for name in routers
    ]


def better(row: str, record: Record | None, name: str, rival: str, paper: Mapping[tuple[str, str], float]) -> Sign:
    """One choice has a higher percentile than another on the same clips."""
    entry = catalogue.of("percentile")
    claim = f"{row}: {name} better than {rival}, {entry.label}"
    printed = [paper[key] for choice in (name, rival) if (key := (f"{row}/{choice}", entry.name)) in paper]
    cited = " against ".join(f"{value:.{entry.decimals}f}" for value in printed) + " %" if len(printed) == 2 else "-"
    metrics = {} if record is None else record.metrics
    ours, other = (metrics.get(f"{choice}.{entry.name}") for choice in (name, rival))
    if ours is None or other is None:
        return Sign(claim, cited, "-", UNKNOWN)
    half = _half(ours, other)
    remark = NO_INTERVAL if half is None else f"± {half:.{entry.decimals}f}"
    told = f"{ours.value:.{entry.decimals}f} against {other.value:.{entry.decimals}f} % ({remark})"
    return Sign(claim, cited, told, verdict(around(ours.value - other.value, half)))


def _half(one: Metric, other: Metric) -> float | None:
    """Return half the 95 % interval of the difference of two values with recorded standard errors."""
    if one.spread is None or other.spread is None:
        return None
    return 1.96 * math.hypot(one.spread, other.spread)
