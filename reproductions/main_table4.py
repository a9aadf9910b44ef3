"""Main Table 4: frame prediction; clips that continue five given frames, which are regenerated.

    python reproductions/main_table4.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample` of generators trained with `task=frames`. Generated tokens include
those of the given frames: two blocks of known lengths, where nothing can be saved. The paper gives them (512, 128): the
longest and the middle one of its levels, which are also twice and half the fixed row's tokens per block. Other levels
cannot satisfy both: "EVATok" scales them with the levels, "EVATok, fewer given tokens" with the fixed row.

Expected (paper, K600, 633M): gFVD 4.0 with 862 tokens, against 5.1 of LARP and 11 of AdapTok with 1,024.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, final_rows, generation_claims, generation_tables
from evatok.reporting.claims import Sign
from evatok.reporting.generation_rows import (
    FRAMES,
    OF_TOKENIZER,
    GeneratorTable,
    adaptive,
    fixed,
    of_generator,
    published,
)

OURS, SHORTER, FIXED = "EVATok", "EVATok, fewer given tokens", "fixed length"
COLUMNS = {"tok_params": OF_TOKENIZER["tok_params"], **of_generator(FRAMES)}
TABLE = GeneratorTable(
    name="main_table4",
    item="Main Table 4, frame prediction",
    specs=(published("AdapTok"), published("LARP"), adaptive(OURS), adaptive(SHORTER, given="row"), fixed(FIXED)),
    columns=tuple(COLUMNS),
)


def paper_claims(rows: Mapping[str, final_rows.Row]) -> list[Sign]:
    """Fewer tokens than a fixed-length tokenizer (LARP, in the paper), at no loss."""
    found = []
    for name in (OURS, SHORTER):
        found += [
            generation_claims.fewer_tokens(rows, name, FIXED, "862 against 1,024 (15.8 % fewer)", least=0),
            claims.better(rows, name, FIXED, "gfvd", "4.0 against LARP's 5.1", or_equal=True),
            generation_claims.time_follows_tokens(rows, name, FIXED),
        ]
    return found


def main(argv: list[str] | None = None) -> int:
    return generation_tables.main(TABLE, COLUMNS, paper_claims, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
