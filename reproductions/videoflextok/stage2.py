"""VideoFlexTok F.1: the effect of the second stage, full attention on a frozen encoder, against a control.

    python reproductions/videoflextok/stage2.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: decoders fine-tuned for the same steps with full and with causal
attention, at few and at all tokens. The paper has no numbers and no control: it says that full attention gives more
consistent reconstructions and better fidelity.
"""

from __future__ import annotations

import sys

from evatok.reporting import flextok
from evatok.reporting.flextok_lengths import Variant, lengths_table

TABLE = lengths_table(
    "stage2",
    "VideoFlexTok F.1, stage 2 with full attention against causal fine-tuning",
    better=Variant("full", {"stage": 2, "decoder_mask": "full"}, keys="decoder_mask=full"),
    other=Variant("causal", {"stage": 2, "decoder_mask": "causal"}, keys="decoder_mask=causal"),
    said="better overall fidelity (no number)",
    stage="stage2",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "stage2", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
