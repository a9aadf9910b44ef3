"""VideoFlexTok Fig. 10, the reconstruction side: full and time-causal attention of the decoder, at each length.

    python reproductions/videoflextok/figure10.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their decoder's mask. The paper
plots gFVD and class score of generators on both, which this table does not have; it has no numbers.

Expected (paper, Table 3): a full decoder reconstructs better; its generators are worse at few tokens (plot).
"""

from __future__ import annotations

import sys

from evatok.reporting import flextok
from evatok.reporting.flextok_lengths import Variant, lengths_table

_COMMON = {"stage": 1, "form": "flexible", "alignment": True, "kept": "powers"}
TABLE = lengths_table(
    "figure10",
    "VideoFlexTok Figure 10, attention of the decoder in stage 1, reconstruction at each length",
    better=Variant("full", {**_COMMON, "decoder_mask": "full"}, keys="decoder_mask=full"),
    other=Variant("causal", {**_COMMON, "decoder_mask": "causal"}),
    said="rFVD 58.3 against 80.9 with all tokens",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "figure10", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
