"""VideoFlexTok Table 1: systems, each with its own tokens: ours, the 3D grid, EVATok of fixed and adaptive length.

    python reproductions/videoflextok/table1.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample` of generators whose trainings took equal operations on the same clips,
and those of `evatok.experiments.evaluate` of their tokenizers. Beside the table and its claims it writes who wins where
in words (videoflextok_table1_winners). The paper's tokenizers are not here; its rows are shown alone.

Expected (paper, Kinetics-600, 2.2B generators): gFVD 80.0, the best, with 160 tokens of 1,280; score .833, the second.
"""

from __future__ import annotations

import sys

from evatok.reporting import flextok, flextok_systems


def main(argv: list[str] | None = None) -> int:
    return flextok.main(flextok_systems.publish, "table1", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
