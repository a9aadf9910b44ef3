"""VideoFlexTok Fig. 4: tokens of one clip with another's first frame: whose motion, and whose appearance?

    python reproductions/videoflextok/figure4.py            seconds; no GPU, no download, no PyTorch

Reads the newest record of `evatok.experiments.videoflextok_transfer`. The paper edits a first frame and shows pictures;
here each clip borrows the first frame of the next one.

Expected (paper, pictures): the motion of the tokens' clip, the appearance of the first frame.
"""

from __future__ import annotations

import sys

from evatok.reporting import flextok, flextok_transfer
from evatok.reporting.flextok import RecordTable

TABLE = RecordTable(
    name="figure4",
    experiment="transfer",
    item="VideoFlexTok Figure 4, tokens of one clip with the first frame of another",
    caption_of=lambda record: f"Ours, {record.protocol['clips']} clips: the paper shows pictures and no numbers.",
    cells_of=flextok_transfer.cells_of,
    claims_of=flextok_transfer.claims_of,
    command="python -m evatok.experiments.make videoflextok-transfer",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish_record(TABLE, results), "figure4", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
