"""Main Fig. 5: the threshold rule against best rewards and uniform rows, on the proxy.

    python reproductions/main_figure5.py            seconds; no GPU, no download, no PyTorch

Reads the records that main Fig. 4 reads, and writes results/figures/main_figure5.{svg,csv}. The threshold rule gives
each clip the shortest assignment whose quality meets a bound, else the longest. The paper's bound is on LPIPS and its
set WebVid; the bound here is on the quality of the rewards, and the set Freedoom. main_figure4.py judges the claims.

Expected (paper): by rFVD the rule lies between max-proxy-reward, which is better, and uniform.
"""

from __future__ import annotations

import sys

from evatok import errors
from evatok.reporting import curve_figures
from evatok.reporting.final_tables import results_folder

ROW = "validation"
RULES = ("uniform", "max_reward", "threshold")
PANELS = ("psnr", "st_lpips_alex", "rfvd")


def main(argv: list[str] | None = None) -> int:
    results = results_folder(__doc__, argv)
    with errors.one_line("main_figure5"):
        chosen = curve_figures.chosen_records(results / "records")
        curve_figures.tell_missing(chosen)
        if ROW in chosen:
            frame = curve_figures.frame_of({ROW: chosen[ROW]})
            frame = frame[frame["rule"].isin(RULES)]
            metrics = sorted(curve_figures.panels_of(frame), key=PANELS.index)
            curve_figures.draw(frame, metrics, results / "figures", "main_figure5")
    return 0


if __name__ == "__main__":
    sys.exit(main())
