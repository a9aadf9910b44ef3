"""VideoFlexTok's token arithmetic: 672 tokens against 5,376 for 81 frames (Fig. 1, Sec. 3.4, 4.4), and its sizes.

    python reproductions/videoflextok/tokens.py            seconds; no GPU, no download

Nothing is measured: the numbers follow from the configurations `paper` and `paper-d28`, their chunks and their layers,
and are computed from the code that tokenizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import claims, flextok, flextok_arithmetic, tables
from evatok.reporting.claims import FAILS, HOLDS, Sign
from evatok.reporting.tables import Cell

ITEM = "VideoFlexTok's token arithmetic"
SOURCE = "arithmetic"
WITHIN = 0.01
"""Tolerance of a computed number of parameters against the paper's rounded one."""


def claims_of(found: dict[tuple[str, str], float], paper: dict[tuple[str, str], float]) -> list[Sign]:
    """Every number of the paper, exactly; parameters within 1 %."""
    signs = []
    for (row, metric), value in paper.items():
        ours = found[(row, metric)]
        exact = ours == value or (metric.endswith("parameters") and abs(ours / value - 1) <= WITHIN)
        signs.append(Sign(f"{row}, {metric}", f"{value:g}", f"{ours:.5g}", HOLDS if exact else FAILS))
    return signs


def run(results: Path) -> None:
    paper = tables.paper_values("videoflextok_tokens")
    found = flextok_arithmetic.computed()
    units = {"tokens": "tokens", "bytes_ratio": ""}
    cells = [
        Cell(row, metric, paper.get((row, metric)), float(value), units.get(metric, "M"), 1, "paper", SOURCE)
        for (row, metric), value in found.items()
    ]
    caption = f"{ITEM}. Ours (paper): computed from the configurations, nothing is measured."
    tables.Table("videoflextok_tokens", caption, cells, right=("n",)).publish(results)
    decides = f"Numbers are compared as they are, parameters within {WITHIN:.0%}."
    claims.publish(claims_of(found, paper), results, "videoflextok_tokens_signs", ITEM, decides)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "tokens", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
