"""VideoFlexTok Fig. 9: with and without alignment of the decoder (REPA), reconstruction and generation at each length.

    python reproductions/videoflextok/figure9.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their alignment; and those of
`evatok.experiments.sample`: time-first generators on both, which the paper plots, without numbers.

Expected (paper, plot): alignment helps most at few tokens, class score and gFVD.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import flextok, flextok_generation
from evatok.reporting.flextok_lengths import Variant, generation_table, lengths_table

_COMMON = {"stage": 1, "form": "flexible", "decoder_mask": "causal", "kept": "powers"}
TABLE = lengths_table(
    "figure9",
    "VideoFlexTok Figure 9, with and without alignment, reconstruction",
    better=Variant("aligned", {**_COMMON, "alignment": True}),
    other=Variant("unaligned", {**_COMMON, "alignment": False}, keys="alignment=none"),
    said="better at few tokens (plot of gFVD)",
)
_TAUGHT = {"form": "flexible", "decoder_mask": "causal"}
_BOTH = (("gfvd", "better at few tokens (plot)"), ("class_consistency", "better at few tokens (plot)"))
GENERATED = generation_table(
    "figure9_generation",
    "VideoFlexTok Figure 9, with and without alignment, generation",
    better=Variant("aligned", {**_TAUGHT, "alignment": True}),
    other=Variant("unaligned", {**_TAUGHT, "alignment": False}),
    claims_at={1: _BOTH, 4: _BOTH},
)


def run(results: Path) -> None:
    flextok.publish(TABLE, results)
    flextok_generation.publish(GENERATED, results)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure9", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
