"""VTok on Freedoom's clips, no item of the paper: what the camera does, asked with the tokens of each strategy.

    python reproductions/vtok/freedoom.py          seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_understanding` under the protocol freedoom-understanding
(`python reproductions/vtok/understanding.py --of freedoom` makes them). All of the picture changes when a camera moves,
so that the difference to the first frame soon tells no more than that: here VTok may lose. The control `previous`
subtracts the frame before instead. A classifier that sees all pixels names 63 % (reproductions/README.md).
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_rows import CAMERA
from evatok.reporting.vtok_tables import Rows, VtokTable, above


def claims(rows: Rows) -> list[Sign]:
    """What the paper's table leads one to expect in another domain, and where it may fail."""
    return [
        above(rows, "key", "none", "-"),
        above(rows, "vtok", "key", "-"),
        above(rows, "vtok", "frames4", "43.9 against 42.0 (Table 4)"),
        above(rows, "vtok", "frames8", "43.9 against 42.4 (Table 4)"),
        above(rows, "previous", "vtok", "-"),
    ]


TABLE = VtokTable(
    name="vtok_freedoom",
    caption=(
        "VTok on Freedoom's clips, no item of the paper: what the camera does, one of six motions (toy).\n"
        "As many clips of each motion, so chance is 16.7 %."
    ),
    rows=tuple(CAMERA.specs),
    against="vtok",
    claims=claims,
    family=CAMERA,
    categories=("motion",),
    needs=("key", "path"),
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
