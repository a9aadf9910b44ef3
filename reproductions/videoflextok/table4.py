"""VideoFlexTok Table 4: the order in which an autoregressive model writes tokens, time-first or depth-first.

    python reproductions/videoflextok/table4.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample`: generators of both orders on the codes of one tokenizer. Time-first
sequences can be cut after a few tokens of every latent frame, depth-first ones cannot.

Expected (paper): no difference with all tokens (246.6 and 242.6), and clearly better with 4 per latent frame (151.1).
No difference is stated as one of at most 2 %: the paper's two values are 1.6 % apart, and few tokens gain 38 %.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, flextok, flextok_generation
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row
from evatok.reporting.flextok_generation import GeneratorSpec, GeneratorTable

_2D = {"form": "flexible", "decoder_mask": "causal"}
DEPTH, TIME, FEW = "depth-first, all tokens", "time-first, all tokens", "time-first, few tokens"
WITHIN = 0.02
"""Share of gFVD by which orders that do not differ may differ: what the paper calls no difference, rounded up."""


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """Few tokens are better than all of them in either order; with all of them the orders are alike."""
    signs = [claims.better(rows, FEW, other, "gfvd", "151.1 against 246.6 and 242.6") for other in (DEPTH, TIME)]
    return [*signs, flextok_generation.alike(rows, DEPTH, TIME, "gfvd", "246.6 and 242.6 (1.6 % apart)", within=WITHIN)]


TABLE = GeneratorTable(
    name="table4",
    item="VideoFlexTok Table 4, orders of the tokens",
    specs=(
        GeneratorSpec(DEPTH, _2D, order="depth-first"),
        GeneratorSpec(TIME, _2D),
        GeneratorSpec(FEW, _2D, kept=4),
    ),
    claims_of=claims_of,
    note="Few tokens are 4 per latent frame.",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok_generation.publish(TABLE, results), "table4", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
