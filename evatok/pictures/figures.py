"""Figures of results in one style: an SVG and its numbers as CSV, byte for byte the same whenever rebuilt.

Text stays text in the SVG, so that it does not contain outlines of local fonts.
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
"""Colours of series in order: the palette of Okabe and Ito, distinguishable with any colour vision."""

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "evatok",  # ids within the file, random by default
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
    """Apply the common style to figures made and saved in this context; the user's settings are restored after it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def save(figure: Figure, folder: Path | str, name: str, data: pd.DataFrame | None = None) -> Path:
    """Write <folder>/<name>.svg and, if given, its numbers as <name>.csv (tidy); returns the SVG's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    # The defaults contain the date and matplotlib's version.
    metadata = {"Date": None, "Creator": "evatok"}
    with matplotlib.rc_context({key: _STYLE[key] for key in ("svg.hashsalt", "svg.fonttype")}):
        figure.savefig(path, format="svg", metadata=metadata)
    if data is not None:
        data.to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")
    return path
