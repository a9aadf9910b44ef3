"""VTok Table 4, ours in its understanding form: tokenization strategies, answers to questions about real clips.

    python reproductions/vtok/table4.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_understanding` (`python reproductions/vtok/understanding.py` makes them).
The paper's table is of videos that a model generated, judged by another; ours asks what a model can tell of real clips
from the same tokens. Controls tell what a gain is made of: dense time without the difference (`absolute`), time without
decoupling at the same budget (`frames11x4`), the difference without place (`mean`).

Expected (paper, TV-Align): no tokens 40.5 < 4 frames 42.0 < 8 frames 42.4 < VTok 43.9 %.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_rows import CONTROLS
from evatok.reporting.vtok_tables import Rows, VtokTable, above, gate, over_frames, reaches


def claims(rows: Rows) -> list[Sign]:
    """The paper's order, what VTok should reach, and a gate: frames must have left chance on motion."""
    return [
        above(rows, "frames4", "none", "42.0 against 40.5"),
        above(rows, "frames8", "frames4", "42.4 against 42.0"),
        above(rows, "vtok", "frames4", "43.9 against 42.0"),
        *over_frames(rows),
        above(rows, "vtok", "lavit", "43.9 against 42.1 (Table 1)"),
        above(rows, "vtok", "omni", "43.9 against 41.4 (Table 1)"),
        reaches(rows, "vtok", "accuracy.direction", 60),
        reaches(rows, "vtok", "accuracy.motion", 80),
        gate(rows),
        *(above(rows, "vtok", name, "-") for name in CONTROLS),
    ]


TABLE = VtokTable(
    name="vtok_table4",
    caption=(
        "VTok Table 4, understanding form: accuracy on questions about real clips of moving-shapes (toy).\n"
        "The paper's values, in brackets, are of generated videos under TV-Align: compare the order, not the values."
    ),
    rows=("none", "frames4", "frames8", "vtok", "lavit", "omni", *CONTROLS),
    against="vtok",
    claims=claims,
    paper="vtok_table4",
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
