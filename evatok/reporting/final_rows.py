"""The rows of tables of trained tokenizers: which records make up each, and its values.

A row specifies how a tokenizer was trained (the facts in its checkpoint's header) and measured. One table shows only
records of equal size, steps, training clips, perceptual loss, protocol, router and, unless its rows differ in it,
alignment, under the newest version of its protocol: the set that fills the most rows; among ties, the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from evatok.metrics import catalogue
from evatok.reporting.command_line import OwnClips
from evatok.storage import records
from evatok.storage.records import Record

PROTOCOL = "embedded-reconstruction"
UNIFORM = {"toy": 64, "small": 256, "paper": 256}
"""Tokens per block of the uniform rows, by size: the fixed-length baseline, the paper's 1,024 per clip."""
COLUMNS = ("psnr", "lpips", "st_lpips", "rfvd", "rtokens")
"""ST-LPIPS is not LPIPS and has its own column."""
FURTHER = ("motion_ratio", "motion_correlation", "codebook_perplexity")
"""Columns that the papers lack, placed last, if a record of the table has them."""
OF_A_SET = ("rfvd",)
"""Metrics whose spread in records is a standard deviation over clip choices, not half an interval."""
OWN_METRICS = "psnr,ssim,l1,mse,st_lpips_alex,rfvd"
MEASURED = "psnr,ssim,l1,mse,st_lpips_alex,rfvd,kvd"


@dataclass(frozen=True)
class Spec:
    """A row's definition: facts of the training, and the assignment it is measured under ("uniform" or "router").

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
        if self.measured == "router":  # trained with a router: measured under that router
            return model.get("parents", {}).get("router", model["router"]) == model["router"]
        row = [UNIFORM[facts["size"]]]
        return model["row"] == facts.get("row", row) == row


def shipped(rule: str) -> Spec:
    """Return the final tokenizer of a rule that generators are trained on: the one with the semantic discriminator."""
    return Spec("final", {"assignment": rule, "discriminator": "semantic"}, rule)


@dataclass(frozen=True)
class Value:
    """A metric of a row. `spread`: over clips, or the deviation over training seeds if there are several; `interval`:
    half a 95 % interval of the value (None: not measured); `metric`: its name in records."""

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
    """A row's records, one per training seed; none if nothing fills it."""

    spec: Spec
    records: tuple[Record, ...] = ()

    def value(self, metric: str) -> Value | None:
        """Return the mean over seeds of a metric, by its column, or None if no record holds it."""
        name = catalogue.of(metric).name
        held = [record for record in self.records if name in record.metrics]
        if not held:
            return None
        first, values = held[0].metrics[name], np.array([record.metrics[name].value for record in held])
        ids, higher = tuple(record.id for record in held), first.direction == "higher"
        if len(held) == 1:
            wide = first.spread if first.spread is None or name not in OF_A_SET else 1.96 * first.spread
            return Value(first.value, first.unit, first.n, first.spread, wide, higher, ids, name)
        spread, interval = float(values.std(ddof=1)), half_interval(values)
        return Value(float(values.mean()), first.unit, len(held), spread, interval, higher, ids, name)


def half_interval(values: np.ndarray) -> float:
    """Return half of Student's 95 % interval of the mean of values (n,), one per seed, at least two."""
    return float(stdtrit(len(values) - 1, 0.975)) * float(values.std(ddof=1)) / len(values) ** 0.5


@dataclass(frozen=True)
class TableSpec:
    """What a table shows: its name in results/, description, rows and columns, and whether a paper has it."""

    name: str
    item: str
    specs: tuple[Spec, ...]
    columns: tuple[str, ...] = COLUMNS
    longest: bool = False  # among sets that fill equally many rows, prefer the longest training over the newest
    protocol: str = PROTOCOL
    published: bool = True

    @property
    def differs_in_alignment(self) -> bool:
        """Whether some of its rows are aligned and others not; in other tables all are, or none is."""
        return any("alignment" in (spec.trained or {}) for spec in self.specs)


@dataclass(frozen=True)
class Chosen:
    """The records of a table: all its rows by name, and what they have in common (empty without records)."""

    rows: Mapping[str, Row]
    common: Mapping[str, Any] = field(default_factory=dict)


def choose(folder: Path, table: TableSpec, own: OwnClips | None = None) -> Chosen:
    """Return the records in `folder` that fill the most rows of the table, for its protocol or a user's own clips."""
    sets: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    found = records.query(folder, kind="evaluate", name=own.protocol if own else table.protocol)
    for record in filter(own.has, found) if own else of_newest_version(found):
        if record.model.get("facts"):
            aligned = None if table.differs_in_alignment else record.model["facts"].get("alignment")
            sets[(aligned, *_common(record))].append(record)
    candidates = []
    for members in sets.values():
        for part in by_router(members):
            rows = rows_of(table, part)
            held = [record for row in rows.values() for record in row.records]
            if held:
                steps, newest = held[0].model["facts"]["steps"], max(record.created for record in held)
                filled = sum(bool(row.records) for row in rows.values())
                candidates.append(((filled, steps if table.longest else 0, newest), rows, held))
    if not candidates:
        return Chosen({spec.name: Row(spec) for spec in table.specs})
    _, rows, held = max(candidates, key=lambda candidate: candidate[0])
    return Chosen(rows, {**held[0].model["facts"], "records": len(held)})


def of_newest_version(found: Sequence[Record]) -> list[Record]:
    """Return those comparable under the newest protocol version among them."""
    fit = [record for record in found if record.protocol.get("comparable") is True]
    versions = [(record.protocol.get("name"), record.protocol.get("version", 0)) for record in fit]
    newest = {name: max(number for other, number in versions if other == name) for name, _ in versions}
    return [record for record, (name, number) in zip(fit, versions, strict=True) if number == newest[name]]


def _common(record: Record) -> tuple[Any, ...]:
    """Return what the records of one table have in common."""
    facts, parents = record.model["facts"], record.model.get("parents", {})
    told = (facts["size"], facts["steps"], facts.get("perceptual"))
    return (*told, parents.get("train_clips"), record.protocol.get("hash"))


def by_router(members: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield the records measured under each router, each time with those measured under none."""
    routers = {record.model["router"] for record in members if record.model["assignment"] == "router"}
    for router in sorted(routers) or [None]:
        yield [record for record in members if record.model.get("router", router) == router]


def rows_of(table: TableSpec, members: Sequence[Record]) -> dict[str, Row]:
    """Return every row of the table with its records: the newest of each training seed."""
    rows = {}
    for spec in table.specs:
        by_seed = {record.model["facts"]["seed"]: record for record in members if spec.fits(record)}
        rows[spec.name] = Row(spec, tuple(by_seed[seed] for seed in sorted(by_seed)))
    return rows
