"""Quality against tokens: which records of `evatok.experiments.curves` are shown, their table, claims and figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evatok.metrics import catalogue
from evatok.pictures import figures
from evatok.reporting import claims, command_line, curve_claims
from evatok.reporting.tables import Cell
from evatok.storage import records
from evatok.storage.records import Record

Sets = Mapping[str, tuple[str, str]]
"""Rows of tables -> data and split of their set."""
SETS: Sets = {
    "validation": ("freedoom", "validation"),
    "test": ("freedoom", "test"),
    "unseen": ("arcade-seen", "validation"),
    "unseen_by_proxy": ("arcade-held-out", "validation"),
}
"""Data and split of each set; the paper shows validation and unseen clips."""
PANELS = ("st_lpips_alex", "rfvd", "psnr")
"""The paper's panels are LPIPS, here replaced by ST-LPIPS (not the same), and rFVD; PSNR is from its Fig. 5."""
SAVINGS = {"saving_rfvd": "rfvd", "saving_st_lpips": "st_lpips_alex", "saving_psnr": "psnr"}
RULES = {
    "uniform": "uniform",
    "max_reward": "max reward",
    "router": "router",
    "router_soft": "router, soft targets",
    "pyramid_router": "pyramid router",
    "feature_router": "feature router",
    "threshold": "threshold",
}
Chosen = dict[str, dict[str, Record]]
"""Records by set, as the table calls it, and metric."""
COLOURS = dict(zip(RULES, (figures.COLOURS[6], *figures.COLOURS[:6]), strict=True))


def parser(description: str | None) -> argparse.ArgumentParser:
    """Build the command line of a curve figure, for the embedded sets or a user's own."""
    found = command_line.with_networks(command_line.with_own(command_line.parser(description)))
    return command_line.with_metrics(found, ",".join(PANELS))


def chosen_records(folder: Path, sets: Sets = SETS, panels: Sequence[str] = PANELS) -> Chosen:
    """Return per set and metric the newest record that holds it, all of one proxy, candidate table and reward.

    Measurements on a subset of the clips do not count.
    """
    every = sorted(records.query(folder, kind="curves", limit=None), key=lambda record: record.created)
    by_age = [record for record in every if _data(record) in sets.values()]
    chosen: Chosen = {}
    for row, data in sets.items():
        of_set = [record for record in by_age if _data(record) == data]
        found = [record for record in of_set if _proxy(record) == _proxy(by_age[-1])]
        together = [record for record in found if _study(record) == _study(found[-1])]
        held = {metric: record for record in together for metric in panels if metric in record.protocol["metrics"]}
        if held:
            chosen[row] = held
    return chosen


def _data(record: Record) -> tuple[str, str]:
    return record.protocol["set"], record.protocol["split"]


def _proxy(record: Record) -> Any:
    return record.model.get("sha256")


def _study(record: Record) -> list[Any]:
    """Return what records must share for their metrics to be comparable."""
    told = [record.protocol.get(key) for key in ("table", "quality", "reference", "scale")]
    return [_proxy(record), *told]


def frame_of(chosen: Chosen) -> pd.DataFrame:
    """Return the points of all sets by the panels' metrics, see `curve_claims.frame_of`."""
    parts = [_points(row, metric, record) for row, held in chosen.items() for metric, record in held.items()]
    return pd.concat(parts, ignore_index=True)


def _points(row: str, metric: str, record: Record) -> pd.DataFrame:
    frame = curve_claims.frame_of(record, row)
    return frame[frame["metric"] == metric]


def panels_of(frame: pd.DataFrame) -> list[str]:
    """Return which of the panels' metrics were measured."""
    return [metric for metric in PANELS if metric in set(frame["metric"])]


def to_cells(chosen: Chosen, paper: Mapping[tuple[str, str], float], sets: Sets = SETS) -> list[Cell]:
    """`<set>/<rule>` by saving: all measured rules of a set, or only the paper's router."""
    cells = []
    for row in _shown(chosen, sets):
        held = chosen.get(row, {})
        measured = {rule for record in held.values() for rule in record.model["savings"]} or {"router"}
        for rule in RULES:
            if rule in measured:
                cells += [
                    cell_of(f"{row}/{rule}", rule, saving, held.get(metric), paper)
                    for saving, metric in SAVINGS.items()
                ]
    return cells


