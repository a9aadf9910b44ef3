"""VideoFlexTok Fig. 8: long clips generated from few tokens: do they join, and keep their class?

    python reproductions/videoflextok/figure8.py            seconds; no GPU, no download, no PyTorch

Reads the newest record of `evatok.experiments.videoflextok_long_samples` and the samples that it leaves in
results/samples/videoflextok-long.npz; writes results/figures/videoflextok_figure8.{png,webp}. `long.py` has the seams
of reconstructions.

Expected (paper, pictures of 81 frames): consistent clips from 672 tokens, where a 3D grid takes 5,376.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import flextok, flextok_long_samples, flextok_pictures
from evatok.reporting.flextok import RecordTable

TABLE = RecordTable(
    name="figure8",
    experiment="long_samples",
    item="VideoFlexTok Figure 8, long clips from few tokens, generation",
    caption_of=lambda record: (
        f"Ours, {record.protocol['samples']} samples of {record.protocol['frames']} frames; windows are those of the "
        "classifier, one after the other. The paper shows pictures and no numbers."
    ),
    cells_of=flextok_long_samples.cells_of,
    claims_of=flextok_long_samples.claims_of,
    command="python -m evatok.experiments.make videoflextok-long-samples",
)


def run(results: Path) -> None:
    for path in flextok_pictures.draw(results, "videoflextok-long.npz", "videoflextok_figure8", frames=16):
        print(path)
    flextok.publish_record(TABLE, results)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure8", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
