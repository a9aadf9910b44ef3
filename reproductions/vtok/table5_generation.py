"""VTok Table 5 in the paper's sense: tokens of key frame and motion, judged by what samples show.

    python reproductions/vtok/table5_generation.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_align` (`python reproductions/vtok/generation.py` makes them). The
decoder's clips have 6 frames per second, so motion at 12 per second has no row here.

Expected (paper, TV-Align): key frame 1 / 4 / 9 / 16 / 25 tokens 41.9 / 42.8 / 43.3 / 43.9 / 44.0 %; motion 3 / 6 per
second 42.6 / 43.9.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_generated import GENERATION, gated
from evatok.reporting.vtok_tables import Rows, VtokTable, above, alike


def claims(rows: Rows) -> list[Sign]:
    """Both ablations rise and level off."""
    return gated(
        rows,
        [
            above(rows, "key1", "none", "41.9 against 40.5"),
            above(rows, "key4", "key1", "42.8 against 41.9"),
            above(rows, "vtok", "key4", "43.9 against 42.8"),
            alike(rows, "key25", "vtok", "44.0 against 43.9", within=2),
            above(rows, "vtok", "motion3", "43.9 against 42.6"),
        ],
    )


TABLE = VtokTable(
    name="vtok_table5_generation",
    caption=(
        "VTok Table 5 on moving-shapes: accuracy on questions about samples, judged by the ruler (toy).\n"
        "In brackets the paper's values, of TV-Align under Qwen2.5-VL: compare the order, not the values."
    ),
    rows=("true", "none", "key1", "key4", "key9", "vtok", "key25", "motion3"),
    against="vtok",
    claims=claims,
    paper="vtok_table5",
    family=GENERATION,
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
