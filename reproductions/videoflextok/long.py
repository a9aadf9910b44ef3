"""VideoFlexTok Sec. 3.4 and Fig. 8: do the chunks of a long clip join, and what do their tokens cost?

    python reproductions/videoflextok/long.py            seconds; no GPU, no download, no PyTorch

Reads the newest record of `evatok.experiments.videoflextok_long`. The seam ratio is the change between frames at seams
over that elsewhere: of real clips about 1.

Expected (paper, pictures): given the frame before, chunks join. The bound of 1.5 is ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import final_tables, flextok, flextok_long
from evatok.reporting.tables import Table
from evatok.storage import records

ITEM = "VideoFlexTok Figure 8, long clips in chunks"
COMMAND = "python -m evatok.experiments.videoflextok_long with toy tokenizer=CHECKPOINT kept=[1,4,16]"


def run(results: Path) -> None:
    found = records.query(results / "records", kind="videoflextok_long")
    signs = flextok_long.claims_of(found[-1]) if found else []
    if found:
        caption = f"{ITEM}. Ours, of {found[-1].protocol['frames']} frames: the paper shows pictures and no numbers."
        Table("videoflextok_long", caption, flextok_long.cells_of(found[-1])).publish(results)
    flextok.publish_claims(signs, "videoflextok_long", ITEM, results)
    final_tables.tell([] if found else [f"  {COMMAND}"])


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "long", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
