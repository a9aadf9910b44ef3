"""VideoFlexTok Table 2: flat 1D registers against 2D registers of latent frames.

    python reproductions/videoflextok/table2.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in the form of their registers,
with all tokens; and those of `evatok.experiments.sample`: generators on both.

Expected (paper, Kinetics-600, d12-d12): rFVD 48.9 flat, 69.9 of latent frames; gFVD 352.1 and 287.6.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from evatok.reporting import claims, flextok, flextok_generation
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row
from evatok.reporting.flextok import FlexSpec, FlexTable
from evatok.reporting.flextok_generation import GeneratorSpec, GeneratorTable

_COMMON = {"stage": 1, "decoder_mask": "causal", "alignment": True, "kept": "powers"}


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """Flat registers reconstruct better."""
    return [
        claims.better(rows, "flat 1D", "2D", "rfvd", "rFVD 48.9 against 69.9"),
        claims.better(rows, "flat 1D, one step", "2D, one step", "l1", "-"),
    ]


TABLE = FlexTable(
    name="table2",
    item="VideoFlexTok Table 2, flat 1D against 2D registers, reconstruction",
    specs=tuple(
        FlexSpec(name + told, {**_COMMON, "form": form}, flow_steps=steps, keys=keys)
        for steps, told in ((flextok.SAMPLED, ""), (1, ", one step"))
        for name, form, keys in (("flat 1D", "flat", "form=flat"), ("2D", "flexible", ""))
    ),
    columns=("psnr", "l1", "rfvd", "gfvd"),
    claims_of=claims_of,
    note="2D registers are of the form flexible, ours: across frames they see only registers of their rank and below.",
)


def generation_claims(rows: Mapping[str, Row]) -> list[Sign]:
    """Registers of latent frames generate better."""
    return [
        claims.better(rows, "2D", "flat 1D", "gfvd", "gFVD 287.6 against 352.1"),
        claims.better(rows, "2D, few tokens", "flat 1D, few tokens", "gfvd", "-"),
    ]


GENERATED = GeneratorTable(
    name="table2_generation",
    item="VideoFlexTok Table 2, flat 1D against 2D registers, generation",
    specs=(
        GeneratorSpec("flat 1D", {"form": "flat"}, order="flat"),
        GeneratorSpec("2D", {"form": "flexible", "decoder_mask": "causal"}),
        GeneratorSpec("flat 1D, few tokens", {"form": "flat"}, order="flat", kept=4),
        GeneratorSpec("2D, few tokens", {"form": "flexible", "decoder_mask": "causal"}, kept=4),
    ),
    claims_of=generation_claims,
    note="Few tokens are 4 per latent frame.",
)


def run(results: Path) -> None:
    flextok.publish(TABLE, results)
    flextok_generation.publish(GENERATED, results)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "table2", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
