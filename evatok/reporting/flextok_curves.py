"""VideoFlexTok Figs. 2, 7 and 12 as curves: quality against tokens per latent frame, and against operations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from evatok.pictures import figures


def draw(frame: pd.DataFrame, panels: Mapping[str, str], folder: Path, name: str) -> None:
    """Draw a panel per measured metric, a line per number of steps; write <folder>/<name>.{svg,csv}.

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


def draw_lengths(frame: pd.DataFrame, panels: Mapping[str, str], folder: Path, name: str) -> None:
    """Draw a panel per measured metric, a colour per series; samples as lines, their reconstructions dotted.

    A series with `at_all` has one length only and is drawn as a level.

    Args:
        frame: columns metric, series, clips ("samples" or "reconstructions"), at_all, tokens and value.
        panels: label of each metric's axis.
    """
    measured = {metric: label for metric, label in panels.items() if (frame["metric"] == metric).any()}
    colours = dict(zip(frame["series"].unique(), itertools.cycle(figures.COLOURS), strict=False))
    with figures.style():
        figure = Figure(figsize=(3.4 * len(measured), 3.4))
        axes_of = figure.subplots(1, len(measured), squeeze=False)[0]
        for axes, (metric, label) in zip(axes_of, measured.items(), strict=True):
            for (series, clips), group in frame[frame["metric"] == metric].groupby(["series", "clips"], sort=False):
                ordered, look = group.sort_values("tokens"), {"color": colours[series], "label": f"{series}: {clips}"}
                dots = ":" if clips == "reconstructions" else "-"
                if ordered["at_all"].all():
                    axes.axhline(ordered["value"].iloc[0], linestyle="-." if dots == ":" else "--", **look)
                else:
                    axes.plot(ordered["tokens"], ordered["value"], marker="o", linestyle=dots, **look)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.set_xlabel("tokens per latent frame")
            axes.set_ylabel(label)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figures.save(figure, folder, name, frame)


class Axes(NamedTuple):
    """Columns that a cost figure draws, with their labels: operations and quality."""

    cost: str
    cost_label: str
    quality: str
    quality_label: str


def draw_costs(frame: pd.DataFrame, axes: Axes, folder: Path, name: str) -> None:
    """Draw quality against operations, a line per number of tokens, and the front if a column `on_front` marks it."""
    with figures.style():
        figure = Figure(figsize=(4.4, 3.0))
        plot = figure.subplots()
        for tokens, group in frame.groupby("tokens"):
            ordered = group.sort_values(axes.cost)
            plot.plot(ordered[axes.cost] / 1e9, ordered[axes.quality], marker="o", label=f"{tokens}")
        if "on_front" in frame:
            front = frame[frame["on_front"]].sort_values(axes.cost)
            plot.plot(front[axes.cost] / 1e9, front[axes.quality], color="black", linestyle=":", label="front")
        plot.set_xscale("log")
        plot.set_xlabel(axes.cost_label)
        plot.set_ylabel(axes.quality_label)
        plot.legend(title="tokens per latent frame")
        figures.save(figure, folder, name, frame)
