"""Supplement Table 4: images, final tokenizers of one length and under a router, and generators on both.

    python reproductions/table4.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` and `sample` that `python -m evatok.experiments.make images` makes,
and writes results/tables/table4 and, with a verdict each, the paper's claims as results/tables/table4_signs.

Expected (paper, ImageNet 256x256): LPIPS 0.2205 and rFID 1.22 at 256 tokens, 0.2455 and 1.46 at 205; gFID 4.72 at 256
generated tokens, 4.51 at 197.
"""

from __future__ import annotations

import sys

from evatok import errors
from evatok.reporting import claims, final_tables, image_tables, tables

NAME = "table4"


def main(argv: list[str] | None = None) -> int:
    results = final_tables.results_folder(__doc__, argv)
    with errors.one_line(NAME):
        chosen = image_tables.choose(results / "records")
        cells = image_tables.to_cells(chosen, tables.paper_values(NAME))
        shown, tail = final_tables.shown, final_tables.tail
        tables.Table(NAME, image_tables.caption(chosen), cells, shown=shown, tail=tail).publish(results)
        claims.publish(image_tables.signs(chosen), results, f"{NAME}_signs", "supplement Table 4", claims.DECIDES)
        image_tables.tell_missing(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
