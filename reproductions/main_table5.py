"""Main Table 5: the effect of the two semantic encoders, alignment and discriminator, under the uniform assignment.

    python reproductions/main_table5.py                        seconds; no GPU, no download, no PyTorch
    python reproductions/main_table5.py --data FOLDER_OR_CSV   the same on your own videos, see main_table1.py

Reads the records of `evatok.experiments.evaluate`: tokenizers trained and measured with the middle level in every
block. gFVD needs a generator trained on each tokenizer's codes, which this table does not have: only the paper's.

Expected (paper, UCF-101): rFVD 13 for the full recipe, 65 without the VideoMAE discriminator, 18 without alignment, 80
without both; PSNR and LPIPS go the other way.
"""

from __future__ import annotations

import sys

from evatok.reporting import command_line, final_tables
from evatok.reporting.final_rows import COLUMNS, Spec, TableSpec

TABLE = TableSpec(
    name="main_table5",
    item="Main Table 5, semantic encoders under the uniform assignment",
    specs=tuple(
        Spec(name, {"assignment": "uniform", "discriminator": discriminator, "alignment": alignment}, "uniform")
        for name, discriminator, alignment in (
            ("final recipe", "semantic", True),
            ("without VideoMAE disc", "transformer", True),
            ("without alignment", "semantic", False),
            ("without both", "transformer", False),
        )
    ),
    columns=(*COLUMNS, "gfvd"),
)


def main(argv: list[str] | None = None) -> int:
    asked = final_tables.parser(__doc__).parse_args(argv)
    with command_line.one_line(TABLE.name, asked):
        own = None
        if asked.data:
            from evatok.experiments.own_tables import measured

            own = measured(TABLE, asked)
        final_tables.publish(TABLE, asked.results, own)
    return 0


if __name__ == "__main__":
    sys.exit(main())
