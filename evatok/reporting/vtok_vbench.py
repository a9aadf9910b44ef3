"""VTok's Table 2: VBench's columns as in the paper, and their substitutes here.

VBench's networks cannot run here, so its columns stay dashes; beside them are the share of correct answers (for its
semantic score), samples faster than the median real clip (dynamic degree), evenness of motion (smoothness), and gFVD.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from evatok.evaluation import per_clip
from evatok.metrics import catalogue
from evatok.reporting import claims, tables
from evatok.reporting.claims import UNKNOWN, Gain, Sign
from evatok.reporting.command_line import results_of
from evatok.reporting.tables import Cell
from evatok.reporting.vtok_generated import GENERATION, gated
from evatok.reporting.vtok_rows import SEEDS, Shown, shown
from evatok.reporting.vtok_tables import DECIDES, above
from evatok.storage.environment import REPOSITORY
from evatok.vtok.scoring import AVERAGE, DRAWS

NAME = "vtok_table2"
CAPTION = (
    "VTok Table 2, stand-ins for VBench: samples for the captions of moving-shapes (toy).\n"
    "Of the paper's columns nothing is measured: its values stand alone. Ours beside them are right answers (for its\n"
    "semantic score), moving samples (dynamic degree), evenness (smoothness) and gFVD."
)
ROWS = {"none": "HunyuanVideo", "frames8": "frames", "vtok": "vtok"}
"""Our rows by name, and the paper's name on file."""
VBENCH = (
    "total",
    "quality",
    "semantic",
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "object_class",
    "multiple_objects",
)
OURS = {"semantic": AVERAGE, "dynamic_degree": "dynamic_degree", "motion_smoothness": "smoothness", "gfvd": "gfvd"}
_FILES = {"dynamic_degree": "fast", "motion_smoothness": "smooth"}
_ALIKE = 0.3  # points within which the paper's smoothness stays


def main(doc: str | None, argv: list[str] | None = None) -> int:
    """Write the table and its verdicts from stored records; exit code 2 for an invalid record."""
    with results_of(NAME, doc, argv) as results:
        rows = shown(results / "records", (*ROWS, "true"), family=GENERATION)
        paper = tables.paper_values(NAME)
        cells = [_cell(name, metric, rows[name], paper) for name in ROWS for metric in (*VBENCH, "gfvd")]
        text = f"{CAPTION}\n\n{tables.markdown(_lines(rows, paper))}\n"
        tables.write(results / "tables", NAME, tables.tidy(cells), text)
        print(text)
        claims.publish(signs(rows), results, f"{NAME}_claims", CAPTION.splitlines()[0].rstrip("."), DECIDES)
    for name in ROWS:
        if len(rows[name].records) < len(SEEDS):
            print(
                f"{name}: {len(rows[name].records)} of {len(SEEDS)} seeds; {GENERATION.command} {name}", file=sys.stderr
            )
    return 0


def signs(rows: Mapping[str, Shown], root: Path = REPOSITORY) -> list[Sign]:
    """Alignment and dynamics rise, evenness stays."""
    found = [
        above(rows, "frames8", "none", "semantic 77.20 against 75.82"),
        above(rows, "vtok", "frames8", "semantic 80.15 against 77.20"),
        _more(rows, "frames8", "none", "72.29 against 70.83", root),
        _more(rows, "vtok", "frames8", "76.11 against 72.29", root),
        _even(rows, "vtok", "none", "99.02 against 98.99", root),
    ]
    return gated(rows, found)


def _more(rows: Mapping[str, Shown], first: str, second: str, paper: str, root: Path) -> Sign:
    name = f"{rows[first].spec.label} above {rows[second].spec.label}, dynamic degree"
    gain = _gain(rows[first], rows[second], "dynamic_degree", root)
    if gain is None:
        return Sign(name, paper, "-", UNKNOWN)
    return Sign(name, paper, gain.told, gain.above())


def _even(rows: Mapping[str, Shown], first: str, second: str, paper: str, root: Path) -> Sign:
    name = f"{rows[first].spec.label} within {_ALIKE} points of {rows[second].spec.label}, smoothness"
    gain = _gain(rows[first], rows[second], "motion_smoothness", root)
    return Sign(name, paper, "-", UNKNOWN) if gain is None else Sign(name, paper, gain.told, gain.within(_ALIKE))


def _gain(one: Shown, other: Shown, metric: str, root: Path) -> Gain | None:
    """Compare samples for the same captions by `claims.gain_of`; None without samples."""
    from evatok.metrics.bootstrap import bootstrap_statistic  # imports PyTorch

    ours, theirs = (_samples(row, metric, root) for row in (one, other))
    if not (ours and theirs) or len({len(values) for values in (*ours.values(), *theirs.values())}) > 1:
        return None

    def clips(difference: np.ndarray) -> Gain:
        found = bootstrap_statistic(100 * difference, lambda drawn: drawn.mean(), draws=DRAWS)
        return Gain(found.value, found.low, found.high)

    return claims.gain_of(ours, theirs, clips)


def _samples(row: Shown, metric: str, root: Path) -> dict[int, np.ndarray]:
    """Return (N,) values per caption by seed; none unless every seed has them."""
    held = {record.config["seed"]: per_clip.read(record, root) or {} for record in row.records}
    name = _FILES[metric]
    values = {seed: arrays[name].astype(np.float64) for seed, arrays in held.items() if name in arrays}
    return values if len(values) == len(held) else {}


def _lines(rows: Mapping[str, Shown], paper: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    lines = []
    for name, theirs in ROWS.items():
        shown_values = {f"{metric} (paper)": _number(paper.get((theirs, metric)), 2) for metric in VBENCH}
        ours = {_title(metric): _number(rows[name].value(key)) for metric, key in OURS.items()}
        lines.append({"row": rows[name].spec.label, **ours, **shown_values, "seeds": str(len(rows[name].records))})
    return pd.DataFrame(lines)


def _title(metric: str) -> str:
    return catalogue.of(OURS[metric].partition(".")[0]).label


def _cell(name: str, metric: str, row: Shown, paper: Mapping[tuple[str, str], float]) -> Cell:
    """Return a cell; VBench's columns without a substitute have no value of ours."""
    published, key = paper.get((ROWS[name], metric)), OURS.get(metric)
    unit = "" if metric == "gfvd" else "%"
    if not row.records or key is None or row.value(key) is None:
        return Cell(name, metric, published, None, unit, None, "paper-only", None)
    last, ids = row.records[-1], " ".join(record.id for record in row.records)
    count = last.metrics[key].n
    return Cell(name, metric, published, row.value(key), unit, count, last.status, ids, row.deviation(key))


def _number(value: float | None, decimals: int = 1) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
