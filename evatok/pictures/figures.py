"""Figures of results: one look for all, an SVG and the numbers drawn in it as CSV, the same bytes whenever rebuilt.

Text stays text in the SVG, so that no outlines of a machine's fonts are written into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
"""Series in order: the palette of Okabe and Ito, told apart with any colour vision."""

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "evatok",  # ids within the file; by default they are drawn at random
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so that layouts agree between machines
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=list(COLOURS)),
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """The house's look for figures made and saved within; a user's own settings have no say and are back after."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def save(figure: Figure, folder: Path | str, name: str, data: pd.DataFrame | None = None) -> Path:
    """Write <folder>/<name>.svg and, where given, its numbers as <name>.csv (tidy); returns the SVG's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    # The default names the day and the version of matplotlib.
    unchanging = {"Date": None, "Creator": "evatok"}
    with matplotlib.rc_context({key: _STYLE[key] for key in ("svg.hashsalt", "svg.fonttype")}):
        figure.savefig(path, format="svg", metadata=unchanging)
    if data is not None:
        data.to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")
    return path
