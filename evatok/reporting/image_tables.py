"""Supplement Table 4: final image tokenizers at one length and with a router's, and their generators.

A row's reconstructions are the evaluations of its tokenizers, one per training seed: at the length of the fixed-length
baseline, or under the router they were trained with. Its samples come from generators on any of them, trained with the
same assignments. One table shows tokenizers of equal size, steps, training images, router and protocol, and generators
of equal training and sampling settings: the set that fills the most rows; among ties, the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok.reporting import claims, final_rows, final_tables, generation_rows
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, Sign
from evatok.reporting.command_line import OwnClips
from evatok.reporting.final_rows import Row, Spec, TableSpec, Value
from evatok.reporting.tables import Cell
from evatok.storage import records
from evatok.storage.records import Record

PROTOCOLS = ("embedded-images-reconstruction", "embedded-images-generation")
ROWS = ("uniform", "router")
TABLE = TableSpec(
    "table4",
    "Supplement Table 4, images: final tokenizers of one length and under a router",
    tuple(Spec(row, {"stage": 4, "modality": "image", "assignment": row}, row) for row in ROWS),
    published=False,
)
"""Its reconstruction rows, as measured on a user's images."""
OWN_METRICS = "psnr,ssim,l1,mse,st_lpips_alex,rfd_efficientnet"
RECONSTRUCTED = ("lpips", "st_lpips", "psnr", "rfid", "rfd_efficientnet", "rtokens")
SAMPLED = ("gfid", "gfd_efficientnet", "gtokens")
"""Columns; ST-LPIPS is not LPIPS, and distances of EfficientNet features are not FID: each has its own column."""
FEWER = {"rtokens": 0.199, "gtokens": 0.230}
"""Token shares of the paper's router: 205 of 256, and 197 of 256 generated."""


@dataclass(frozen=True)
class Chosen:
    """All rows of reconstructions and of samples by name."""

    reconstructed: Mapping[str, Row]
    sampled: Mapping[str, Row]

    def row(self, name: str, metric: str) -> Row:
        return (self.sampled if metric in SAMPLED else self.reconstructed)[name]

    def value(self, name: str, metric: str) -> Value | None:
        return self.row(name, metric).value(metric)


def choose(folder: Path, own: OwnClips | None = None) -> Chosen:
    """Return the records in `folder` that fill the most of the table; a user's own images have no samples."""
    if own:
        measured = list(filter(own.has, records.query(folder, kind="evaluate", name=own.protocol)))
        return _fullest(measured, [])
    measured = records.query(folder, kind="evaluate", name=PROTOCOLS[0])
    drawn = generation_rows.samples_in(folder, name=PROTOCOLS[1])
    return _fullest(*([r for r in found if r.protocol.get("comparable") is True] for found in (measured, drawn)))


def _fullest(measured: Sequence[Record], drawn: Sequence[Record]) -> Chosen:
    sets: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in measured:
        if record.model.get("facts") and any(spec.fits(record) for spec in TABLE.specs):
            sets[_common(record)].append(record)
    parts = [part for members in sets.values() for part in final_rows.by_router(members)]
    found = [Chosen(rows, _samples_on(rows, drawn)) for rows in (final_rows.rows_of(TABLE, p) for p in parts)]
    empty = {name: Row(Spec(name, None)) for name in ROWS}
    return max(found, key=_filled, default=Chosen(empty, empty))


def _common(record: Record) -> tuple[Any, ...]:
    facts, parents = record.model["facts"], record.model.get("parents", {})
    told = [facts.get(name) for name in ("size", "steps", "front", "perceptual", "discriminator")]
    return (*told, parents.get("train_clips"), parents.get("start"), record.protocol.get("hash"))


def _samples_on(made: Mapping[str, Row], drawn: Sequence[Record]) -> dict[str, Row]:
    """Return the samples on the rows' tokenizers, the newest of each, from the set that fills the most rows.

    A set is of equal generators, trained and sampled equally.
    """
    sets: dict[tuple[Any, ...], dict[str, dict[str, Record]]] = defaultdict(lambda: {name: {} for name in ROWS})
    for name, row in made.items():
        for sample in (sample for sample in drawn if _is_on(sample, row)):
            told = (*generation_rows.common_of(sample), sample.model["facts"].get("steps"))
            sets[told][name][sample.model["parents"]["tokenizer"]] = sample
    found = [{row: Row(made[row].spec, tuple(held.values())) for row, held in one.items()} for one in sets.values()]
    empty = {name: Row(row.spec) for name, row in made.items()}
    return max(found, key=lambda rows: _filled(Chosen({}, rows)), default=empty)


