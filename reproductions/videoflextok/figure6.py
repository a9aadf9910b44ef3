"""VideoFlexTok Fig. 6: class score and gFVD over the generator's size, its training tokens, and its training FLOPs.

    python reproductions/videoflextok/figure6.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample` of time-first generators and of generators on the 3D grid, and writes
results/figures/videoflextok_figure6.{svg,csv}. Compute-optimal trainings take 20 tokens per weight of the layers; the
paper's right panel is of text-to-video models, ours of classes.

Expected (paper, plots): with few tokens the smallest generator reaches what the grid's reaches at 5 to 10 times its
size, or with 5 to 10 times its training tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import final_tables, flextok, flextok_generation, flextok_sweeps

ITEM = "VideoFlexTok Figure 6, generators over size, training tokens and FLOPs"
NAME = "videoflextok_figure6"


def run(results: Path) -> None:
    found = flextok_sweeps.points_of(flextok_generation.sampled(results / "records"))
    sweeps = flextok_sweeps.sweeps_of(found)
    if sweeps:
        frame = flextok_sweeps.draw(sweeps, results / "figures", NAME)
        print(frame.drop(columns="record").to_markdown(index=False) + "\n")
    flextok.publish_claims(flextok_sweeps.claims_of(sweeps), NAME, ITEM, results)
    complete = len(sweeps) == 3
    final_tables.tell(
        [] if complete else ["  python -m evatok.experiments.make videoflextok-generators videoflextok-sweeps"]
    )


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure6", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
