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
from itertools import product
from pathlib import Path

import pandas as pd

from evatok.reporting import claims, flextok, flextok_curves, flextok_generation
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Chosen, Row
from evatok.reporting.flextok_generation import CEILING, GeneratorSpec, GeneratorTable

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
MEASURED = {
    "class_consistency": {"samples": "class_consistency", "reconstructions": CEILING},
    "gfvd": {"samples": "gfvd"},
}
"""For each panel, what of the clips is drawn, and its metric."""


def frame_of(trainings: Mapping[int, Chosen]) -> pd.DataFrame:
    """Return a line per metric, row and training: panel, series, tokens per latent frame, value, and its records.

    Args:
        trainings: rows by the steps of the tokenizers' training.
    """
    lines = []
    for (panel, told), (steps, chosen) in product(MEASURED.items(), trainings.items()):
        for (clips, metric), (name, row) in product(told.items(), chosen.rows.items()):
            if (value := row.value(metric)) is not None:
                record, grid = row.records[-1], name == GRID
                series = f"{'3D grid' if grid else 'registers'}, {steps:,} steps"
                point = (record.model["kept"], value.value, value.n, record.status, " ".join(value.ids))
                lines.append((panel, series, clips, grid, *point))
    columns = ["metric", "series", "clips", "at_all", "tokens", "value", "n", "status", "record"]
    return pd.DataFrame(lines, columns=columns)


def run(results: Path) -> None:
    flextok_generation.publish(TABLE, results)
    frame = frame_of(flextok_generation.by_training(TABLE, results))
    if len(frame):
        flextok_curves.draw_lengths(frame, PANELS, results / "figures", "videoflextok_figure7")


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure7", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
