"""Supplement Figure 7: quality of images against mean tokens on the proxy, by uniform rows, best rewards and routers.

    python reproductions/figure7.py            seconds; no GPU, no download, no PyTorch

Reads the newest records of `evatok.experiments.curves` on embedded images (`python -m evatok.experiments.make
image-curves`) and writes results/figures/figure7 and the paper's claims with verdicts as results/tables/figure7_signs.

Expected (paper, ImageNet): best rewards are ahead of uniform rows by a margin that is marginal, far below that of
videos.
"""

from __future__ import annotations

import sys

from evatok import errors
from evatok.reporting import claims, curve_claims, curve_figures, image_curves
from evatok.reporting.final_tables import results_folder

NAME = "figure7"


def main(argv: list[str] | None = None) -> int:
    results = results_folder(__doc__, argv)
    with errors.one_line(NAME):
        held = image_curves.chosen_record(results / "records")
        decides = curve_claims.DECIDES
        claims.publish(image_curves.signs(held), results, f"{NAME}_signs", "supplement Figure 7", decides)
        image_curves.tell_missing(held)
        if held:
            frame = curve_figures.frame_of({"images": held})
            frame, panels = frame[frame["rule"] != "threshold"], [m for m in image_curves.PANELS if m in held]
            curve_figures.draw(frame, panels, results / "figures", NAME, image_curves.SETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
