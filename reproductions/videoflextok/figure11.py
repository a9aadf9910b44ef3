"""VideoFlexTok Figure 11: the order of tokens at an equal number of tokens, with and without generator guidance.

    python reproductions/videoflextok/figure11.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample`: generators of equal size and training on all tokens of VideoFlexTok
and of the 3D grid, which has as many.

Expected (paper, plots): VideoFlexTok has the better class score, and without guidance the better gFVD.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, flextok, flextok_generation
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row
from evatok.reporting.flextok_generation import GeneratorSpec, GeneratorTable

GUIDANCE = (1.0, 2.0)


def _name(tokens: str, guidance: float) -> str:
    return tokens if guidance == 1 else f"{tokens}, guidance {guidance:g}"


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """Coarse-to-fine order beats raster order."""
    signs = [claims.better(rows, "time-first", "3D grid", "gfvd", "better without guidance (plot)")]
    for guidance in GUIDANCE:
        pair = _name("time-first", guidance), _name("3D grid", guidance)
        signs.append(claims.better(rows, *pair, "class_consistency", "better at all scales (plot)"))
    return signs


TABLE = GeneratorTable(
    name="figure11",
    item="VideoFlexTok Figure 11, order at equal tokens",
    specs=tuple(
        GeneratorSpec(_name(tokens, guidance), facts, order=order, guidance=guidance)
        for guidance in GUIDANCE
        for tokens, facts, order in (
            ("time-first", {"form": "flexible", "decoder_mask": "causal"}, "time-first"),
            ("3D grid", {"form": "grid"}, "depth-first"),
        )
    ),
    claims_of=claims_of,
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok_generation.publish(TABLE, results), "figure11", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
