"""VTok Table 2: VBench's columns as dashes, and their substitutes on samples for moving-shapes' captions.

    python reproductions/vtok/table2.py            seconds; no GPU, no download

Reads the records of `evatok.experiments.vtok_align` (`python reproductions/vtok/generation.py` makes them). VBench is a
protocol whose prompts and networks a user brings; nothing of it runs here.

Expected (paper): semantic 75.82 < 77.20 < 80.15 and dynamic degree 70.83 < 72.29 < 76.11 for no tokens, frame sampling
and VTok; smoothness, subject and background within 0.3 points of each other.
"""

from __future__ import annotations

import sys

from evatok.reporting import vtok_vbench


def main(argv: list[str] | None = None) -> int:
    return vtok_vbench.main(__doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
