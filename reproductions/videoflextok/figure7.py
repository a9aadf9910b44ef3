"""VideoFlexTok Figures 5 and 7: one generator stopped at any number of tokens, against the 3D grid with all of them.

    python reproductions/videoflextok/figure7.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample`: a time-first generator at each length, and a generator of equal size
and training on the tokens of the 3D grid. Beside the table it writes results/figures/videoflextok_figure7.{svg,csv},
with the class score of the tokenizers' reconstructions, which generators can be expected to reach at most.

Expected (paper, plots): the class score at every length is at least the grid's, and gFVD is not worst at few tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from evatok.reporting import claims, flextok, flextok_curves, flextok_generation
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row
from evatok.reporting.flextok_generation import CEILING, GeneratorSpec, GeneratorTable, most_tokens

KEPT = (1, 2, 4, 8, None)
GRID = "3D grid, all tokens"


def _name(kept: int | None) -> str:
    return f"time-first, {'all' if kept is None else kept} tokens"


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


PANELS = {"class_consistency": "samples that show their class (%)", "gfvd": "gFVD"}
DRAWN = (("gfvd", "gfvd", "samples"), ("class_consistency", "class_consistency", "samples"))
DRAWN += (("class_consistency", CEILING, "reconstructions"),)
"""Panel, metric, and what of the clips a line shows."""


def frame_of(rows: Mapping[str, Row]) -> pd.DataFrame:
    """Return a line per row and metric: panel, what it is of, tokens per latent frame, value, and its records."""
    lines = []
    for metric, measured, told in DRAWN:
        for name, row in rows.items():
            if (value := row.value(measured)) is not None:
                spec, record = row.spec, row.records[-1]
                assert isinstance(spec, GeneratorSpec)
                line = f"{'3D grid' if name == GRID else 'time-first'}, {told}"
                tokens = spec.kept or most_tokens(record)
                lines.append((metric, line, tokens, value.value, value.n, record.status, " ".join(value.ids)))
    return pd.DataFrame(lines, columns=["metric", "line", "tokens", "value", "n", "status", "record"])


def run(results: Path) -> None:
    frame = frame_of(flextok_generation.publish(TABLE, results).rows)
    if len(frame):
        flextok_curves.draw_lengths(frame, PANELS, "3D grid", results / "figures", "videoflextok_figure7")


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure7", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
