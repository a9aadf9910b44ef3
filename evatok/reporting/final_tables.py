"""What the tables of trained tokenizers share: which records make up a row, its values, and how it is shown.

A row asks how a tokenizer was trained (the facts in its checkpoint's header) and how it was measured. One table shows
only records of equal size, steps, training clips, perceptual loss, protocol, router and, unless its rows differ in it,
alignment: the set that fills most of its rows, of several such sets the newest. What no record fills is a dash, and the
command that would fill it is printed.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from evatok import errors
from evatok.metrics import catalogue
from evatok.reporting import tables
from evatok.reporting.tables import Cell
from evatok.storage import records
from evatok.storage.records import Record

PROTOCOL = "embedded-reconstruction"
UNIFORM = {"toy": 64, "small": 256, "paper": 256}
"""Tokens per block of the uniform rows, by size: the baseline of fixed length, the paper's 1,024 per clip."""
COLUMNS = ("psnr", "lpips", "st_lpips", "rfvd", "rtokens")
"""ST-LPIPS is not LPIPS and has its own column."""
MOTION = ("motion_ratio", "motion_correlation")
"""Columns of motion, after the others, if a record of the table has them."""
OF_A_SET = ("rfvd",)
"""Metrics whose spread in records is a deviation over choices of clips, not half an interval."""
MEASURED = "psnr,ssim,l1,mse,st_lpips_alex,rfvd,kvd"


@dataclass(frozen=True)
class Spec:
    """What a row is: facts of the training, and the assignment it is measured under ("uniform" or "router").

    `trained` None: a row of the paper that has no counterpart among the embedded clips.
    """

    name: str
    trained: Mapping[str, Any] | None
    measured: str = "router"

    def fits(self, record: Record) -> bool:
        facts, model = record.model["facts"], record.model
        if self.trained is None or any(facts.get(key) != value for key, value in self.trained.items()):
            return False
        if model["assignment"] != self.measured:
            return False
        if self.measured == "router":  # whom a router taught is measured under that router
            return model.get("parents", {}).get("router", model["router"]) == model["router"]
        row = [UNIFORM[facts["size"]]]
        return model["row"] == facts.get("row", row) == row


def shipped(rule: str) -> Spec:
    """The final tokenizer of a rule that generators write for: with the semantic discriminator."""
    return Spec("final", {"assignment": rule, "discriminator": "semantic"}, rule)


@dataclass(frozen=True)
class Value:
    """A metric of a row. `spread`: over clips, or the deviation over training seeds where there are several;
    `interval`: half a 95 % interval of the value (None: not measured); `metric`: what its records call it."""

    value: float
    unit: str
    n: int
    spread: float | None
    interval: float | None
    higher: bool
    ids: tuple[str, ...]
    metric: str = ""


@dataclass(frozen=True)
class Row:
    """A row's records, one a training seed; none where nothing fills it."""

    spec: Spec
    records: tuple[Record, ...] = ()

    def value(self, metric: str) -> Value | None:
        """The mean over seeds of a metric, by its column, or None where no record holds it."""
        name = catalogue.of(metric).name
        held = [record for record in self.records if name in record.metrics]
        if not held:
            return None
        first, values = held[0].metrics[name], np.array([record.metrics[name].value for record in held])
        ids, higher = tuple(record.id for record in held), first.direction == "higher"
        if len(held) == 1:
            wide = first.spread if first.spread is None or name not in OF_A_SET else 1.96 * first.spread
            return Value(first.value, first.unit, first.n, first.spread, wide, higher, ids, name)
        spread = float(values.std(ddof=1))
        interval = float(stdtrit(len(held) - 1, 0.975)) * spread / len(held) ** 0.5
        return Value(float(values.mean()), first.unit, len(held), spread, interval, higher, ids, name)


