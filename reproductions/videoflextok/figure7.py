"""VideoFlexTok Figures 5 and 7: one generator stopped at any number of tokens, against the 3D grid with all of them.

    python reproductions/videoflextok/figure7.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample`: a time-first generator at each length, and a generator of equal size
and training on the tokens of the 3D grid. Beside the table it writes results/figures/videoflextok_figure7.{svg,csv},
for tokenizers of each training, with the class score of their reconstructions, which generators can be expected to
reach at most.

Expected (paper, plots): the class score at every length is at least the grid's, and gFVD is not worst at few tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from evatok.reporting import claims, flextok, flextok_curves, flextok_generation, flextok_lengths
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row
from evatok.reporting.flextok_generation import GeneratorSpec, GeneratorTable

KEPT = (1, 2, 4, 8, None)
GRID = "3D grid, all tokens"


def _name(kept: int | None) -> str:
    return f"time-first, {flextok.counted(kept)}"


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """At few tokens the class is followed as well as with the grid, and fidelity is as good."""
    said = {"class_consistency": "score above the grid's (plot)", "gfvd": "equal or better (plot)"}
    return [
        claims.better(rows, _name(kept), GRID, metric, words, or_equal=True)
        for kept in (4, None)
        for metric, words in said.items()
    ]


TABLE = GeneratorTable(
    name="figure7",
    item="VideoFlexTok Figure 7, one generator at each number of tokens",
    specs=(
        *(GeneratorSpec(_name(kept), {"form": "flexible", "decoder_mask": "causal"}, kept=kept) for kept in KEPT),
        GeneratorSpec(GRID, {"form": "grid"}, order="depth-first"),
    ),
    claims_of=claims_of,
)


PANELS = {"class_consistency": "clips that show their class (%)", "gfvd": "gFVD"}


def run(results: Path) -> None:
    flextok_generation.publish(TABLE, results)
    frame = flextok_lengths.frame_of(flextok_generation.by_training(TABLE, results), GRID)
    if len(frame):
        flextok_curves.draw_lengths(frame, PANELS, results / "figures", "videoflextok_figure7")


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure7", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
