"""Table 1 of the supplement: final tokenizers after the paper's full training, with and without VideoMAE.

    python reproductions/table1.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers trained and measured under the router's assignments, with
the semantic discriminator or with the transformer's. If several training lengths are on record, the longest is shown.
The paper's third row, of UCF-101 & K600, has no counterpart among the embedded clips.

Expected (paper, WebVid validation): rFVD 7.3 with VideoMAE against 32 without; PSNR 27.37 against 28.18 dB.
"""

from __future__ import annotations

import sys

from evatok.reporting import final_tables
from evatok.reporting.final_rows import Spec, TableSpec

TRAINED = {"assignment": "router"}
TABLE = TableSpec(
    name="table1",
    item="Supplement Table 1, the longest finals",
    specs=(
        Spec("with VideoMAE", {**TRAINED, "discriminator": "semantic"}),
        Spec("without VideoMAE", {**TRAINED, "discriminator": "transformer"}),
        Spec("UCF&K600 with VideoMAE", None),
    ),
    longest=True,
)


def main(argv: list[str] | None = None) -> int:
    return final_tables.main(TABLE, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
