"""Main Table 2: class-to-video with a generator on the fixed-length and on the adaptive tokenizer.

    python reproductions/main_table2.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample` and, for the tokenizers, of `evatok.experiments.evaluate`. Both
generators saw equally many clips in equally many steps; as adaptive sequences are shorter, that is less compute, so the
row "router, equal compute" shows one trained for longer. Class consistency, which the paper lacks, is shown beside its
upper bounds: the classifier's rate on real clips and on their reconstructions.

Samples without guidance, and with it as main_table2_guided.

Expected (paper, UCF-101, GPT-B, guidance 2.5): gFVD 96 against 98 with 740 against 1,024 generated tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

from evatok.reporting import claims, final_rows, generation_claims, generation_tables
from evatok.reporting.claims import Sign
from evatok.reporting.generation_rows import (
    CLASS,
    OF_CONSISTENCY,
    OF_TOKENIZER,
    GeneratorTable,
    adaptive,
    fixed,
    of_generator,
)

COLUMNS = {**OF_TOKENIZER, **of_generator(CLASS), **OF_CONSISTENCY}
TABLE = GeneratorTable(
    name="main_table2",
    item="Main Table 2, generators on fixed and adaptive tokenizers",
    specs=(fixed("uniform"), adaptive("router"), adaptive("router, equal compute", equal="compute")),
    columns=tuple(COLUMNS),
)
GUIDED = replace(TABLE, name="main_table2_guided", item="Main Table 2 with guidance", guided=True, published=False)


def paper_claims(rows: Mapping[str, final_rows.Row]) -> list[Sign]:
    """The paper's claims about these rows, and their consequences for class consistency and time."""
    found = []
    for name in ("router", "router, equal compute"):
        paper = "740 against 1,024 (27.7 % fewer)" if name == "router" else "-"
        found += [
            generation_claims.fewer_tokens(rows, name, "uniform", paper),
            claims.better(rows, name, "uniform", "gfvd", "96 against 98" if name == "router" else "-", or_equal=True),
            claims.better(rows, name, "uniform", "class_consistency", "-", or_equal=True),
            claims.better(rows, name, "uniform", "class_consistency_balanced", "-", or_equal=True),
            generation_claims.time_follows_tokens(rows, name, "uniform"),
        ]
    return found


def main(argv: list[str] | None = None) -> int:
    return max(generation_tables.main(table, COLUMNS, paper_claims, __doc__, argv) for table in (TABLE, GUIDED))


if __name__ == "__main__":
    sys.exit(main())
