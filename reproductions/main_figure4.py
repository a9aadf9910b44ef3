"""Main Fig. 4: quality against mean tokens on the proxy, under uniform rows, best rewards and routers.

    python reproductions/main_figure4.py                        seconds; no GPU, no download, no PyTorch
    python reproductions/main_figure4.py --data FOLDER_OR_CSV   the same of your own videos; seconds per clip

Reads the records of `evatok.experiments.curves`, of each set and metric the newest, and writes
results/figures/main_figure4.{svg,csv}, the tokens each rule saves at the quality of the fixed-length baseline as
results/tables/main_figure4.{csv,md}, and the paper's claims with verdicts as main_figure4_signs.{csv,md}.

With --data it scores your videos as table3.py does, or takes the scores from there, says how long it will take, and
measures the curves on them (`--metrics psnr` needs no network); the names of the files end in that of your set.
`--proxy` and `--router` take networks of yours. Best rewards and thresholds need the scores of all candidates, so there
is no beam here.

Expected (paper): at the rFVD of uniform-1,024 routers save 56 % of the tokens (WebVid) and 42 % (UCF-101).
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import claims, command_line, curve_claims, curve_figures, tables

NAME = "main_figure4"


def main(argv: list[str] | None = None) -> int:
    asked = curve_figures.parser(__doc__).parse_args(argv)
    with command_line.one_line(NAME, asked):
        command_line.check_own(asked)
        sets, name = curve_figures.SETS, NAME
        if asked.data:
            from evatok.experiments.scored_videos import curves

            sets = curves(asked)
            name += command_line.ending(*sets)
        show(asked.results, sets, name)
    return 0


def show(results: Path, sets: curve_figures.Sets, name: str) -> None:
    """Publish the table, the claims and the figure of these sets."""
    chosen = curve_figures.chosen_records(results / "records", sets)
    cells = curve_figures.to_cells(chosen, tables.paper_values(NAME), sets)
    tables.Table(name, curve_figures.caption(chosen), cells).publish(results)
    found = curve_figures.all_signs(chosen, sets)
    claims.publish(found, results, f"{name}_signs", "main Figs. 4 and 5", curve_claims.DECIDES)
    curve_figures.tell_missing(chosen, sets)
    if chosen:
        frame = curve_figures.frame_of(chosen)
        metrics = curve_figures.panels_of(frame)
        curve_figures.draw(frame[frame["rule"] != "threshold"], metrics, results / "figures", name, sets)


if __name__ == "__main__":
    sys.exit(main())
