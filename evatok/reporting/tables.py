"""Tables of results: the paper's value beside ours, tidy in CSV, readable in Markdown.

A table is a list of cells, one a row and metric. Numbers of the papers come from results/paper/*.json and nowhere
else; ours come with the id of the record that holds them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from evatok.errors import EvatokError

STATUSES = ("toy", "small", "paper", "paper-only")
COLUMNS = ["row", "metric", "paper", "ours", "unit", "n", "status", "record"]


class TableError(EvatokError, ValueError):
    """A table that cannot be written, or a paper's number that is not on file."""


@dataclass(frozen=True)
class Cell:
    """One value of a table. `paper` or `ours` is None where there is none; `n` samples stand behind `ours`."""

    row: str
    metric: str
    paper: float | None
    ours: float | None
    unit: str
    n: int | None
    status: str
    record: str | None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise TableError(f"{self.row} {self.metric}: status {self.status!r} is none of {', '.join(STATUSES)}")
        if self.ours is not None and (self.record is None or self.n is None):
            raise TableError(f"{self.row} {self.metric}: a measured value needs a record and its n")


def paper_values(folder: Path, item: str) -> dict[tuple[str, str], float]:
    """(row, metric) -> value of one item of the papers ("table3"), from results/paper/<item>.json.

    Raises:
        TableError: no such item on file.
    """
    path = folder / f"{item}.json"
    if not path.exists():
        raise TableError(f"{path}: no numbers of that item; they are typed from the paper once, with their source")
    content: dict[str, Any] = json.loads(path.read_text())
    return {(entry["row"], entry["metric"]): entry["value"] for entry in content["values"]}


def tidy(cells: list[Cell]) -> pd.DataFrame:
    """One row a cell, in the columns every table has."""
    return pd.DataFrame([asdict(cell) for cell in cells], columns=COLUMNS)


def markdown(cells: list[Cell], decimals: int = 2) -> str:
    """A row a table row, a column a metric, each as `ours (paper)`; a dash stands for what is not measured."""
    frame = tidy(cells)
    text = {
        (cell.row, cell.metric): f"{_number(cell.ours, decimals)} ({_number(cell.paper, decimals)})" for cell in cells
    }
    metrics = list(dict.fromkeys(frame["metric"]))
    lines = []
    for row, group in frame.groupby("row", sort=False):
        shown = {metric: text.get((str(row), metric), "") for metric in metrics}
        first = group.iloc[0]
        n = "-" if pd.isna(first["n"]) else int(first["n"])
        record = "-" if pd.isna(first["record"]) else first["record"]
        lines.append({"row": row, **shown, "n": n, "status": first["status"], "record": record})
    return pd.DataFrame(lines).to_markdown(index=False)


def write(cells: list[Cell], folder: Path, name: str, caption: str) -> tuple[Path, Path]:
    """Write <name>.csv and <name>.md; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    tidy(cells).to_csv(csv, index=False, float_format="%.4f", lineterminator="\n")
    md.write_text(f"{caption}\n\n{markdown(cells)}\n", encoding="utf-8")
    return csv, md


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
