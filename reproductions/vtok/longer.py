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
from evatok.reporting.vtok_tables import Rows, VtokTable, above, gate, over_frames


def claims(rows: Rows) -> list[Sign]:
    """The gate of Table 4, and its claims about VTok and frames."""
    return [
        gate(rows),
        *over_frames(rows),
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
