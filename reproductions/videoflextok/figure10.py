"""VideoFlexTok Fig. 10, the reconstruction side: full and time-causal attention of the decoder, at each length.

    python reproductions/videoflextok/figure10.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their decoder's mask. The paper
plots gFVD and class score of generators on both, which this table does not have; it has no numbers.

Expected (paper, Table 3): a full decoder reconstructs better; its generators are worse at few tokens (plot).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_tables import Row
from evatok.reporting.flextok import FlexSpec, FlexTable

KEPT = (1, 4, None)
_COMMON = {"stage": 1, "form": "flexible", "alignment": True, "kept": "powers"}


def _name(mask: str, tokens: int | None) -> str:
    return f"{mask}, {'all' if tokens is None else tokens} tokens"


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """The full decoder has the lower rFVD at every length."""
    said = "rFVD 58.3 against 80.9 with all tokens"
    return [claims.better(rows, _name("full", k), _name("causal", k), "rfvd", said) for k in KEPT]


TABLE = FlexTable(
    name="figure10",
    item="VideoFlexTok Figure 10, attention of the decoder in stage 1, reconstruction at each length",
    specs=tuple(
        FlexSpec(
            _name(mask, tokens),
            {**_COMMON, "decoder_mask": mask},
            tokens=tokens,
            keys="decoder_mask=full" if mask == "full" else "",
        )
        for tokens in KEPT
        for mask in ("full", "causal")
    ),
    columns=("psnr", "l1", "rfvd", "motion_ratio", "motion_correlation"),
    claims_of=claims_of,
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "figure10", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
