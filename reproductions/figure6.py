"""Figure 6 of the supplement (Sec. F): the four attention masks of its worked example, from our own code.

    python reproductions/figure6.py            seconds; no GPU, no download

A clip is patchified to 4 x 4 x 4, so 16 patches in each of 4 temporal blocks, and its blocks get (16, 8, 2, 2) tokens.
In the encoder tokens ask, in the decoder patches do; each first among themselves, then in the other sequence. Expected:
"The query embeddings of each temporal block can only attend to query embeddings or reference embeddings that are no
later than this temporal block." Writes results/figures/figure6.svg, and figure6.csv with one line per cell.
"""

from __future__ import annotations

import sys

from evatok.pictures import figures
from evatok.reporting import mask_figures
from evatok.reporting.command_line import results_of

ASSIGNMENT = (16, 8, 2, 2)
PATCHES = 16


def main(argv: list[str] | None = None) -> int:
    found = mask_figures.masks(ASSIGNMENT, PATCHES)
    with results_of("figure6", __doc__, argv) as results, figures.style():
        path = figures.save(mask_figures.drawn(found), results / "figures", "figure6", mask_figures.cells(found))
    print(f"supplement Figure 6, assignment {ASSIGNMENT}, {PATCHES} patches per block: {path}")
    for name, mask in found.items():
        title, query, key = mask_figures.TITLES[name]
        rows, columns = mask.visible.shape
        print(f"  {title}: {rows} {query} look at {columns} {key}, {mask.visible.mean():.1%} visible")
    return 0


if __name__ == "__main__":
    sys.exit(main())
