"""Table 3 from its records, and the picture of clips with the tokens a router gave their blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evatok.evaluation import router_quality, router_study
from evatok.evaluation.router_study import Scored, Shelf
from evatok.pictures.contact_sheet import contact_sheet
from evatok.reporting import claims, router_claims, tables
from evatok.reporting.tables import Cell, Table
from evatok.storage.records import Record

NAMES = {"matched": "table3", "wq1.2": "table3_wq1.2", "st-lpips": "table3_st_lpips"}
"""Tables by operating point."""
METRICS = ("top1", "top5", "percentile")
PICTURED = 8


def publish(name: str, found: Mapping[str, Record | None], shelf: Shelf, point: str) -> None:
    """Write and print the table of all sets at one operating point, and the claims about it.

    `found` has the record of each set; where there is none, the paper's values stand alone.
    """
    paper = tables.paper_values("table3")
    cells = [cell for row, record in found.items() for cell in to_cells(record, row, shelf.size, paper)]
    Table(name, caption(shelf, point), cells, right=("n",)).publish(shelf.root)
    item = f"supplement Table 3 at the operating point {point}"
    claims.publish(router_claims.signs(found, paper), shelf.root, f"{name}_signs", item, router_claims.DECIDES)


def to_cells(record: Record | None, row: str, size: str, paper: Mapping[tuple[str, str], float]) -> list[Cell]:
    """Cells of one set: every measured row, or the paper's alone where nothing was ever measured."""
    cells = []
    simple = [name for name in router_quality.SIMPLE if name != "best_uniform"]
    names = ["best_uniform", *router_study.ROUTERS, *simple]
    for name in names:
        for metric in METRICS:
            value = None if record is None else record.metrics.get(f"{name}.{metric}")
            printed = paper.get((f"{row}/{name}", metric))
            if value is None and printed is None:
                continue
            ours, n, spread = (None, None, None) if value is None else (value.value, value.n, value.spread)
            made_by = None if record is None else record.id
            status = "paper-only" if value is None else size
            cells.append(Cell(f"{row}/{name}", metric, printed, ours, "%", n, status, made_by, spread))
    return cells


def caption(shelf: Shelf, point: str) -> str:
    router = shelf.trained("router", point)
    weights = f"w_q = {router.point.w_q:.3f}, w_l = {2 - router.point.w_q:.3f}"
    baseline = router.config.candidates.baseline
    what = {
        "matched": f"solved for, so that the best assignments average 0.70 of the tokens of {baseline} per block",
        "wq1.2": "the paper's weight",
        "st-lpips": "the paper's weight, and the quality nearest to its LPIPS, of one frame per block",
    }[point]
    return (
        f"Supplement Table 3, ours (paper), in percent; {shelf.size} size, quality {router.point.metric}, "
        f"{weights}: {what}."
    )


def picture(shelf: Shelf, scored: Scored, file: str) -> Path:
    """Clips of a set, from few tokens to many, with the tokens each block got (main Fig. 1)."""
    rows = scored.rankings.assignments(shelf.trained("pyramid_router"))
    order = np.argsort(rows.sum(1), kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(PICTURED, len(order))).astype(int)]
    captions = [f"clip {i}, {rows[i].sum()} tokens" for i in picked]
    sheet = contact_sheet(scored.clips.clips[picked], captions, assignments=rows[picked])
    path = shelf.root / "figures" / f"{file}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path
