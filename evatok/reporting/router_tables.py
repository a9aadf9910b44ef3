"""Table 3 from its records, and the picture of clips with the tokens per block a router chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evatok.evaluation import router_quality, router_study
from evatok.evaluation.router_study import Comparison, Shelf
from evatok.pictures.contact_sheet import contact_sheet
from evatok.reporting import claims, router_claims, tables
from evatok.reporting.tables import Cell, Table
from evatok.storage.records import Record

NAMES = {"matched": "table3", "wq1.2": "table3_wq1.2", "st-lpips": "table3_st_lpips"}
"""Tables by operating point."""
METRICS = ("top1", "top5", "percentile")
PICTURED, FRAMES = 8, 8
"""Number of clips in a picture, and roughly how many frames it shows of each."""


def publish(
    name: str,
    found: Mapping[str, Record | None],
    shelf: Shelf,
    comparison: Comparison,
    what: str = "",
) -> None:
    """Write and print the table of all sets by one reward, and the claims about its routers.

    `found` has the record of each set; without one, only the paper's values are shown. `what` describes the reward, by
    default that of the shipped routers.
    """
    paper = tables.paper_values("table3")
    routers = list(comparison.routers)
    cells = [
        cell for row, record in found.items() for cell in to_cells(record, row, shelf.size, paper, routers=routers)
    ]
    Table(name, caption(shelf.size, comparison, what), cells, right=("n",)).publish(shelf.root)
    if not routers:  # claims are about routers
        return
    item = f"supplement Table 3 at the operating point {comparison.name}"
    signs = router_claims.signs(found, paper, routers)
    claims.publish(signs, shelf.root, f"{name}_signs", item, router_claims.DECIDES)


def to_cells(
    record: Record | None,
    row: str,
    size: str,
    paper: Mapping[tuple[str, str], float],
    routers: Sequence[str] = tuple(router_study.ROUTERS),
) -> list[Cell]:
    """Return cells of one set: every measured row, or only the paper's if nothing was ever measured."""
    cells = []
    simple = [name for name in router_quality.SIMPLE if name != "best_uniform"]
    names = ["best_uniform", *routers, *simple]
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


def caption(size: str, comparison: Comparison, what: str = "") -> str:
    point = comparison.point
    weights = f"w_q = {point.w_q:.3f}, w_l = {2 - point.w_q:.3f}"
    return (
        f"Supplement Table 3, ours (paper), in percent; {size} size, quality {point.metric}, "
        f"{weights}: {what or _shipped(comparison)}."
    )


def _shipped(comparison: Comparison) -> str:
    """Describe the reward of the shipped routers."""
    baseline = comparison.routers["router"].config.candidates.baseline
    return {
        "matched": f"solved for, so that the best assignments average 0.70 of the tokens of {baseline} per block",
        "wq1.2": "the paper's weight",
        "st-lpips": "the paper's weight, and the quality nearest to its LPIPS, of one frame per block",
    }[comparison.name]


def picture(shelf: Shelf, clips: np.ndarray, rows: np.ndarray, file: str) -> Path:
    """Draw some of the clips (N, T, H, W, 3), from few tokens to many, with the tokens (N, K) per block (Fig. 1)."""
    order = np.argsort(rows.sum(1), kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(PICTURED, len(order))).astype(int)]
    captions = [f"clip {i}, {rows[i].sum()} tokens" for i in picked]
    blocks = rows.shape[1]
    frames = blocks * max(1, min(FRAMES, clips.shape[1]) // blocks)
    sheet = contact_sheet(clips[picked], captions, frames=frames, assignments=rows[picked])
    path = shelf.root / "figures" / f"{file}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path
