"""VideoFlexTok Sec. 3.4 and Fig. 8: do the chunks of a long clip join, and what do their tokens cost?

    python reproductions/videoflextok/long.py            seconds; no GPU, no download, no PyTorch

Reads the newest record of `evatok.experiments.videoflextok_long`. The seam ratio is the change between frames at seams
over that elsewhere: of real clips about 1.

Expected (paper, pictures): given the frame before, chunks join. The bound of 1.5 is ours.
"""

from __future__ import annotations

import sys

from evatok.reporting import flextok, flextok_long
from evatok.reporting.flextok import RecordTable

TABLE = RecordTable(
    name="long",
    experiment="long",
    item="VideoFlexTok Figure 8, long clips in chunks",
    caption_of=lambda record: f"Ours, of {record.protocol['frames']} frames: the paper shows pictures and no numbers.",
    cells_of=flextok_long.cells_of,
    claims_of=flextok_long.claims_of,
    command="python -m evatok.experiments.videoflextok_long with toy tokenizer=CHECKPOINT kept=[1,4,16]",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish_record(TABLE, results), "long", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
