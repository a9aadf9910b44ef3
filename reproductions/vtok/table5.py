"""VTok Table 5, ours in its understanding form: tokens for the key frame, and motion tokens per second.

    python reproductions/vtok/table5.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_understanding` (`python reproductions/vtok/understanding.py` makes them).
The paper's table is of generated videos. It labels the rows of motion "frames per motion token", but its token counts
match that many motion tokens per second; and it prints 30 where 1 + 30 is 31.

Expected (paper, TV-Align): key frame 1 / 4 / 9 / 16 / 25 tokens 41.9 / 42.8 / 43.3 / 43.9 / 44.0 %; motion 3 / 6 / 12
per second 42.6 / 43.9 / 44.1 %.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_tables import Rows, VtokTable, above, alike


def claims(rows: Rows) -> list[Sign]:
    """Both ablations rise and level off."""
    return [
        above(rows, "key1", "none", "41.9 against 40.5"),
        above(rows, "key4", "key1", "42.8 against 41.9"),
        above(rows, "vtok", "key4", "43.9 against 42.8"),
        above(rows, "vtok", "key1", "43.9 against 41.9", least=5),
        alike(rows, "key25", "vtok", "44.0 against 43.9", within=2),
        above(rows, "vtok", "motion3", "43.9 against 42.6"),
        above(rows, "vtok", "motion3", "-", metric="accuracy.brief"),
        above(rows, "vtok", "motion3", "-", metric="accuracy.path"),
        alike(rows, "motion12", "vtok", "44.1 against 43.9", within=3),
    ]


TABLE = VtokTable(
    name="vtok_table5",
    caption=(
        "VTok Table 5, understanding form: accuracy on questions about real clips of moving-shapes (toy).\n"
        "The paper's values, in brackets, are of generated videos under TV-Align: compare the order, not the values."
    ),
    rows=("none", "key1", "key4", "key9", "vtok", "key25", "motion3", "motion12"),
    against="vtok",
    claims=claims,
    paper="vtok_table5",
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
