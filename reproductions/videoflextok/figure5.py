"""VideoFlexTok Fig. 5: samples of one condition from more and more tokens, as pictures.

    python reproductions/videoflextok/figure5.py            seconds; no GPU, no download, no PyTorch

Reads results/samples/videoflextok-growing.npz and the newest record of `evatok.experiments.videoflextok_growing`, which
writes it: each sequence of a time-first generator, decoded from its first tokens of every latent frame. Writes
results/figures/videoflextok_figure5.{png,webp}.

Expected (paper, pictures): the first tokens fix what is seen and how it moves, later ones add detail.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import flextok, flextok_growing, flextok_pictures
from evatok.reporting.flextok import RecordTable

TABLE = RecordTable(
    name="figure5",
    experiment="growing",
    item="VideoFlexTok Figure 5, one condition at growing numbers of tokens",
    caption_of=lambda record: (
        f"Ours, L1 of {record.protocol['samples']} samples to the same ones of all tokens; after ± half the 95 % "
        "interval. The paper shows pictures and no numbers."
    ),
    cells_of=flextok_growing.cells_of,
    claims_of=flextok_growing.claims_of,
    command="python -m evatok.experiments.make videoflextok-growing",
)


def run(results: Path) -> None:
    for path in flextok_pictures.draw(results, "videoflextok-growing.npz", "videoflextok_figure5"):
        print(path)
    flextok.publish_record(TABLE, results)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure5", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
