"""VTok's tables as shown: the paper's value beside ours, differences with paired intervals, and verdicts.

Each table has two files and its verdicts: <name>.csv with a value per line, <name>.md for reading. The paper's Tables 4
and 5 are about generated videos, ours about questions on real ones: the captions say so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from evatok.data.embedded.scene_text import CATEGORIES, NEEDS
from evatok.reporting import claims, tables
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, Gain, Sign
from evatok.reporting.command_line import results_of
from evatok.reporting.tables import Cell
from evatok.reporting.vtok_rows import SEEDS, UNDERSTANDING, Family, Shown, shown
from evatok.vtok.scoring import AVERAGE, check_same, lead

DECIDES = (
    f"{claims.RULE}. Differences are in points, on the same questions. Intervals are Student's over the differences "
    "seed by seed, widened if draws of the same clips in both rows reach further; rows with fewer than two seeds in "
    "common have the span of such draws over every seed."
)
Rows = Mapping[str, Shown]


@dataclass(frozen=True)
class VtokTable:
    """A table: its rows in order, the row the others are compared with, and its claims.

    `family` is what its rows are made of, `called` the paper's name of the rows on file, if different. `categories` and
    `needs` are those its clips are asked about.
    """

    name: str
    caption: str
    rows: tuple[str, ...]
    against: str
    claims: Callable[[Rows], list[Sign]]
    paper: str = ""
    family: Family = UNDERSTANDING
    called: Mapping[str, str] = field(default_factory=dict)
    categories: tuple[str, ...] = CATEGORIES
    needs: tuple[str, ...] = NEEDS


def main(table: VtokTable, doc: str | None, argv: list[str] | None = None) -> int:
    """Write a table and its verdicts from stored records; exit code 2 for an invalid record."""
    with results_of(table.name, doc, argv) as results:
        rows = shown(results / "records", table.rows, family=table.family)
        publish(table, rows, published(table), results)
    for name in table.rows:
        if len(rows[name].records) < len(SEEDS):
            print(
                f"{name}: {len(rows[name].records)} of {len(SEEDS)} seeds; {table.family.command} {name}",
                file=sys.stderr,
            )
    return 0


def published(table: VtokTable) -> dict[tuple[str, str], float]:
    """Return the paper's values under our row names."""
    held = tables.paper_values(table.paper) if table.paper else {}
    ours = {theirs: name for name, theirs in table.called.items()}
    return {(ours.get(row, row), metric): value for (row, metric), value in held.items()}


def publish(table: VtokTable, rows: Rows, paper: Mapping[tuple[str, str], float], results: Path) -> None:
    """Write and print <name>.csv, <name>.md, and <name>_claims.csv and .md."""
    shown_parts = (overview(rows, paper, table.against), parts(rows, table.categories), parts(rows, table.needs))
    text = "\n\n".join((table.caption, *shown_parts)) + "\n"
    tables.write(
        results / "tables", table.name, tables.tidy(cells_of(rows, paper, (*table.categories, *table.needs))), text
    )
    print(text)
    claims.publish(table.claims(rows), results, f"{table.name}_claims", table.caption.splitlines()[0], DECIDES)


def cells_of(rows: Rows, paper: Mapping[tuple[str, str], float], names: Sequence[str]) -> list[Cell]:
    """Return one value per row and metric, including accuracy by category and need."""
    metrics = ("tokens", AVERAGE, *(f"{AVERAGE}.{name}" for name in names))
    return [_cell(name, row, metric, paper.get((name, metric))) for name, row in rows.items() for metric in metrics]


def overview(rows: Rows, paper: Mapping[tuple[str, str], float], against: str) -> str:
    """Return tokens and average of each row beside the paper's, and its difference from the row `against`."""
    lines = [
        {
            "row": row.spec.label,
            "tokens (paper)": f"{row.tokens} ({_number(paper.get((name, 'tokens')), 0)})",
            "average % (paper)": f"{_measured(row, AVERAGE)} ({_number(paper.get((name, AVERAGE)))})",
            f"less {rows[against].spec.label}": "" if name == against else _told(gain(row, rows[against])),
            "seeds": str(len(row.records)),
        }
        for name, row in rows.items()
    ]
    return tables.markdown(pd.DataFrame(lines))


