"""VTok Fig. 1 from the length formula: tokens of a clip by its duration, for frame sampling and for VTok.

    python reproductions/vtok/figure1.py            seconds; no records, no GPU, no download

Writes results/figures/vtok_figure1.{svg,csv}. Frame sampling takes n S tokens, VTok S + (T - 1) with one motion token
for each later frame (Eqs. 13 to 15). The figure in the paper prints T + S for VTok; its tables follow the formula.

Expected (paper, 5 s): 64 and 128 tokens for 4 and 8 frames, 46 for VTok; 31 for a key frame of one token.
"""

from __future__ import annotations

import sys

import pandas as pd
from matplotlib.figure import Figure

from evatok.pictures import figures
from evatok.reporting.command_line import results_of
from evatok.vtok import length

SECONDS = (1, 2, 3, 5, 8, 10, 15, 20)
FRAMES_A_SECOND = (1, 2, 6)  # of frame sampling


def lengths() -> pd.DataFrame:
    """Return tokens by strategy and seconds."""
    rows = []
    for seconds in SECONDS:
        for fps in FRAMES_A_SECOND:
            frames = 1 + fps * seconds
            rows.append((f"frames, {fps} a second", seconds, length("frames", frames=frames)))
        rows += [(f"VTok, motion {fps} a second", seconds, length("vtok", fps=fps, seconds=seconds)) for fps in (3, 6)]
    return pd.DataFrame(rows, columns=["strategy", "seconds", "tokens"])


def main(argv: list[str] | None = None) -> int:
    found = lengths()
    with results_of("vtok_figure1", __doc__, argv) as results, figures.style():
        figure = Figure(figsize=(4.6, 3.0))
        axes = figure.subplots()
        for name, group in found.groupby("strategy", sort=False):
            axes.plot(group["seconds"], group["tokens"], marker="o", label=str(name))
        axes.set(xlabel="seconds", ylabel="tokens", yscale="log", title="Tokens of a clip, key frame of 16 tokens")
        axes.legend()
        print(figures.save(figure, results / "figures", "vtok_figure1", found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
