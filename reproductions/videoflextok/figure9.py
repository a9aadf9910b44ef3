"""VideoFlexTok Fig. 9, the reconstruction side: with and without alignment of the decoder (REPA), at each length.

    python reproductions/videoflextok/figure9.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their alignment. The paper
plots gFVD and class score of generators on both, which this table does not have; it has no numbers.

Expected (paper, plot): alignment helps most at few tokens.
"""

from __future__ import annotations

import sys

from evatok.reporting import flextok
from evatok.reporting.flextok_lengths import Variant, lengths_table

_COMMON = {"stage": 1, "form": "flexible", "decoder_mask": "causal", "kept": "powers"}
TABLE = lengths_table(
    "figure9",
    "VideoFlexTok Figure 9, with and without alignment, reconstruction",
    better=Variant("aligned", {**_COMMON, "alignment": True}),
    other=Variant("unaligned", {**_COMMON, "alignment": False}, keys="alignment=none"),
    said="better at few tokens (plot of gFVD)",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "figure9", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
