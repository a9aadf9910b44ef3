"""Result tables: the paper's value beside ours, tidy in CSV, readable in Markdown.

A table is a list of cells, one per row and metric, and says how Markdown shows them. Numbers of the papers come from
results/paper/*.json and nowhere else; ours come with the id of the record that holds them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from evatok.errors import EvatokError
from evatok.storage.environment import REPOSITORY
from evatok.storage.files import replacing
from evatok.storage.records import Metric, Record

STATUSES = ("toy", "small", "paper", "paper-only")


class TableError(EvatokError, ValueError):
    """A table that cannot be written, or a paper's number that is not on file."""


@dataclass(frozen=True)
class Cell:
    """One value of a table. `paper` or `ours` is None if absent; `ours` comes from `n` samples.

    `spread` is as recorded (over clips, or the deviation over training seeds); `interval` is half a 95 % interval of
    the value. None: not measured.
    """

    row: str
    metric: str
    paper: float | None
    ours: float | None
    unit: str
    n: int | None
    status: str
    record: str | None
    spread: float | None = None
    interval: float | None = None

    @classmethod
    def of_record(cls, row: str, name: str, metric: Metric, record: Record) -> Cell:
        """One of a record's metrics, whose spread is half a 95 % interval; the paper has no such value."""
        told = (metric.value, metric.unit, metric.n, record.status, record.id)
        return cls(row, name, None, *told, metric.spread, metric.spread)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise TableError(f"{self.row} {self.metric}: status {self.status!r} is not one of {', '.join(STATUSES)}")
        if self.ours is not None and (self.record is None or self.n is None):
            raise TableError(f"{self.row} {self.metric}: a measured value needs a record and its n")


COLUMNS = [column.name for column in fields(Cell)]
"""Columns of every table's CSV."""

Row = Sequence[Cell]
"""The cells of one row of a table."""


def both(cell: Cell) -> str:
    """Format as `ours (paper)` to two decimals; a dash if nothing is measured."""
    ours, paper = ("-" if value is None else f"{value:.2f}" for value in (cell.ours, cell.paper))
    return f"{ours} ({paper})"


def sources(row: Row) -> dict[str, str]:
    """Return n, status and record of a row, from its first cell."""
    first = row[0]
    return {"n": "-" if first.n is None else str(first.n), "status": first.status, "record": first.record or "-"}


@dataclass(frozen=True)
class Table:
    """A table as published, in CSV and Markdown.

    Attributes:
        name: of its files in <results>/tables.
        caption: what is compared with what.
        cells: in the order of rows.
        shown: formats a cell for Markdown.
        tail: the last columns of a row in Markdown, by title.
        metrics: the metrics' columns in Markdown, by title; by default those of the cells, under their own names.
        first: title of the first column.
        absent: Markdown text for a row without a cell of a metric.
        right: titles of right-aligned columns.
        remarks: notes on its numbers, printed beneath it.
    """

    name: str
    caption: str
    cells: Sequence[Cell]
    shown: Callable[[Cell], str] = both
    tail: Callable[[Row], Mapping[str, str]] = sources
    metrics: Mapping[str, str] = field(default_factory=dict)
    first: str = "row"
    absent: str = ""
    right: tuple[str, ...] = ()
    remarks: Sequence[str] = ()

    def markdown(self) -> str:
        """Return a line per row, a column per metric, and the tail."""
        titles = self.metrics or {cell.metric: cell.metric for cell in self.cells}
        lines = []
        for name in dict.fromkeys(cell.row for cell in self.cells):
            row = [cell for cell in self.cells if cell.row == name]
            shown = {cell.metric: self.shown(cell) for cell in row}
            values = {title: shown.get(metric, self.absent) for metric, title in titles.items()}
            lines.append({self.first: name, **values, **self.tail(row)})
        return markdown(pd.DataFrame(lines), self.right)

    def text(self) -> str:
        """Return caption, table and remarks."""
        remarks = "".join(f"\n- {remark}" for remark in self.remarks)
        return f"{self.caption}\n\n{self.markdown()}\n" + (f"{remarks}\n" if remarks else "")

    def publish(self, results: Path) -> None:
        """Write <results>/tables/<name>.csv and .md, and print the text."""
        text = self.text()
        write(results / "tables", self.name, tidy(self.cells), text)
        print(text)


def tidy(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return one line per cell, in COLUMNS."""
    frame = pd.DataFrame([asdict(cell) for cell in cells], columns=COLUMNS)
    numbers = dict.fromkeys(("paper", "ours", "spread", "interval"), float)
    return frame.astype({**numbers, "n": "Int64"})


def markdown(frame: pd.DataFrame, right: Sequence[str] = ()) -> str:
    """Format a frame of text as a Markdown table, every value as is; the columns of `right` right-aligned."""
    sides = ["right" if column in right else "left" for column in frame.columns]
    return str(frame.to_markdown(index=False, disable_numparse=True, colalign=sides if len(frame) else None))


def write(folder: Path, name: str, frame: pd.DataFrame, text: str) -> None:
    """Write <name>.csv with numbers to four decimals, and <name>.md."""
    with replacing(folder / f"{name}.csv") as partial:
        frame.to_csv(partial, index=False, float_format="%.4f", lineterminator="\n")
    with replacing(folder / f"{name}.md") as partial:
        partial.write_text(text, encoding="utf-8")


def paper_values(item: str) -> dict[tuple[str, str], float]:
    """Return (row, metric) -> value for one item of the papers ("table3"), from results/paper/<item>.json.

    Raises:
        TableError: an item that is not on file.
    """
    path = REPOSITORY / "results" / "paper" / f"{item}.json"
    if not path.exists():
        raise TableError(f"{path}: no published numbers for this item; add them once, with their source")
    content: dict[str, Any] = json.loads(path.read_text())
    return {(entry["row"], entry["metric"]): entry["value"] for entry in content["values"]}
