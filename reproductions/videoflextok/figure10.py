"""VideoFlexTok Fig. 10: full against time-causal decoder attention, reconstruction and generation at each length.

    python reproductions/videoflextok/figure10.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their decoder's mask; and those
of `evatok.experiments.sample`: time-first generators on both, which the paper plots, without numbers.

Expected (paper, Table 3): a full decoder reconstructs better; its generators are worse at few tokens (plot).
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import flextok, flextok_generation
from evatok.reporting.flextok_lengths import Variant, generation_table, lengths_table

_COMMON = {"stage": 1, "form": "flexible", "alignment": True, "kept": "powers"}
TABLE = lengths_table(
    "figure10",
    "VideoFlexTok Figure 10, attention of the decoder in stage 1, reconstruction at each length",
    better=Variant("full", {**_COMMON, "decoder_mask": "full"}, keys="decoder_mask=full"),
    other=Variant("causal", {**_COMMON, "decoder_mask": "causal"}),
    said="rFVD 58.3 against 80.9 with all tokens",
)
_TAUGHT = {"form": "flexible", "alignment": True}
_SCORE = ("class_consistency", "the higher score at few tokens (plot)")
GENERATED = generation_table(
    "figure10_generation",
    "VideoFlexTok Figure 10, attention of the decoder in stage 1, generation at each length",
    better=Variant("causal", {**_TAUGHT, "decoder_mask": "causal"}),
    other=Variant("full", {**_TAUGHT, "decoder_mask": "full"}),
    claims_at={1: (_SCORE,), 4: (_SCORE, ("gfvd", "gFVD 175.1 against 211.5"))},
)


def run(results: Path) -> None:
    flextok.publish(TABLE, results)
    flextok_generation.publish(GENERATED, results)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure10", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
