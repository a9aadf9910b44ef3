"""Shared by generator tables: formatting, writing, and the command line.

A value without a record is a dash, and the commands that would fill it are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from evatok.reporting import claims, command_line, final_rows, final_tables, tables
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Chosen
from evatok.reporting.generation_claims import DECIDES
from evatok.reporting.generation_commands import commands
from evatok.reporting.generation_rows import Column, GeneratorTable, choose
from evatok.reporting.tables import Cell


def caption(table: GeneratorTable, chosen: Chosen) -> str:
    """State what is compared with what."""
    if not chosen.common:
        brackets = "; in brackets the paper's values" if table.published else ""
        return f"{table.item}. No sample on record yet{brackets}."
    common = chosen.common
    samples = common["samples"][0].metrics["mean_tokens"].n
    steps = " and ".join(str(n) for n in sorted({r.model["facts"]["steps"] for r in common["samples"]}, reverse=True))
    ours = "Ours (paper): generators" if table.published else "Generators"
    compare = (
        "Rows of ours compare with each other; ours and the paper's are of other clips, sizes, trainings and N, so "
        "that values, gFVD above all, never compare."
        if table.published
        else "Rows compare with each other alone."
    )
    return (
        f"{table.item}. {ours} of {common['model']} size after {steps} steps of {common['batch']} clips, guidance "
        f"{common['guidance']:g}, {samples} samples against as many real clips. {compare} After ± half a 95 % interval "
        "over clips, or the deviation over seeds."
    )


def publish(spec: GeneratorTable, columns: Mapping[str, Column], results: Path) -> Chosen:
    """Write and print the table, and print the commands that would fill its dashes."""
    chosen = choose(results / "records", spec, columns)
    paper = tables.paper_values(spec.name) if spec.published else {}
    titles = {column: column for column in spec.columns}
    told = partial(_records, chosen)
    cells = [cell for cell in final_tables.to_cells(spec, chosen, paper) if _belongs(cell, spec)]
    table = tables.Table(spec.name, caption(spec, chosen), cells, shown=shown, tail=told, metrics=titles, absent="-")
    table.publish(results)
    final_tables.tell(commands(spec, chosen, columns))
    return chosen


def shown(cell: Cell) -> str:
    """Format as `ours ± spread (paper)`, to four digits."""
    spread = "" if cell.spread is None else f" ± {cell.spread:.2g}"
    ours = "-" if cell.ours is None else f"{cell.ours:.4g}{spread}"
    return ours if cell.paper is None else f"{ours} ({cell.paper:g})"


def _records(chosen: Chosen, row: tables.Row) -> dict[str, str]:
    """Return the records of a row, samples first."""
    ids = (record.id for record in chosen.rows[row[0].row].records)
    return {"records": "<br>".join(ids) or "-"}


def _belongs(cell: Cell, spec: GeneratorTable) -> bool:
    """Whether a table has this cell: paper-only rows show what it printed, ours every column."""
    papers = {row.name for row in spec.specs if row.trained is None}
    return cell.row not in papers or cell.paper is not None or cell.ours is not None


def _item(table: GeneratorTable) -> str:
    name = table.item.partition(",")[0]
    return name[0].lower() + name[1:]


def main(
    table: GeneratorTable,
    columns: Mapping[str, Column],
    claims_of: Callable[[Mapping[str, final_rows.Row]], list[Sign]],
    description: str | None,
    argv: list[str] | None = None,
) -> int:
    """Run the command line of a table's script; `claims_of` judges the chosen rows."""
    with command_line.results_of(table.name, description, argv) as results:
        chosen = publish(table, columns, results)
        claims.publish(claims_of(chosen.rows), results, f"{table.name}_signs", _item(table), DECIDES)
    return 0
