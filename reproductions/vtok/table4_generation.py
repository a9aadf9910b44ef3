"""VTok Table 4 in the paper's sense: generation strategies, judged by what their samples show.

    python reproductions/vtok/table4_generation.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_align` (`python reproductions/vtok/generation.py` makes them). Before
anything is claimed, clips that the decoder makes of true tokens must answer 75 % of the questions correctly. `flow` and
`mse` are other interpretations of how the paper's continuous tokens are written.

Expected (paper, TV-Align): no tokens 40.5 < 4 frames 42.0 < 8 frames 42.4 < VTok 43.9 %.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_generated import GENERATION, gated
from evatok.reporting.vtok_tables import Rows, VtokTable, above


def claims(rows: Rows) -> list[Sign]:
    """The paper's order, VTok's lead of at least five points over no tokens, and the value of codes."""
    return gated(
        rows,
        [
            above(rows, "vtok", "none", "43.9 against 40.5", least=5),
            above(rows, "frames4", "none", "42.0 against 40.5"),
            above(rows, "frames8", "frames4", "42.4 against 42.0"),
            above(rows, "vtok", "frames4", "43.9 against 42.0"),
            above(rows, "vtok", "frames8", "43.9 against 42.4"),
            above(rows, "vtok", "frames8", "47.1 against 44.5", metric="accuracy.motion"),
            above(rows, "vtok", "frames8", "42.9 against 39.9", metric="accuracy.size"),
            above(rows, "vtok", "vtok-flow", "-"),
            above(rows, "vtok", "vtok-mse", "-"),
        ],
    )


TABLE = VtokTable(
    name="vtok_table4_generation",
    caption=(
        "VTok Table 4 on moving-shapes: accuracy on questions about samples, judged by the ruler (toy).\n"
        "In brackets the paper's values, of TV-Align under Qwen2.5-VL: compare the order, not the values."
    ),
    rows=("true", "none", "frames4", "frames8", "vtok", "vtok-flow", "vtok-mse"),
    against="vtok",
    claims=claims,
    paper="vtok_table4",
    family=GENERATION,
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
