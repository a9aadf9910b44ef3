"""VTok Table 3 on moving-shapes: understanding with frames, with VTok swapped in untrained, and with VTok trained.

    python reproductions/vtok/table3.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_understanding` (`python reproductions/vtok/understanding.py` makes them).
The paper's only table of understanding. Its swap encodes later frames and pools each into a single token for a model
that learned on frames, without training; ours does the same to the model of 8 frames. The paper's seven benchmarks and
its 7B models are not here: only signs compare.

Expected (paper, mean of seven benchmarks): the swap +0.5 (Qwen2.5-VL) and +0.2 (LLaVA-Next) points, fine-tuned +1.8
and +2.3.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_tables import Rows, VtokTable, above, alike


def claims(rows: Rows) -> list[Sign]:
    """The swap costs nothing, training gains."""
    return [
        alike(rows, "swap", "frames8", "+0.46 and +0.19", within=3),
        above(rows, "vtok", "frames8", "+1.81 and +2.33"),
        above(rows, "vtok", "swap", "-"),
    ]


TABLE = VtokTable(
    name="vtok_table3",
    caption=(
        "VTok Table 3 on moving-shapes: accuracy on questions about real clips (toy).\n"
        "The paper's benchmarks and models are others, so none of its values stands here: "
        "results/paper/vtok_table3.json has them."
    ),
    rows=("none", "frames4", "frames8", "swap", "vtok"),
    against="frames8",
    claims=claims,
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