def parts(rows: Rows, names: Sequence[str]) -> str:
    """Return accuracy by category or by need."""
    lines = [
        {"row": row.spec.label, **{name: _number(row.value(f"{AVERAGE}.{name}")) for name in names}}
        for row in rows.values()
    ]
    return tables.markdown(pd.DataFrame(lines))


def gain(row: Shown, other: Shown, metric: str = AVERAGE) -> Gain | None:
    """Compare two rows in points by `claims.gain_of`; None if either has no outcomes.

    Raises:
        ScoringError: rows of other questions, or none of this kind.
    """
    if not (row.outcomes and other.outcomes):
        return None
    first = next(iter(row.outcomes.values()))
    for outcomes in (*row.outcomes.values(), *other.outcomes.values()):
        check_same(first, outcomes)

    def clips(difference: np.ndarray) -> Gain:
        found = lead(difference, first.mask(metric))
        return Gain(found.value, found.low, found.high)

    ours, theirs = ({seed: one.right for seed, one in each.outcomes.items()} for each in (row, other))
    return claims.gain_of(ours, theirs, clips)


def above(rows: Rows, first: str, second: str, paper: str, *, metric: str = AVERAGE, least: float = 0.0) -> Sign:
    """`first` is better than `second` by more than `least` points: the interval lies entirely above it."""
    what = metric.removeprefix(f"{AVERAGE}.").replace(AVERAGE, "average")
    more = f" by {least:g} points" if least else ""
    name = f"{rows[first].spec.label} above {rows[second].spec.label}{more}, {what}"
    found = gain(rows[first], rows[second], metric)
    if found is None:
        return Sign(name, paper, "-", UNKNOWN)
    return Sign(name, paper, found.told, found.above(least))


def alike(rows: Rows, first: str, second: str, paper: str, within: float, metric: str = AVERAGE) -> Sign:
    """The two differ by at most `within` points: the whole interval lies inside."""
    name = f"{rows[first].spec.label} within {within:g} points of {rows[second].spec.label}"
    found = gain(rows[first], rows[second], metric)
    return Sign(name, paper, "-", UNKNOWN) if found is None else Sign(name, paper, found.told, found.within(within))


def reaches(rows: Rows, name: str, metric: str, least: float, why: str = "-") -> Sign:
    """A row reaches a share; a gate, judged by its value alone."""
    what = metric.removeprefix(f"{AVERAGE}.").replace(AVERAGE, "average")
    value = rows[name].value(metric)
    told = "-" if value is None else f"{value:.1f} %"
    verdict = UNKNOWN if value is None else HOLDS if value >= least else FAILS
    return Sign(f"{rows[name].spec.label} reaches {least:g} %, {what}", why, told, verdict)


def gate(rows: Rows) -> Sign:
    """Frames name more motions than chance: otherwise a lead over them may only be one in learning."""
    return reaches(rows, "frames8", "accuracy.motion", 40, "gate: below it the frames' training has not converged")


def over_frames(rows: Rows) -> list[Sign]:
    """The paper's Table 4: VTok against eight frames, on average and where the paper reports gains."""
    return [
        above(rows, "vtok", "frames8", "43.9 against 42.4"),
        above(rows, "vtok", "frames8", "47.1 against 44.5", metric="accuracy.motion"),
        above(rows, "vtok", "frames8", "33.7 against 32.5", metric="accuracy.counting"),
        above(rows, "vtok", "frames8", "42.9 against 39.9", metric="accuracy.size"),
        above(rows, "vtok", "frames8", "-", metric="accuracy.late"),
    ]


def _cell(name: str, row: Shown, metric: str, paper: float | None) -> Cell:
    value = float(row.tokens) if metric == "tokens" else row.value(metric)
    if not row.records:
        return Cell(name, metric, paper, None, _unit(metric), None, "paper-only", None)
    last, ids = row.records[-1], " ".join(record.id for record in row.records)
    count = last.metrics[metric].n if metric in last.metrics else 0
    return Cell(name, metric, paper, value, _unit(metric), count, last.status, ids, row.deviation(metric))


def _unit(metric: str) -> str:
    return "tokens" if metric == "tokens" else "%"


def _measured(row: Shown, metric: str) -> str:
    deviation = row.deviation(metric)
    return _number(row.value(metric)) + ("" if deviation is None else f" ± {deviation:.1f}")


def _told(found: Gain | None) -> str:
    return "-" if found is None else found.told


def _number(value: float | None, decimals: int = 1) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
