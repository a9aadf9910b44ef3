"""Main Table 3: the system-level comparison; reconstruction, frame prediction and class-to-video of one tokenizer.

    python reproductions/main_table3.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample` and `evatok.experiments.evaluate`: the longest trainings on record.
Ours is shown beside EVATok's largest model, and on the fixed-length tokenizer in a row that the paper lacks. The
columns `ucf_gfvd` and `k600_gfvd` hold, for ours, class-to-video and frame prediction on the embedded clips.

Expected (paper): EVATok 633M, gFVD 48 (UCF-101) and 4.0 (K600) with 756 tokens, against 57 and 5.1 of LARP with 1,024.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from evatok.reporting import claims, final_rows, generation_claims, generation_tables
from evatok.reporting.claims import Sign
from evatok.reporting.generation_rows import (
    CLASS,
    FRAMES,
    OF_TOKENIZER,
    GeneratorTable,
    adaptive,
    fixed,
    of_generator,
    published,
)
from evatok.storage import records

OURS, FIXED = "EVATok, 633M", "fixed length"
COLUMNS = {
    "tok_params": OF_TOKENIZER["tok_params"],
    "gen_params": (CLASS, "parameters", 1e-6, "M"),
    "rtokens": OF_TOKENIZER["rtokens"],
    "rfvd": OF_TOKENIZER["rfvd"],
    "k600_gfvd": of_generator(FRAMES)["gfvd"],
    "ucf_gfvd": of_generator(CLASS)["gfvd"],
    "gtokens": of_generator(CLASS)["gtokens"],
}
_PAPER = json.loads((records.REPOSITORY / "results" / "paper" / "main_table3.json").read_text())["rows"]
TABLE = GeneratorTable(
    name="main_table3",
    item="Main Table 3, systems",
    specs=(*(adaptive(name) if name == OURS else published(name) for name in _PAPER), fixed(FIXED)),
    columns=tuple(COLUMNS),
    longest=True,
)


def paper_claims(rows: Mapping[str, final_rows.Row]) -> list[Sign]:
    """Fewer tokens than a fixed-length tokenizer (LARP, in the paper), at no loss."""
    return [
        generation_claims.fewer_tokens(rows, OURS, FIXED, "756 against LARP's 1,024 (26.2 % fewer)"),
        claims.better(rows, OURS, FIXED, "ucf_gfvd", "48 against LARP's 57", or_equal=True),
        claims.better(rows, OURS, FIXED, "k600_gfvd", "4.0 against LARP's 5.1", or_equal=True),
        claims.better(rows, OURS, FIXED, "rfvd", "9.7 against LARP's 20", or_equal=True),
    ]


def main(argv: list[str] | None = None) -> int:
    return generation_tables.main(TABLE, COLUMNS, paper_claims, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
