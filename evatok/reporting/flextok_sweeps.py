"""VideoFlexTok's Figure 6: class score and gFVD over the generator's size, its training tokens, and its operations.

Points are unguided `sample` records of time-first generators with few and with all tokens, and of ones on the 3D grid.
A sweep of size fixes steps and batch, a sweep of training tokens fixes the size, and a sweep of operations uses the
compute-optimal trainings: D = 20 N tokens for N weights in the layers. Peak learning rates differ between points, as
they are inverse to the generator's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from evatok.metrics import catalogue
from evatok.pictures import figures
from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Row, Spec
from evatok.reporting.flextok_generation import (
    drawn_alike,
    flow_guided,
    most_tokens,
    of_tokenizer,
    taught_all,
    tokenizer_of,
    tokenizer_trained,
)
from evatok.storage.records import Record

GRID = "3D grid"
KEPT = 4
OPTIMAL, WITHIN = 20.0, 0.05
"""Training tokens per weight of the layers, and the tolerance on it."""
METRICS = ("class_consistency", "gfvd")


@dataclass(frozen=True)
class Point:
    """A generator at one number of tokens, with its records, one per seed."""

    line: str
    size: int
    tokens: float
    flops: float
    records: tuple[Record, ...]

    @property
    def row(self) -> Row:
        return Row(Spec(self.name, None), self.records)

    @property
    def name(self) -> str:
        return f"{self.line}, {self.size / 1e6:.2g}M weights after {self.tokens / 1e6:.2g}M tokens"


class Sweep(NamedTuple):
    """What varies along a sweep: an attribute of points, its label, and the points."""

    axis: str
    label: str
    points: tuple[Point, ...]


def line_of(record: Record) -> str:
    """Return the line a record is on: the grid, or the tokens per latent frame; "" for none."""
    model, told = record.model, tokenizer_of(record)
    plain = (model["guidance"], model["flow_steps"]) == (1, flextok.SAMPLED) and not flow_guided(record)
    if not plain or not taught_all(record) or not of_tokenizer(record) or "trunk_parameters" not in model:
        return ""
    if told.get("form") == "grid":
        return GRID
    if (model["facts"]["order"], told.get("form")) != ("time-first", "flexible"):
        return ""
    kept = model["kept"]
    return "all tokens" if kept == most_tokens(record) else f"{flextok.counted(kept)} per frame"


def points_of(found: Sequence[Record]) -> list[Point]:
    """Return points with equal clips, protocol and drawing, the largest such set; the newest record per seed."""
    sets: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[int, Record]]] = {}
    for record in found:
        if line := line_of(record):
            model, facts = record.model, record.model["facts"]
            key = (line, model["trunk_parameters"], model["training_tokens"], model["training_flops"])
            alike = (*drawn_alike(record), *tokenizer_trained(record))
            sets.setdefault(alike, {}).setdefault(key, {})[facts["seed"]] = record
    if not sets:
        return []
    best = max(sets.values(), key=len)
    return [
        Point(str(line), size, tokens, flops, tuple(held[seed] for seed in sorted(held)))
        for (line, size, tokens, flops), held in sorted(best.items())
    ]


def sweeps_of(points: Sequence[Point]) -> list[Sweep]:
    """Return the three sweeps, left to right as in the paper, omitting those with fewer than two values."""
    by_tokens = _largest(points, "tokens", "size")
    by_size = _largest(points, "size", "tokens")
    optimal = tuple(p for p in points if abs(p.tokens / p.size / OPTIMAL - 1) <= WITHIN)
    found = [
        Sweep("size", "weights of the layers", by_tokens),
        Sweep("tokens", "training tokens", by_size),
        Sweep("flops", "training FLOPs, D = 20 N", optimal),
    ]
    return [sweep for sweep in found if len({getattr(point, sweep.axis) for point in sweep.points}) > 1]


def _largest(points: Sequence[Point], same: str, varied: str) -> tuple[Point, ...]:
    """Among the sets of points that share `same`, return the one with the most values of `varied`."""
    sets: dict[Any, list[Point]] = {}
    for point in points:
        sets.setdefault(getattr(point, same), []).append(point)
    return tuple(max(sets.values(), key=lambda held: len({getattr(p, varied) for p in held}), default=()))


def frame_of(sweeps: Sequence[Sweep]) -> pd.DataFrame:
    """Return a line per sweep, point and metric."""
    lines = []
    for sweep in sweeps:
        for point in sweep.points:
            for metric in METRICS:
                if value := point.row.value(metric):
                    told = (point.line, point.size, point.tokens, point.flops)
                    lines.append((sweep.axis, *told, metric, value.value, value.n, " ".join(value.ids)))
    columns = ["sweep", "line", "size", "tokens", "flops", "metric", "value", "n", "record"]
    return pd.DataFrame(lines, columns=columns)


def draw(sweeps: Sequence[Sweep], folder: Path, name: str) -> pd.DataFrame:
    """Draw a column per sweep and a row per metric; write <folder>/<name>.{svg,csv} and return what is drawn."""
    frame = frame_of(sweeps)
    with figures.style():
        figure = Figure(figsize=(3.2 * len(sweeps), 2.5 * len(METRICS)))
        grid = figure.subplots(len(METRICS), len(sweeps), squeeze=False)
        for row, metric in zip(grid, METRICS, strict=True):
            for axes, sweep in zip(row, sweeps, strict=True):
                own = frame[(frame["sweep"] == sweep.axis) & (frame["metric"] == metric)]
                for line, group in own.groupby("line"):
                    ordered = group.sort_values(sweep.axis)
                    axes.plot(ordered[sweep.axis], ordered["value"], marker="o", label=line)
                axes.set_xscale("log")
                axes.set_xlabel(sweep.label)
                axes.set_ylabel(catalogue.of(metric).with_unit)
        figure.axes[0].legend()
        figures.save(figure, folder, name, frame)
    return frame


def claims_of(sweeps: Sequence[Sweep]) -> list[Sign]:
    """Few tokens win at the smallest size, early in training, and at every compute-optimal training."""
    by_axis = {sweep.axis: sweep for sweep in sweeps}
    signs = []
    few = f"{KEPT} tokens per frame"
    for axis in ("size", "tokens"):
        points = by_axis[axis].points if axis in by_axis else ()
        said = {
            "size": "score .79 against .42, gFVD 120 against 190 at 128M (plot)",
            "tokens": ".55 against .12 (plot)",
        }
        lowest = _end(points, axis, min)
        label = {"size": "smallest generators", "tokens": "fewest training tokens"}[axis]
        signs += [_compare(label, lowest.get(few), lowest.get(GRID), metric, said[axis]) for metric in METRICS]
    signs.append(_smaller(by_axis.get("size"), few))
    points = by_axis["flops"].points if "flops" in by_axis else ()
    for flops in sorted({point.flops for point in points if point.line == few}) or [0.0]:
        held = {point.line: point for point in points if point.flops == flops}
        label = f"compute-optimal, {flops:.2g} FLOPs" if flops else "compute-optimal"
        signs.append(_compare(label, held.get(few), held.get(GRID), "class_consistency", "better at each (plot)"))
    return signs


def _end(points: Sequence[Point], axis: str, which: Any) -> dict[str, Point]:
    """Return the points at one end of a sweep, by line."""
    ends = which((getattr(point, axis) for point in points), default=None)
    return {point.line: point for point in points if getattr(point, axis) == ends}


def _compare(label: str, one: Point | None, other: Point | None, metric: str, paper: str) -> Sign:
    """Claim that few tokens are better than the grid, under a name without numbers."""
    rows: Mapping[str, Row] = {
        "few": one.row if one else Row(Spec("few", None)),
        "grid": other.row if other else Row(Spec("grid", None)),
    }
    found = claims.better(rows, "few", "grid", metric, paper)
    name = f"{label}: {KEPT} tokens per frame better than the 3D grid, {metric}"
    return Sign(name, paper, found.ours, found.verdict)


def _smaller(sweep: Sweep | None, few: str) -> Sign:
    """A generator with few tokens is no worse than the largest on the grid, which is at least five times as large.

    Of those that are small enough, it is the largest.
    """
    name, paper = (
        f"with {few} a fifth of the size is no worse than the 3D grid, class score",
        "5 to 10 times smaller (plot)",
    )
    points = sweep.points if sweep else ()
    pairs = [
        (one, other)
        for one in points
        for other in points
        if one.line == few and other.line == GRID and other.size >= 5 * one.size
    ]
    if not pairs:
        return Sign(name, paper, "-", claims.UNKNOWN)
    one, other = max(pairs, key=lambda pair: (pair[1].size, pair[0].size))
    rows = {"few": one.row, "grid": other.row}
    found = claims.better(rows, "few", "grid", "class_consistency", paper, or_equal=True)
    told = found.ours if found.verdict == claims.UNKNOWN else f"{one.size:,} and {other.size:,} weights: {found.ours}"
    return Sign(name, paper, told, found.verdict)
