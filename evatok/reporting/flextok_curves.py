"""VideoFlexTok Fig. 2 as curves: quality against tokens per latent frame, sampled and in one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evatok.pictures import figures


def draw(frame: pd.DataFrame, panels: Mapping[str, str], folder: Path, name: str) -> None:
    """A panel per metric that was measured, a line per number of steps; writes <folder>/<name>.{svg,csv}.

    Args:
        frame: columns metric, flow_steps, tokens and value.
        panels: label of each metric's axis.
    """
    measured = {metric: label for metric, label in panels.items() if (frame["metric"] == metric).any()}
    with figures.style():
        figure = Figure(figsize=(3.0 * len(measured), 2.6))
        axes_of = figure.subplots(1, len(measured), squeeze=False)[0]
        for axes, (metric, label) in zip(axes_of, measured.items(), strict=True):
            for steps, group in frame[frame["metric"] == metric].groupby("flow_steps"):
                axes.plot(group["tokens"], group["value"], marker="o", label=f"{steps} step{'s' if steps != 1 else ''}")
            axes.set_xscale("symlog", base=2, linthresh=1)
            axes.set_xlabel("tokens per latent frame")
            axes.set_ylabel(label)
        figure.axes[0].legend()
        figures.save(figure, folder, name, frame)
