"""Main Fig. 5: the threshold rule against best rewards and uniform rows, on the proxy.

    python reproductions/main_figure5.py                        seconds; no GPU, no download, no PyTorch
    python reproductions/main_figure5.py --data FOLDER_OR_CSV   the same of your own videos, see main_figure4.py

Reads the records that main Fig. 4 reads, and writes results/figures/main_figure5.{svg,csv}. The threshold rule gives
each clip the shortest assignment whose quality meets a bound, else the longest. The paper's bound is on LPIPS and its
set WebVid; the bound here is on the quality of the rewards, and the set Freedoom. main_figure4.py judges the claims.

Expected (paper): by rFVD the rule lies between max-proxy-reward, which is better, and uniform.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import command_line, curve_figures

NAME = "main_figure5"
ROW = "validation"
RULES = ("uniform", "max_reward", "threshold")
PANELS = ("psnr", "st_lpips_alex", "rfvd")


def main(argv: list[str] | None = None) -> int:
    asked = curve_figures.parser(__doc__).parse_args(argv)
    with command_line.one_line(NAME, asked):
        command_line.check_own(asked)
        if not asked.data:
            show(asked.results, curve_figures.SETS, ROW, NAME)
            return 0
        from evatok.experiments.scored_videos import curves

        sets = curves(asked)
        (row,) = sets
        show(asked.results, sets, row, NAME + command_line.ending(row))
    return 0


def show(results: Path, sets: curve_figures.Sets, row: str, name: str) -> None:
    """Draw the figure of one set."""
    chosen = curve_figures.chosen_records(results / "records", sets)
    curve_figures.tell_missing(chosen, sets)
    if row in chosen:
        frame = curve_figures.frame_of({row: chosen[row]})
        frame = frame[frame["rule"].isin(RULES)]
        metrics = sorted(curve_figures.panels_of(frame), key=PANELS.index)
        curve_figures.draw(frame, metrics, results / "figures", name, sets)


if __name__ == "__main__":
    sys.exit(main())