@dataclass(frozen=True)
class TableSpec:
    """What a table shows: its name in results/, what it is, its rows, columns, and whether a paper has it."""

    name: str
    item: str
    specs: tuple[Spec, ...]
    columns: tuple[str, ...] = COLUMNS
    longest: bool = False  # of sets that fill equally many rows, the longest training instead of the newest
    protocol: str = PROTOCOL
    published: bool = True

    @property
    def differs_in_alignment(self) -> bool:
        """Whether its rows say which of them are aligned; all rows of other tables are, or none is."""
        return any("alignment" in (spec.trained or {}) for spec in self.specs)


@dataclass(frozen=True)
class Chosen:
    """The records of a table: its rows by name, all there, and what they have in common (empty without records)."""

    rows: Mapping[str, Row]
    common: Mapping[str, Any] = field(default_factory=dict)


def choose(folder: Path, table: TableSpec) -> Chosen:
    """The set of records in `folder` that fills most rows of the table."""
    sets: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records.query(folder, kind="evaluate", name=table.protocol):
        if record.model.get("facts") and record.protocol.get("comparable") is True:
            aligned = None if table.differs_in_alignment else record.model["facts"].get("alignment")
            sets[(aligned, *_common(record))].append(record)
    candidates = []
    for members in sets.values():
        routers = {record.model["router"] for record in members if record.model["assignment"] == "router"}
        for router in sorted(routers) or [None]:
            rows = _rows(table, [r for r in members if r.model.get("router", router) == router])
            held = [record for row in rows.values() for record in row.records]
            if held:
                steps, newest = held[0].model["facts"]["steps"], max(record.created for record in held)
                filled = sum(bool(row.records) for row in rows.values())
                candidates.append(((filled, steps if table.longest else 0, newest), rows, held))
    if not candidates:
        return Chosen({spec.name: Row(spec) for spec in table.specs})
    _, rows, held = max(candidates, key=lambda candidate: candidate[0])
    return Chosen(rows, {**held[0].model["facts"], "records": len(held)})


def _common(record: Record) -> tuple[Any, ...]:
    """What the records of one table have in common."""
    facts, parents = record.model["facts"], record.model.get("parents", {})
    told = (facts["size"], facts["steps"], facts.get("perceptual"))
    return (*told, parents.get("train_clips"), record.protocol.get("hash"))


def _rows(table: TableSpec, members: list[Record]) -> dict[str, Row]:
    """Every row of the table with its records: of each training seed the newest."""
    rows = {}
    for spec in table.specs:
        by_seed = {record.model["facts"]["seed"]: record for record in members if spec.fits(record)}
        rows[spec.name] = Row(spec, tuple(by_seed[seed] for seed in sorted(by_seed)))
    return rows


def with_motion(table: TableSpec, chosen: Chosen) -> TableSpec:
    """The table with the columns of motion that any of its records fills: those of older records lack them."""
    told = [name for name in MOTION if any(row.value(name) for row in chosen.rows.values())]
    return replace(table, columns=(*table.columns, *told))


def to_cells(table: TableSpec, chosen: Chosen, paper: Mapping[tuple[str, str], float]) -> list[Cell]:
    """One cell per row and column; with several seeds `record` holds their ids, separated by a blank."""
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
    """What is compared with what, and what the intervals are."""
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
    """`ours ± spread (paper)`, to the metric's decimals."""
    decimals = catalogue.of(cell.metric).decimals
    spread = "" if cell.spread is None else f" ± {cell.spread:.{decimals}f}"
    ours = "-" if cell.ours is None else f"{cell.ours:.{decimals}f}{spread}"
    return ours if cell.paper is None else f"{ours} ({cell.paper:g})"


def tail(row: tables.Row) -> dict[str, str]:
    """n of the first measured cell, and all records of the row."""
    measured = [cell for cell in row if cell.ours is not None]
    ids = dict.fromkeys(name for cell in measured for name in (cell.record or "").split())
    return {"n": str(measured[0].n) if measured else "-", "record": "<br>".join(ids) or "-"}