def _is_on(sample: Record, row: Row) -> bool:
    """Whether a generator was trained on one of a row's tokenizers, with the assignments that the row shows."""
    return any(generation_rows.measures(record, sample, PROTOCOLS[0]) for record in row.records)


def _filled(chosen: Chosen) -> tuple[int, str]:
    held = [row for rows in (chosen.reconstructed, chosen.sampled) for row in rows.values() if row.records]
    return len(held), max((record.created for row in held for record in row.records), default="")


def to_cells(chosen: Chosen, paper: Mapping[tuple[str, str], float]) -> list[Cell]:
    """Return one cell per row and column; with several seeds `record` holds their ids, separated by a blank."""
    cells = []
    for name in ROWS:
        for metric in (*RECONSTRUCTED, *SAMPLED):
            value, published = chosen.value(name, metric), paper.get((name, metric))
            if value is None:
                cells.append(Cell(name, metric, published, None, "", None, "paper-only", None))
                continue
            status = chosen.row(name, metric).records[0].status
            told = (value.value, value.unit, value.n, status, " ".join(value.ids), value.spread, value.interval)
            cells.append(Cell(name, metric, published, *told))
    return cells


def caption(chosen: Chosen, own: OwnClips | None = None) -> str:
    """State what is compared with what."""
    item = f"{TABLE.item}, and generators on them"
    held = [record for row in chosen.reconstructed.values() for record in row.records]
    if not held:
        return f"{item}. No record fills any of its rows yet; in brackets the paper's values."
    facts, seeds = held[0].model["facts"], max(len(row.records) for row in chosen.reconstructed.values())
    under = f"{PROTOCOLS[0]} and {PROTOCOLS[1]}"
    if own:
        under = f"{own.protocol} on images of your own ({own.name}), of which nothing is generated"
    drawn = [record.model for row in chosen.sampled.values() for record in row.records]
    if drawn:
        under += f"; generators of {drawn[0]['facts']['steps']} steps, sampled with guidance {drawn[0]['guidance']:g}"
    return (
        f"{item}. Ours (paper): {facts['size']} size, {facts['steps']} steps, up to {seeds} training seeds (n; after ± "
        f"their standard deviation), measured under {under}. Distances of EfficientNet features are no FID, ST-LPIPS "
        "is not LPIPS, and images, sizes and trainings differ: values compare with each other alone."
    )


def signs(chosen: Chosen) -> list[Sign]:
    """Return the paper's claims about its two rows: fewer tokens, worse reconstruction, no worse generation."""
    made, drawn = chosen.reconstructed, chosen.sampled
    return [
        fewer(chosen, "rtokens", "205 against 256 (19.9 %)"),
        claims.better(made, "uniform", "router", "st_lpips", "LPIPS 0.2205 against 0.2455", or_equal=True),
        claims.better(made, "uniform", "router", "rfd_efficientnet", "rFID 1.22 against 1.46", or_equal=True),
        fewer(chosen, "gtokens", "197 against 256 generated (23.0 %)"),
        claims.better(drawn, "router", "uniform", "gfd_efficientnet", "gFID 4.51 against 4.72", or_equal=True),
    ]


def fewer(chosen: Chosen, metric: str, paper: str) -> Sign:
    """The router's row uses at least the paper's share of tokens fewer."""
    name = f"router takes {100 * FEWER[metric]:.1f} % fewer {metric} than uniform"
    ours, other = chosen.value("router", metric), chosen.value("uniform", metric)
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    saved = 1 - ours.value / other.value
    told = f"{ours.value:.1f} against {other.value:.1f} ({100 * saved:.1f} % fewer; n = {ours.n})"
    return Sign(name, paper, told, HOLDS if saved >= FEWER[metric] else FAILS)


def tell_missing(chosen: Chosen) -> None:
    """Print the command that makes what no record fills."""
    if not all(row.records for rows in (chosen.reconstructed, chosen.sampled) for row in rows.values()):
        final_tables.tell(["python -m evatok.experiments.make images"])
