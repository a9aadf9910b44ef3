"""VideoFlexTok F.1: what the second stage brings, full attention on a frozen encoder, against a control.

    python reproductions/videoflextok/stage2.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: decoders fine-tuned for the same steps with full and with causal
attention, at few and at all tokens. The paper has no numbers and no control: it says that full attention gives more
consistent reconstructions and better fidelity.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_tables import Row
from evatok.reporting.flextok import FlexSpec, FlexTable

KEPT = (1, 4, None)


def _name(mask: str, tokens: int | None) -> str:
    return f"{mask}, {'all' if tokens is None else tokens} tokens"


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """Full attention has the lower rFVD at every length."""
    said = "better overall fidelity (no number)"
    return [claims.better(rows, _name("full", k), _name("causal", k), "rfvd", said) for k in KEPT]


TABLE = FlexTable(
    name="stage2",
    item="VideoFlexTok F.1, stage 2 with full attention against causal fine-tuning",
    specs=tuple(
        FlexSpec(_name(mask, tokens), {"stage": 2, "decoder_mask": mask}, tokens=tokens, keys=f"decoder_mask={mask}")
        for tokens in KEPT
        for mask in ("full", "causal")
    ),
    columns=("psnr", "l1", "rfvd", "motion_ratio", "motion_correlation"),
    claims_of=claims_of,
    stage="stage2",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "stage2", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
