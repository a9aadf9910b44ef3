"""Main Fig. 5: the threshold rule against best rewards and uniform rows, on the proxy.

    python reproductions/main_figure5.py            seconds; no GPU, no download

Reads the records that main Fig. 4 reads, and writes results/figures/main_figure5.{svg,csv}. The threshold rule gives
each clip the shortest assignment whose quality meets a bound, else the longest. The paper's bound is on LPIPS and its
set WebVid; the bound here is on the quality of the rewards, and the set Freedoom. main_figure4.py judges the claims.

Expected (paper): by rFVD the rule lies between max-proxy-reward, which is better, and uniform.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.storage import records

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # reproductions/ is no installed package

from evatok.reporting.final_tables import results_folder
from reproductions import main_figure4

ROW = "validation"
RULES = ("uniform", "max_reward", "threshold")


def main(argv: list[str] | None = None) -> int:
    results = results_folder(__doc__, argv)
    try:
        chosen = main_figure4.chosen_records(results / "records")
    except records.RecordError as error:
        print(f"main_figure5: {error}", file=sys.stderr)
        return 2
    main_figure4.tell_missing(chosen)
    if ROW in chosen:
        frame = main_figure4.frame_of({ROW: chosen[ROW]})
        frame = frame[frame["rule"].isin(RULES)]
        metrics = sorted(main_figure4.panels_of(frame), key=("psnr", "st_lpips_alex", "rfvd").index)
        main_figure4.draw(frame, metrics, results / "figures", "main_figure5")
    return 0


if __name__ == "__main__":
    sys.exit(main())
