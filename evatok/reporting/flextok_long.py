"""Long clips in chunks: cells and claims from a record of `evatok.experiments.videoflextok_long`."""

from __future__ import annotations

import re

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.tables import Cell
from evatok.storage.records import Metric, Record

BOUND = 1.5
"""The largest seam ratio at which chunks count as joined; our choice, as the paper shows pictures."""
_NAME = re.compile(r"(psnr|seam_ratio|tokens)_k(\d+)_(conditioned|alone)")


def claims_of(record: Record) -> list[Sign]:
    """Claim: conditioned chunks join, and better than independent ones."""
    signs = []
    for name in record.metrics:
        found = _NAME.fullmatch(name)
        if not found or found[1] != "seam_ratio" or found[3] != "conditioned":
            continue
        ours, alone = record.metrics[name], record.metrics[f"seam_ratio_k{found[2]}_alone"]
        where = f"{flextok.counted(int(found[2]))} per latent frame"
        signs.append(_sign(f"{where}: seam ratio at most {BOUND}", ours, BOUND - ours.value, ours.spread))
        gap = alone.value - ours.value
        signs.append(
            _sign(f"{where}: lower than of chunks alone", ours, gap, claims.joint(ours.spread, alone.spread), alone)
        )
    return signs


def _sign(name: str, ours: Metric, gain: float, half: float | None, other: Metric | None = None) -> Sign:
    against = f" against {other.value:.2f}" if other else ""
    told = f"{ours.value:.2f}{against} ({'no interval' if half is None else f'± {half:.2f}'}; n = {ours.n})"
    return Sign(name, "consistent (pictures)", told, claims.verdict(claims.around(gain, half)))


def cells_of(record: Record) -> list[Cell]:
    """Return a row per length and decoding mode, and one for the real clips."""
    real = record.metrics["seam_ratio_real"]
    cells = [Cell("real clips", "seam_ratio", None, real.value, real.unit, real.n, record.status, record.id)]
    for name, metric in record.metrics.items():
        if found := _NAME.fullmatch(name):
            row = f"{flextok.counted(int(found[2]))}, {found[3]}"
            cells.append(Cell(row, found[1], None, metric.value, metric.unit, metric.n, record.status, record.id))
    return cells