def commands(table: TableSpec, chosen: Chosen) -> list[str]:
    """What would fill each row without a record: at toy size its recipe, else two commands, train and measure."""
    size, steps = chosen.common.get("size", "toy"), chosen.common.get("steps")
    lines = []
    for name, row in chosen.rows.items():
        if row.records or row.spec.trained is None:
            continue
        if size == "toy":
            lines += [f"{name}:", f"  {made_by(recipe(row.spec, table.protocol))}"]
            continue
        checkpoint = f"results/checkpoints/final-{size}-{slug(row.spec.trained)}.safetensors"
        train, measure = _training(row.spec, size, steps, checkpoint), _measuring(row.spec, table, size, checkpoint)
        lines += [f"{name}:", f"  {train}", f"  {measure}"]
    return lines


def made_by(recipe: str) -> str:
    """The command that makes what a recipe is of, and all that it needs."""
    return f"python -m evatok.experiments.make {recipe}"


def recipe(spec: Spec, protocol: str = PROTOCOL) -> str:
    """The recipe that measures a toy row's first seed."""
    where = "" if protocol == PROTOCOL else f"-{protocol.removeprefix('embedded-')}"
    return f"evaluate-final-{slug(spec.trained or {})}-0-{spec.measured}{where}"


def slug(trained: Mapping[str, Any]) -> str:
    """A name for a tokenizer by its facts: router-semantic, uniform-transformer-aligned."""
    aligned = "-aligned" if trained.get("alignment") else ""
    return f"{trained['assignment']}-{trained['discriminator']}{aligned}"


def _training(spec: Spec, size: str, steps: int | None, checkpoint: str) -> str:
    trained: Mapping[str, Any] = spec.trained or {}
    settings = [size, f"assignment={trained['assignment']}", f"discriminator={trained['discriminator']}"]
    settings += {"router": [f"router={_router(size)}"], "uniform": [f"uniform_tokens={UNIFORM[size]}"]}.get(
        trained["assignment"], []
    )
    settings += ["alignment=none"] if trained.get("alignment") is False else []
    settings += [f"steps={steps}"] if steps else []
    work = f"work=results/work/{Path(checkpoint).stem}"
    return f"python -m evatok.experiments.stage4_final with {' '.join(settings)} {work} checkpoint={checkpoint}"


def _measuring(spec: Spec, table: TableSpec, size: str, checkpoint: str) -> str:
    assignment = f"router:{_router(size)}" if spec.measured == "router" else f"uniform:{UNIFORM[size]}"
    settings = f"size={size} protocol={table.protocol} checkpoint={checkpoint} assignment={assignment}"
    return f"python -m evatok.experiments.evaluate with {settings} \"metrics='{MEASURED}'\""


def _router(size: str) -> str:
    return f"results/checkpoints/router-{size}-pyramid-matched.safetensors"


def publish(spec: TableSpec, results: Path) -> Chosen:
    """Write and print the table, and print the commands that would fill its dashes."""
    chosen = choose(results / "records", spec)
    spec = with_motion(spec, chosen)
    cells = to_cells(spec, chosen, tables.paper_values(spec.name) if spec.published else {})
    tables.Table(spec.name, caption(spec, chosen), cells, shown=shown, tail=tail).publish(results)
    tell(commands(spec, chosen))
    return chosen


def tell(missing: Sequence[str]) -> None:
    """Print the commands that would fill the rows without a record."""
    if missing:
        print("What would fill the empty rows:\n" + "\n".join(missing) + "\n")


def main(spec: TableSpec, description: str | None, argv: list[str] | None = None) -> int:
    """The command line of a table's script."""
    results = results_folder(description, argv)
    with errors.one_line(spec.name):
        publish(spec, results)
    return 0


def results_folder(description: str | None, argv: list[str] | None = None) -> Path:
    """The folder that `--results` names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.REPOSITORY / "results", help="folder of results")
    folder: Path = parser.parse_args(argv).results
    return folder
