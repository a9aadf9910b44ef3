"""Supplement Figure 7: quality of images against mean tokens on the proxy: uniform, best rewards and routers.

    python reproductions/figure7.py                        seconds; no GPU, no download, no PyTorch
    python reproductions/figure7.py --data FOLDER_OR_CSV   the same of your own images; about a second per image

Reads the newest records of `evatok.experiments.curves` on embedded images (`python -m evatok.experiments.make
image-curves`) and writes results/figures/figure7 and the paper's claims with verdicts as results/tables/figure7_signs.

With --data the image proxy first scores every image under its eight levels, or takes the scores from an earlier run,
says how long it will take, and measures the curves on them; the names of the files end in that of your set. `--proxy`
and `--router` take networks of yours.

Expected (paper, ImageNet): best rewards are ahead of uniform rows by a margin that is marginal, far below that of
videos.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import claims, command_line, curve_claims, curve_figures, image_curves

NAME = "figure7"


def main(argv: list[str] | None = None) -> int:
    parser = command_line.with_networks(command_line.with_own(command_line.parser(__doc__)))
    asked = command_line.with_metrics(parser, ",".join(image_curves.PANELS)).parse_args(argv)
    with command_line.one_line(NAME, asked):
        command_line.check_own(asked)
        sets, name = image_curves.SETS, NAME
        if asked.data:
            from evatok.experiments import own_images

            sets = own_images.curves(asked)
            name += command_line.ending(*sets)
        show(asked.results, sets, name)
    return 0


def show(results: Path, sets: curve_figures.Sets, name: str) -> None:
    """Publish the claims and the figure of one set of images."""
    (row,) = sets
    held = curve_figures.chosen_records(results / "records", sets, image_curves.PANELS).get(row, {})
    found = image_curves.signs(held, row)
    claims.publish(found, results, f"{name}_signs", "supplement Figure 7", curve_claims.DECIDES)
    if sets is image_curves.SETS:
        image_curves.tell_missing(held)
    if held:
        frame = curve_figures.frame_of({row: held})
        frame, panels = frame[frame["rule"] != "threshold"], [m for m in image_curves.PANELS if m in held]
        curve_figures.draw(frame, panels, results / "figures", name, sets)


if __name__ == "__main__":
    sys.exit(main())