def cell_of(row: str, rule: str, metric: str, record: Record | None, paper: Mapping[tuple[str, str], float]) -> Cell:
    """Return one saving; a dash if the rule's points do not bracket the reference's quality."""
    found = None if record is None else record.metrics.get(f"{rule}.saving.{SAVINGS[metric]}")
    status = "paper-only" if record is None else record.status
    made_by = None if record is None else record.id
    value, n = None if found is None else found.value, None if record is None else record.protocol["clips"]
    half = None if found is None else found.spread  # for a saving, records hold half its interval
    return Cell(row, metric, paper.get((row, metric)), value, "%", n, status, made_by, half, half)


def caption(chosen: Chosen) -> str:
    named = {record.protocol["reference"] for held in chosen.values() for record in held.values()}
    references = sorted(name.replace("uniform.", "") for name in named)
    against = f"{' and '.join(references)} tokens a block" if references else "the fixed-length baseline"
    return (
        f"Main Fig. 4, ours (paper): percent of the tokens saved at the quality of the uniform row of {against} "
        "(paper: 256, 1,024 a clip), read off the curve through a rule's points. A dash: not measured, or no points of "
        "the rule on both sides of that quality; main_figure4_signs has bounds and intervals."
    )


def all_signs(chosen: Chosen, sets: Sets = SETS) -> list[claims.Sign]:
    """Return the claims about every set by every panel's metric."""
    found = []
    for row in _shown(chosen, sets):
        for metric in PANELS:
            record = chosen.get(row, {}).get(metric)
            frame = None if record is None else curve_claims.frame_of(record, row)
            found += curve_claims.signs(row, frame, {} if record is None else record.model, metric)
    return found


def _shown(chosen: Chosen, sets: Sets) -> list[str]:
    """Return the measured sets, and those of the paper."""
    return [row for row in sets if row in chosen or row in curve_claims.PAPER_SAVES]


def tell_missing(chosen: Chosen, sets: Sets = SETS) -> None:
    """Print the commands that would measure the missing sets or metrics; nothing for a user's set."""
    for row, (data, split) in SETS.items() if sets == SETS else ():
        missing = [metric for metric in PANELS if metric not in chosen.get(row, {})]
        if missing:
            told = f"table=results/tables/candidates/{data}-{split}.parquet \"metrics='{','.join(missing)}'\""
            print(f"{row}: no {', '.join(missing)}; python -m evatok.experiments.curves with embedded {told}")


def draw(
    frame: pd.DataFrame,
    metrics: list[str],
    folder: Path,
    name: str,
    sets: Sets = SETS,
) -> None:
    """Draw a panel per set and metric, quality over mean tokens, a line per rule; print the SVG's path."""
    frame = frame[frame["metric"].isin(metrics)]
    rows = list(dict.fromkeys(frame["set"]))
    if not rows:
        print(f"{name}: no record holds {' or '.join(PANELS)}, so there is nothing to draw", file=sys.stderr)
        return
    with figures.style():
        figure = Figure(figsize=(3.1 * len(metrics), 2.6 * len(rows) + 0.5))
        axes = figure.subplots(len(rows), len(metrics), squeeze=False)
        for row, line in zip(rows, axes, strict=True):
            for metric, panel in zip(metrics, line, strict=True):
                _panel(panel, frame[(frame["set"] == row) & (frame["metric"] == metric)])
                panel.set_title(f"{row}: {sets[row][0]}")
                panel.set_ylabel(catalogue.of(metric).with_unit)
        handles = {
            text: line for panel in axes.flat for line, text in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        print(f"figure: {figures.save(figure, folder, name, frame)}")


def _panel(panel: Axes, frame: pd.DataFrame) -> None:
    for rule, label in RULES.items():
        own = frame[frame["rule"] == rule].sort_values("tokens")
        if not own.empty:
            line = "--" if rule == "uniform" else "-"
            panel.plot(own["tokens"], own["value"], line, marker="o", color=COLOURS[rule], label=label)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.set_xlabel("mean tokens a clip")
