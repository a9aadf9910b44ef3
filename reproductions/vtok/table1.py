"""VTok Table 1 on moving-shapes: clips generated from captions, judged by the ruler; the two dual-branch strategies.

    python reproductions/vtok/table1.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_align` (`python reproductions/vtok/generation.py` makes them): 1,001
captions, one question each, 143 of each category. The paper's base is HunyuanVideo-13B and its judge Qwen2.5-VL; ours
are one small decoder for all rows and rules on pixels. Strategies of Video-LaViT and OmniTokenizer are our readings.

Expected (paper, TV-Align): no tokens 40.5 < OmniTokenizer's 41.4 < Video-LaViT's 42.1 < VTok 43.9 %; every category
gains over no tokens, colour least.
"""

from __future__ import annotations

import sys

from evatok.data.embedded.scene_text import CATEGORIES
from evatok.reporting import vtok_tables
from evatok.reporting.claims import Sign
from evatok.reporting.vtok_generated import GENERATION, gated
from evatok.reporting.vtok_tables import Rows, VtokTable, above

GAINS = dict(zip(CATEGORIES, (2.7, 2.3, 3.3, 5.6, 1.8, 4.0, 3.7), strict=True))
"""The paper's gain of VTok over no tokens, by category, in points."""


def claims(rows: Rows) -> list[Sign]:
    """VTok above both dual-branch strategies, those above none, and a gain in every category."""
    order = [
        above(rows, "vtok", "lavit", "43.9 against 42.1"),
        above(rows, "vtok", "omni", "43.9 against 41.4"),
        above(rows, "lavit", "none", "42.1 against 40.5"),
        above(rows, "omni", "none", "41.4 against 40.5"),
    ]
    gains = [above(rows, "vtok", "none", f"+{gain}", metric=f"accuracy.{name}") for name, gain in GAINS.items()]
    return gated(rows, [*order, *gains])


TABLE = VtokTable(
    name="vtok_table1",
    caption=(
        "VTok Table 1 on moving-shapes: accuracy on questions about samples, judged by the ruler (toy).\n"
        "In brackets the paper's values, of TV-Align under Qwen2.5-VL; its models without VTok's decoder are not here."
    ),
    rows=("true", "none", "omni", "lavit", "vtok"),
    against="vtok",
    claims=claims,
    paper="vtok_table1",
    family=GENERATION,
    called={"none": "HunyuanVideo"},
)


def main(argv: list[str] | None = None) -> int:
    return vtok_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
