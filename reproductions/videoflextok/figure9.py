"""VideoFlexTok Fig. 9, the reconstruction side: with and without alignment of the decoder (REPA), at each length.

    python reproductions/videoflextok/figure9.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their alignment. The paper
plots gFVD and class score of generators on both, which this table does not have; it has no numbers.

Expected (paper, plot): alignment helps most at few tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_tables import Row
from evatok.reporting.flextok import FlexSpec, FlexTable

KEPT = (1, 4, None)
_COMMON = {"stage": 1, "form": "flexible", "decoder_mask": "causal", "kept": "powers"}


def _name(aligned: bool, tokens: int | None) -> str:
    return f"{'aligned' if aligned else 'unaligned'}, {'all' if tokens is None else tokens} tokens"


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """The aligned tokenizer has the lower rFVD at every length."""
    said = "better at few tokens (plot of gFVD)"
    return [claims.better(rows, _name(True, k), _name(False, k), "rfvd", said) for k in KEPT]


TABLE = FlexTable(
    name="figure9",
    item="VideoFlexTok Figure 9, with and without alignment, reconstruction",
    specs=tuple(
        FlexSpec(
            _name(aligned, tokens),
            {**_COMMON, "alignment": aligned},
            tokens=tokens,
            keys="" if aligned else "alignment=none",
        )
        for tokens in KEPT
        for aligned in (True, False)
    ),
    columns=("psnr", "l1", "rfvd", "motion_ratio", "motion_correlation"),
    claims_of=claims_of,
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "figure9", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
