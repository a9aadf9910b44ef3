"""VideoFlexTok Fig. 4: tokens of one clip with the first frame of another: whose motion, and whose look?

    python reproductions/videoflextok/figure4.py            seconds; no GPU, no download, no PyTorch

Reads the newest record of `evatok.experiments.videoflextok_transfer`. The paper edits a first frame and shows pictures;
here each clip borrows the first frame of the next one.

Expected (paper, pictures): the motion of the tokens' clip, the look of the first frame.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import final_tables, flextok, flextok_transfer
from evatok.reporting.tables import Table
from evatok.storage import records

ITEM = "VideoFlexTok Figure 4, tokens of one clip with the first frame of another"
COMMAND = "python -m evatok.experiments.make videoflextok-transfer"


def run(results: Path) -> None:
    found = records.query(results / "records", kind="videoflextok_transfer")
    signs = flextok_transfer.claims_of(found[-1]) if found else []
    if found:
        caption = f"{ITEM}. Ours, {found[-1].protocol['clips']} clips: the paper shows pictures and no numbers."
        Table("videoflextok_figure4", caption, flextok_transfer.cells_of(found[-1])).publish(results)
    flextok.publish_claims(signs, "videoflextok_figure4", ITEM, results)
    final_tables.tell([] if found else [f"  {COMMAND}"])


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure4", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
