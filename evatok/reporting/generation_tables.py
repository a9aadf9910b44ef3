"""What the tables of generators share: how they are shown and written, and their command line.

What no record fills is a dash, and the commands that would fill it are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from evatok.reporting import claims, final_tables, tables
from evatok.reporting.claims import Sign
from evatok.reporting.final_tables import Chosen, Value
from evatok.reporting.generation_claims import DECIDES
from evatok.reporting.generation_commands import commands
from evatok.reporting.generation_rows import Column, GeneratorTable, choose
from evatok.storage import records


def caption(table: GeneratorTable, chosen: Chosen) -> str:
    """What is compared with what."""
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


def publish(table: GeneratorTable, columns: Mapping[str, Column], results: Path) -> Chosen:
    """Write <results>/tables/<name>.csv and .md, print the table and the commands that would fill its dashes."""
    paper = tables.paper_values(records.REPOSITORY / "results" / "paper", table.name) if table.published else {}
    chosen = choose(results / "records", table, columns)
    folder = results / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    spreads = [(v.spread if v else None) for row in chosen.rows.values() for v in map(row.value, table.columns)]
    frame = tables.tidy(final_tables.to_cells(table, chosen, paper)).assign(spread=pd.Series(spreads, dtype=float))
    frame = frame[frame["paper"].notna() | frame["ours"].notna() | ~frame["row"].isin(_paper_rows(table))]
    frame.astype({"n": "Int64"}).to_csv(
        folder / f"{table.name}.csv", index=False, float_format="%.4f", lineterminator="\n"
    )
    text = f"{caption(table, chosen)}\n\n{markdown(table, chosen, paper)}\n"
    (folder / f"{table.name}.md").write_text(text, encoding="utf-8")
    print(text)
    missing = commands(table, chosen, columns)
    if missing:
        print("What would fill the empty rows:\n" + "\n".join(missing) + "\n")
    return chosen


def markdown(table: GeneratorTable, chosen: Chosen, paper: Mapping[tuple[str, str], float]) -> str:
    """A line a row, a column a metric, each as `ours ± spread (paper)`."""
    lines = []
    for name, row in chosen.rows.items():
        shown = {metric: _shown(row.value(metric), paper.get((name, metric))) for metric in table.columns}
        ids = "<br>".join(record.id for record in row.records)
        lines.append({"row": name, **shown, "records": ids or "-"})
    return str(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True))


def _shown(value: Value | None, paper: float | None) -> str:
    spread = f" ± {value.spread:.2g}" if value and value.spread is not None else ""
    ours = "-" if value is None else f"{value.value:.4g}{spread}"
    return ours if paper is None else f"{ours} ({paper:g})"


def _paper_rows(table: GeneratorTable) -> list[str]:
    return [spec.name for spec in table.specs if spec.trained is None]


def _item(table: GeneratorTable) -> str:
    name = table.item.partition(",")[0]
    return name[0].lower() + name[1:]


def main(
    table: GeneratorTable,
    columns: Mapping[str, Column],
    claims_of: Callable[[Mapping[str, final_tables.Row]], list[Sign]],
    description: str | None,
    argv: list[str] | None = None,
) -> int:
    """The command line of a table's script; `claims_of` makes the signs of the chosen rows."""
    results = final_tables.results_folder(description, argv)
    try:
        chosen = publish(table, columns, results)
        found = claims_of(chosen.rows)
        claims.write(found, results / "tables", f"{table.name}_signs", _item(table), DECIDES)
    except (records.RecordError, tables.TableError) as error:
        print(f"{table.name}: {error}", file=sys.stderr)
        return 2
    print(claims.markdown(found, _item(table), DECIDES))
    return 0
