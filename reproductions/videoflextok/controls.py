"""VideoFlexTok, controls that the paper lacks: registers without nested dropout, and the 3D grid's reconstruction.

    python reproductions/videoflextok/controls.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate`: tokenizers of stage 1, of which one was trained on all registers of
every frame (`kept=all`), at a few tokens per latent frame and at all of them; flat registers; and the grid, which has
as many tokens as all registers and no fewer. Sampled, or in one step.

Expected (the paper's premise): only nested dropout makes few tokens usable, and it costs little at all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row
from evatok.reporting.flextok import FlexSpec, FlexTable

_COMMON = {"stage": 1, "decoder_mask": "causal", "alignment": True}
_WITH = {**_COMMON, "form": "flexible", "kept": "powers"}
_WITHOUT = {**_COMMON, "form": "flexible", "kept": "all"}
_FLAT = {**_COMMON, "form": "flat", "kept": "powers"}
_GRID = {**_COMMON, "form": "grid"}
FORMS = (("nested", _WITH, ""), ("not nested", _WITHOUT, "kept=all"), ("flat", _FLAT, "form=flat"))
LENGTHS = ((1, "1 token"), (4, "4 tokens"), (None, "all tokens"))


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """Nested dropout pays at few tokens; at all of them it costs nothing."""
    few = [
        claims.better(rows, f"nested, {length}", f"not nested, {length}", metric, "-")
        for length in ("1 token", "4 tokens")
        for metric in ("psnr", "rfvd")
    ]
    whole = [
        claims.better(rows, "nested, all tokens", "not nested, all tokens", metric, "-", or_equal=True)
        for metric in ("psnr", "rfvd")
    ]
    return [*few, *whole]


TABLE = FlexTable(
    name="controls",
    item="VideoFlexTok controls of nested dropout, reconstruction",
    specs=(
        *(
            FlexSpec(f"{name}, {told}", facts, tokens=tokens, keys=keys)
            for name, facts, keys in FORMS
            for tokens, told in LENGTHS
        ),
        FlexSpec("3D grid", _GRID, keys="form=grid"),
        *(
            FlexSpec(f"{name}, one step", facts, flow_steps=1, keys=keys)
            for name, facts, keys in (*FORMS[:2], ("3D grid", _GRID, "form=grid"))
        ),
    ),
    columns=("psnr", "l1", "rfvd", "rtokens"),
    claims_of=claims_of,
    note="Tokens are per latent frame.",
)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(lambda results: flextok.publish(TABLE, results), "controls", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
