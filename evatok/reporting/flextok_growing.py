"""One sequence decoded from more and more of its tokens: cells and claims of `evatok.experiments.videoflextok_growing`.

The paper shows pictures; the numerical claim about ours is that every doubling of the tokens brings a sample closer to
the one from all of them.
"""

from __future__ import annotations

import itertools
import re

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.tables import Cell
from evatok.storage.records import Metric, Record

_NAME = re.compile(r"l1_k(\d+)")


def _levels(record: Record) -> dict[int, Metric]:
    found = {name: match for name in record.metrics if (match := _NAME.fullmatch(name))}
    return dict(sorted((int(match[1]), record.metrics[name]) for name, match in found.items()))


def cells_of(record: Record) -> list[Cell]:
    """Return a row per number of tokens."""
    return [Cell.of_record(_row(kept), "l1", metric, record) for kept, metric in _levels(record).items()]


def claims_of(record: Record) -> list[Sign]:
    """Each number of tokens is closer to all of them than the previous one."""
    signs = []
    for (fewer, far), (more, near) in itertools.pairwise(_levels(record).items()):
        half = claims.joint(near.spread, far.spread)
        remark = "no interval" if half is None else f"± {half:.4f}"
        told = f"{near.value:.4f} against {far.value:.4f} ({remark}; n = {near.n})"
        name = f"{_row(more)} nearer to all of them than {fewer}, L1"
        verdict = claims.verdict(claims.around(far.value - near.value, half))
        signs.append(Sign(name, "details follow (pictures)", told, verdict))
    return signs


def _row(kept: int) -> str:
    return f"{flextok.counted(kept)} per latent frame"
