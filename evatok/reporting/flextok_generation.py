"""Rows of VideoFlexTok's generator tables: `sample` records by tokenizer, order, tokens and sampling settings.

Rows of one table are of generators of equal size, trained equally on equal clips, and on all tokens of tokenizers that
were trained equally too; drawn equally but for what rows vary, under one protocol: the set that fills the most rows;
among ties, the newest. A value without a record is a dash, and the recipes that would fill it are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evatok.reporting import claims, final_tables, flextok, generation_rows
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Chosen, Row, Spec, TableSpec, half_interval
from evatok.storage.records import Record

GROUP = "videoflextok-generators"
CEILING = "class_consistency_reconstructed"
"""Reconstructions at as many tokens that show their class: what a generator can be expected to reach at most."""
COLUMNS = ("gfvd", "class_consistency", CEILING, "gtokens")
TOKENIZER: dict[str, Any] = {"decoder_mask": "causal", "alignment": True}
"""Facts of the tokenizer of a row that does not name them."""
TRAINED: dict[str, Any] = {"stage": 1, "steps": 2000, "kept": "powers"}
"""Facts of the tokenizer's training that rows of one table share. Older records lack them; theirs have these values."""


@dataclass(frozen=True)
class GeneratorSpec(Spec):
    """A row: the tokenizer's facts (`trained`), the order, tokens per latent frame (None: all), and guidance.

    Facts that `trained` does not name are those of TOKENIZER. The generator was trained on all tokens, and the flow
    decoder has no guidance, as in the tables of reconstructions.
    """

    order: str = "time-first"
    kept: int | None = None
    guidance: float = 1.0
    flow_steps: int = flextok.SAMPLED

    def fits(self, record: Record) -> bool:
        model = record.model
        if model["facts"].get("order") != self.order or not taught_all(record) or flow_guided(record):
            return False
        if not of_tokenizer(record, {**TOKENIZER, **(self.trained or {})}):
            return False
        kept = most_tokens(record) if self.kept is None else self.kept
        return (model["kept"], model["guidance"], model["flow_steps"]) == (kept, self.guidance, self.flow_steps)


@dataclass(frozen=True)
class GeneratorTable:
    """A table of generators and its claims."""

    name: str
    item: str
    specs: tuple[GeneratorSpec, ...]
    claims_of: Callable[[Mapping[str, Row]], list[Sign]] = field(compare=False)
    columns: tuple[str, ...] = COLUMNS
    note: str = ""

    @property
    def table(self) -> TableSpec:
        return TableSpec(f"videoflextok_{self.name}", self.item, self.specs, self.columns)


def sampled(folder: Path) -> list[Record]:
    """Return comparable records of generators on VideoFlexTok's codes, newest last."""
    found = generation_rows.samples_in(folder)
    return [r for r in found if r.model.get("facts", {}).get("order") and r.protocol.get("comparable") is True]


def tokenizer_of(record: Record) -> dict[str, Any]:
    """Return the facts of the tokenizer a generator was trained on; those that a record lacks have the usual values."""
    told = record.model["facts"].get("tokenizer") or {}
    return {**TOKENIZER, **TRAINED, **{key: value for key, value in told.items() if value is not None}}


def of_tokenizer(record: Record, wanted: Mapping[str, Any] = TOKENIZER) -> bool:
    """Whether the tokenizer a generator was trained on has these facts."""
    told = tokenizer_of(record)
    return all(told.get(key) == value for key, value in wanted.items())


def most_tokens(record: Record) -> int:
    """Return K of the tokenizer a generator was trained on; for older records the tokens it was taught."""
    facts = record.model["facts"]
    taught = facts["tokens_per_clip"] / len(record.model["tokens_per_block"])
    return round(tokenizer_of(record).get("registers", taught))


def taught_all(record: Record) -> bool:
    """Whether a generator was trained on all K tokens of every latent frame."""
    taught = record.model["facts"].get("kept")
    return taught is None or bool(taught == tokenizer_of(record).get("registers"))


def flow_guided(record: Record) -> bool:
    """Whether a flow decoder with guidance decoded the samples."""
    return bool(record.model.get("flow_guidance", 1) != 1)


def tokenizer_trained(record: Record) -> tuple[Any, ...]:
    """Return how the tokenizer was trained that a generator learned from: the values of TRAINED."""
    told = tokenizer_of(record)
    return tuple(told[key] for key in TRAINED)


