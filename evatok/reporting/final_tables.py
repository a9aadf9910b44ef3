"""Shared by the tables of trained tokenizers: formatting, writing, and the command line.

A value without a record is a dash, and the command that would fill it is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evatok.metrics import catalogue
from evatok.reporting import command_line, tables
from evatok.reporting.command_line import OwnClips
from evatok.reporting.final_commands import commands
from evatok.reporting.final_rows import FURTHER, OWN_METRICS, Chosen, TableSpec, choose
from evatok.reporting.tables import Cell


def with_further(table: TableSpec, chosen: Chosen) -> TableSpec:
    """Add those further columns that any record of the table fills: older records lack some."""
    told = [name for name in FURTHER if any(row.value(name) for row in chosen.rows.values())]
    return replace(table, columns=(*table.columns, *told))


def to_cells(table: TableSpec, chosen: Chosen, paper: Mapping[tuple[str, str], float]) -> list[Cell]:
    """Return one cell per row and column; with several seeds `record` holds their ids, separated by a blank."""
    cells = []
    for name, row in chosen.rows.items():
        for metric in table.columns:
            value, published = row.value(metric), paper.get((name, metric))
            if value is None:
                cells.append(Cell(name, metric, published, None, "", None, "paper-only", None))
            else:
                told = (value.value, value.unit, value.n, row.records[0].status, " ".join(value.ids))
                cells.append(Cell(name, metric, published, *told, value.spread, value.interval))
    return cells


def caption(table: TableSpec, chosen: Chosen) -> str:
    """State what is compared with what, and what the intervals are."""
    if not chosen.common:
        brackets = "; in brackets the paper's values" if table.published else ""
        return f"{table.item}. No record fills any of its rows yet{brackets}."
    seeds = max(len(row.records) for row in chosen.rows.values())
    spread = (
        f"values are means over up to {seeds} training seeds (n), after ± the standard deviation over them"
        if seeds > 1
        else "one training seed: after ± half the 95 % bootstrap interval over the clips (n), which says nothing "
        "of how far another seed would come out"
    )
    ours = "Ours (paper): tokenizers" if table.published else "Tokenizers"
    compare = (
        "Rows compare with each other; ours and the paper's are of other clips, sizes and trainings, so that values, "
        "rFVD above all, never compare."
        if table.published
        else "Rows compare with each other alone."
    )
    return (
        f"{table.item}. {ours} of {chosen.common['size']} size after {chosen.common['steps']} steps each, measured "
        f"under {table.protocol}; {spread}. {compare} ST-LPIPS is another metric than LPIPS."
    )


def shown(cell: Cell) -> str:
    """Format as `ours ± spread (paper)`, to the metric's decimals."""
    decimals = catalogue.of(cell.metric).decimals
    spread = "" if cell.spread is None else f" ± {cell.spread:.{decimals}f}"
    ours = "-" if cell.ours is None else f"{cell.ours:.{decimals}f}{spread}"
    return ours if cell.paper is None else f"{ours} ({cell.paper:g})"


def tail(row: tables.Row) -> dict[str, str]:
    """Return n of the first measured cell, and all records of the row."""
    measured = [cell for cell in row if cell.ours is not None]
    ids = dict.fromkeys(name for cell in measured for name in (cell.record or "").split())
    return {"n": str(measured[0].n) if measured else "-", "record": "<br>".join(ids) or "-"}


def publish(spec: TableSpec, results: Path, own: OwnClips | None = None) -> Chosen:
    """Write and print the table, and print the commands that would fill its dashes."""
    chosen = choose(results / "records", spec, own)
    spec = with_further(spec, chosen)
    cells = to_cells(spec, chosen, tables.paper_values(spec.name) if spec.published else {})
    name, told = spec.name, caption(spec, chosen)
    if own:
        name, told = name + command_line.ending(own.name), told.replace(spec.protocol, f"{own.protocol} on {own.name}")
    tables.Table(name, told, cells, shown=shown, tail=tail).publish(results)
    tell(commands(spec, chosen))
    return chosen


def tell(missing: Sequence[str]) -> None:
    """Print the commands that would fill the rows without a record."""
    if missing:
        print("What would fill the empty rows:\n" + "\n".join(missing) + "\n")


def main(spec: TableSpec, description: str | None, argv: list[str] | None = None) -> int:
    """Run the command line of a table's script."""
    with command_line.results_of(spec.name, description, argv) as results:
        publish(spec, results)
    return 0


def parser(description: str | None) -> argparse.ArgumentParser:
    """Build the command line of a table of tokenizers, on the embedded clips or a user's own."""
    return command_line.with_metrics(command_line.with_own(command_line.parser(description)), OWN_METRICS)
