"""VideoFlexTok Table 3: full against time-causal attention in the decoder.

    python reproductions/videoflextok/table3.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1 that differ in their decoder's mask, with all
tokens; and those of `evatok.experiments.sample`: generators on both.

Expected (paper, Kinetics-600, d12-d12): rFVD 58.3 full, 80.9 time-causal; gFVD with 32 tokens 211.5 and 175.1.
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

_COMMON = {"stage": 1, "form": "flexible", "alignment": True, "kept": "powers"}


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """A full decoder reconstructs better."""
    return [
        claims.better(rows, "full", "time-causal", "rfvd", "rFVD 58.3 against 80.9"),
        claims.better(rows, "full, one step", "time-causal, one step", "l1", "-"),
    ]


TABLE = FlexTable(
    name="table3",
    item="VideoFlexTok Table 3, attention of the decoder in stage 1, reconstruction",
    specs=tuple(
        FlexSpec(name + told, {**_COMMON, "decoder_mask": mask}, flow_steps=steps, keys=keys)
        for steps, told in ((flextok.SAMPLED, ""), (1, ", one step"))
        for name, mask, keys in (("full", "full", "decoder_mask=full"), ("time-causal", "causal", ""))
    ),
    columns=("psnr", "l1", "rfvd", "gfvd"),
    claims_of=claims_of,
)


def generation_claims(rows: Mapping[str, Row]) -> list[Sign]:
    """A time-causal decoder generates better from few tokens."""
    causal, full = "time-causal, few tokens", "full, few tokens"
    return [
        claims.better(rows, causal, full, "gfvd", "gFVD 175.1 against 211.5"),
        claims.better(rows, causal, full, "class_consistency", "the higher score (plot)"),
    ]


GENERATED = GeneratorTable(
    name="table3_generation",
    item="VideoFlexTok Table 3, attention of the decoder, generation",
    specs=(
        GeneratorSpec("full, few tokens", {"form": "flexible", "decoder_mask": "full"}, kept=4),
        GeneratorSpec("time-causal, few tokens", {"form": "flexible", "decoder_mask": "causal"}, kept=4),
        GeneratorSpec("full", {"form": "flexible", "decoder_mask": "full"}),
        GeneratorSpec("time-causal", {"form": "flexible", "decoder_mask": "causal"}),
    ),
    claims_of=generation_claims,
    note="Few tokens are 4 per latent frame.",
)


def run(results: Path) -> None:
    flextok.publish(TABLE, results)
    flextok_generation.publish(GENERATED, results)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "table3", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
