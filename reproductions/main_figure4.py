"""Main Fig. 4: quality against mean tokens on the proxy, under uniform rows, best rewards and routers.

    python reproductions/main_figure4.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.curves`, of each set and metric the newest, and writes
results/figures/main_figure4.{svg,csv}, the tokens each rule saves at the quality of the fixed-length baseline as
results/tables/main_figure4.{csv,md}, and the paper's claims with verdicts as main_figure4_signs.{csv,md}.

Expected (paper): at the rFVD of uniform-1,024 routers save 56 % of the tokens (WebVid) and 42 % (UCF-101).
"""

from __future__ import annotations

import sys

from evatok import errors
from evatok.reporting import claims, curve_claims, curve_figures, tables
from evatok.reporting.final_tables import results_folder

NAME = "main_figure4"


def main(argv: list[str] | None = None) -> int:
    results = results_folder(__doc__, argv)
    with errors.one_line(NAME):
        chosen = curve_figures.chosen_records(results / "records")
        cells = curve_figures.to_cells(chosen, tables.paper_values(NAME))
        tables.Table(NAME, curve_figures.caption(chosen), cells).publish(results)
        found = curve_figures.all_signs(chosen)
        claims.publish(found, results, f"{NAME}_signs", "main Figs. 4 and 5", curve_claims.DECIDES)
        curve_figures.tell_missing(chosen)
        if chosen:
            frame = curve_figures.frame_of(chosen)
            metrics = curve_figures.panels_of(frame)
            curve_figures.draw(frame[frame["rule"] != "threshold"], metrics, results / "figures", NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