def drawn_alike(record: Record) -> tuple[Any, ...]:
    """Return what samples of one figure have in common: labels, clips, protocol, and how they were drawn."""
    clips, protocol = record.model["parents"].get("clips"), record.protocol.get("hash")
    return (record.model["facts"].get("label"), clips, protocol, *generation_rows.drawn(record))


def sampled_alike(record: Record) -> tuple[Any, ...]:
    """Return what samples of one table have in common: `drawn_alike`, and the peak learning rate."""
    return (record.model.get("learning_rate"), *drawn_alike(record))


def _common(record: Record) -> tuple[Any, ...]:
    facts = record.model["facts"]
    trained = (*(facts.get(key) for key in ("size", "model", "steps", "batch")), *tokenizer_trained(record))
    return (*trained, *sampled_alike(record))


def publish(table: GeneratorTable, results: Path) -> None:
    """Write <results>/tables/videoflextok_<name>.{csv,md} and its claims; print both, and what is missing."""
    plain, chosen = table.table, flextok.choose(sampled(results / "records"), table.specs, _common)
    flextok.publish_rows(plain, chosen, caption(table, chosen), results)
    flextok.publish_claims(table.claims_of(chosen.rows), plain.name, table.item, results)
    empty = any(not row.records for row in chosen.rows.values())
    final_tables.tell([f"  python -m evatok.experiments.make {GROUP}"] if empty else [])


def by_training(table: GeneratorTable, results: Path) -> dict[int, Chosen]:
    """Return a table's rows for each number of steps its tokenizers were trained for, ascending."""
    fitting = [r for r in sampled(results / "records") if any(spec.fits(r) for spec in table.specs)]
    trainings = sorted({int(tokenizer_of(record)["steps"]) for record in fitting})
    return {
        steps: flextok.choose([r for r in fitting if tokenizer_of(r)["steps"] == steps], table.specs, _common)
        for steps in trainings
    }


def caption(table: GeneratorTable, chosen: Chosen) -> str:
    """State what is compared with what."""
    if not chosen.common:
        return f"{table.item}. No record fills any of its rows yet; in brackets the paper's values."
    held = [record for row in chosen.rows.values() for record in row.records]
    common, seeds = chosen.common, max(len(row.records) for row in chosen.rows.values())
    note = f"{table.note} " if table.note else ""
    return (
        f"{table.item}. Ours (paper): generators of {common['size']} size after {common['steps']} steps of "
        f"{common['batch']} clips, on tokenizers of {tokenizer_of(held[0])['steps']:,} steps, measured under "
        f"{common['protocol']}; means over up to {seeds} training seeds of the generator. {note}Rows compare with each "
        "other; ours and the paper's are of other clips, sizes and trainings."
    )


def alike(rows: Mapping[str, Row], one: str, other: str, metric: str, paper: str, *, within: float) -> Sign:
    """Claim that two rows differ by at most a share `within` of the other's value.

    It holds if the whole interval of the differences seed by seed lies within this margin, does not hold if it lies
    wholly outside, and is otherwise undecided, as it is unless both rows have the same several training seeds.
    """
    name = f"{one} within {100 * within:g} % of {other}, {metric}"
    first, second = rows[one].value(metric), rows[other].value(metric)
    if first is None or second is None:
        return Sign(name, paper, "-", claims.UNKNOWN)
    told, margin = f"{first.value:.1f} and {second.value:.1f}", within * abs(second.value)
    ours, theirs = ([r for r in rows[row].records if r.id in v.ids] for row, v in ((one, first), (other, second)))
    apart = claims.seed_by_seed(ours, theirs, first.metric)
    if apart is None:
        return Sign(name, paper, f"{told} ({claims.NO_INTERVAL}: not of the same several seeds)", claims.UNSURE)
    mean, half = float(apart.mean()), half_interval(apart)
    difference = claims.Gain(mean, mean - half, mean + half)
    error = float(apart.std(ddof=1)) / len(apart) ** 0.5
    told += f"; first less second {mean:+.1f}, standard error {error:.1f}, 95 % interval {difference.low:+.1f} to "
    told += f"{difference.high:+.1f}; margin ± {margin:.1f}"
    return Sign(name, paper, told, difference.within(margin))
