"""VTok against frames with four times the clips and steps, no item of the paper: do frames learn motion then?

    python reproductions/vtok/longer.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_understanding` with 16,000 clips and 6,000 steps
(`python reproductions/vtok/understanding.py --of longer` makes them). At the usual training, eight frames answer
questions about motion no better than chance (Table 4), so that what VTok gains there says nothing yet about its tokens.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_rows import LONGER_TRAINED
from evatok.reporting.vtok_tables import Rows, VtokTable, above, reaches


def claims(rows: Rows) -> list[Sign]:
    """The gate of Table 4, and its claims about VTok and frames."""
    return [
        reaches(rows, "frames8", "accuracy.motion", 40, "gate: below it the frames' training has not converged"),
        above(rows, "vtok", "frames8", "43.9 against 42.4"),
        above(rows, "vtok", "frames8", "47.1 against 44.5", metric="accuracy.motion"),
        above(rows, "vtok", "frames8", "33.7 against 32.5", metric="accuracy.counting"),
        above(rows, "vtok", "frames8", "42.9 against 39.9", metric="accuracy.size"),
        above(rows, "vtok", "frames8", "-", metric="accuracy.late"),
        above(rows, "vtok", "previous", "-"),
    ]


TABLE = VtokTable(
    name="vtok_longer",
    caption=(
        "VTok and frames with four times the clips and steps, no item of the paper: questions about clips of "
        "moving-shapes (toy).\n16,000 clips, 6,000 steps; otherwise as in Table 4."
    ),
    rows=tuple(LONGER_TRAINED.specs),
    against="vtok",
    claims=claims,
    family=LONGER_TRAINED,
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
