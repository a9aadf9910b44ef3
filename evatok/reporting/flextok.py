"""Shared by VideoFlexTok's tables: rows of `evaluate` records by how a tokenizer was trained and sampled.

Rows of one table are of equal size, steps, noise levels, training clips and protocol: the set that fills the most rows;
among ties, the newest. A value without a record is a dash, and the commands that would fill it are printed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from evatok.reporting import claims, command_line, final_tables, tables
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import PROTOCOL, Chosen, Row, Spec, TableSpec
from evatok.reporting.tables import Cell
from evatok.storage import records
from evatok.storage.records import Record

SYSTEM = "flexible tokenizer"
FEATURES = "embedded-features"
"""Protocol of image features: the same clips, other metrics."""
EQUAL_BITS = 0.25
"""Bits per pixel count as equal if they differ by no more than this share."""
MEASURED = {PROTOCOL: "psnr,l1,rfvd", FEATURES: ""}
"""Metrics a command requests under each protocol; "": all of the protocol's."""
SHOWN = {"stage": 2, "decoder_mask": "full"}
"""How the tokenizer was trained that figures and Table 8 show."""
SAMPLED = 20
"""Flow steps of samples, unless a table varies them."""
LONGEST = {"toy": 16, "small": 64, "paper": 256}
"""K, tokens per latent frame, for each size."""


@dataclass(frozen=True)
class FlexSpec(Spec):
    """A row: facts of the training (`trained`), tokens per latent frame (None: all), and flow steps.

    Attributes:
        keys: configuration of the training that makes it, as passed to a command.
    """

    tokens: int | None = None
    flow_steps: int = SAMPLED
    keys: str = ""

    def fits(self, record: Record) -> bool:
        facts, model = record.model["facts"], record.model
        if model.get("system") != SYSTEM or any(facts.get(k) != v for k, v in (self.trained or {}).items()):
            return False
        row = [model["most_tokens"] if self.tokens is None else self.tokens]
        return (model["row"], model["flow_steps"], model["flow_guidance"]) == (row, self.flow_steps, 1.0)

    @property
    def slug(self) -> str:
        """Name the tokenizer by the keys that make it."""
        return "-".join(part.partition("=")[2] for part in self.keys.split() if "/" not in part) or "base"


@dataclass(frozen=True)
class FlexTable:
    """A table, its claims, and the experiment that trains its rows ("stage1" or "stage2")."""

    name: str
    item: str
    specs: tuple[FlexSpec, ...]
    columns: tuple[str, ...]
    claims_of: Callable[[Mapping[str, Row]], list[Sign]] = field(compare=False)
    stage: str = "stage1"
    note: str = ""

    @property
    def table(self) -> TableSpec:
        return TableSpec(f"videoflextok_{self.name}", self.item, self.specs, self.columns)


def measured(folder: Path, protocol: str = PROTOCOL) -> list[Record]:
    """Return comparable records of tokenizers with a flow decoder under a protocol, newest last."""
    found = records.query(folder, kind="evaluate", name=protocol)
    return [r for r in found if r.model.get("system") == SYSTEM and r.protocol.get("comparable") is True]


def common_of(record: Record) -> tuple[Any, ...]:
    """Return what the records of one table of tokenizers have in common."""
    facts, parents = record.model["facts"], record.model.get("parents", {})
    told = tuple(facts.get(key) for key in ("size", "stage", "steps", "noise_mean"))
    return (*told, parents.get("train_clips"), record.protocol.get("hash"))


def choose(
    found: Sequence[Record], specs: Sequence[Spec], common: Callable[[Record], tuple[Any, ...]] = common_of
) -> Chosen:
    """Return the records, equal in `common`, that fill the most rows; the newest of each training seed."""
    sets: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in found:
        sets[common(record)].append(record)
    candidates = []
    for members in sets.values():
        rows = {spec.name: Row(spec, _by_seed(spec, members)) for spec in specs}
        held = [record for row in rows.values() for record in row.records]
        if held:
            filled = sum(bool(row.records) for row in rows.values())
            candidates.append(((filled, max(record.created for record in held)), rows, held))
    if not candidates:
        return Chosen({spec.name: Row(spec) for spec in specs})
    _, rows, held = max(candidates, key=lambda candidate: candidate[0])
    return Chosen(rows, {**held[0].model["facts"], "protocol": held[0].protocol["name"], "records": len(held)})


def _by_seed(spec: Spec, members: Sequence[Record]) -> tuple[Record, ...]:
    by_seed = {record.model["facts"]["seed"]: record for record in members if spec.fits(record)}
    return tuple(by_seed[seed] for seed in sorted(by_seed))


def caption(item: str, chosen: Chosen, note: str = "") -> str:
    """State what is compared with what."""
    if not chosen.common:
        return f"{item}. No record fills any of its rows yet; in brackets the paper's values."
    stage = " of stage 2" if chosen.common.get("stage") == 2 else ""
    counts = {len(row.records) for row in chosen.rows.values() if row.records}
    alone = "after ± half the 95 % interval over clips where there is one"
    spread = f"one training seed, {alone}"
    if max(counts) > 1:
        spread = f"means over up to {max(counts)} seeds of the training (n), after ± the standard deviation over them"
        spread += f"; of one seed {alone}" if 1 in counts else ""
    training = f"{chosen.common['size']} size after {chosen.common['steps']} steps{stage}"
    return (
        f"{item}. Ours (paper): {training}, measured under {PROTOCOL}; {spread}. {note}{' ' if note else ''}"
        "Rows compare with each other; ours and the paper's are of other clips, sizes and trainings."
    )


def commands(table: FlexTable, chosen: Chosen) -> list[str]:
    """Return what would fill each row without a record: commands to train and to measure."""
    size = chosen.common.get("size", "toy")
    lines = []
    for name, row in chosen.rows.items():
        spec = row.spec
        if row.records or not isinstance(spec, FlexSpec):
            continue
        checkpoint = f"results/checkpoints/videoflextok-{size}-{table.stage}-{spec.slug}.safetensors"
        tokens = LONGEST.get(size, 256) if spec.tokens is None else spec.tokens
        train = f"python -m evatok.experiments.videoflextok_{table.stage} with {size} {spec.keys}".rstrip()
        work = f"work=results/work/{Path(checkpoint).stem} checkpoint={checkpoint}"
        lines += [f"{name}:", f"  {train} {work}", f"  {measuring(size, checkpoint, tokens, spec.flow_steps)}"]
    return lines


def measuring(size: str, checkpoint: str, tokens: int, steps: int = SAMPLED, protocol: str = PROTOCOL) -> str:
    """Return the command that measures a checkpoint at one length and number of steps."""
    settings = f"size={size} checkpoint={checkpoint} assignment=uniform:{tokens} flow_steps={steps}"
    named = "" if protocol == PROTOCOL else f"protocol={protocol} "
    asked = f" \"metrics='{MEASURED[protocol]}'\"" if MEASURED[protocol] else ""
    return f"python -m evatok.experiments.evaluate with {named}{settings}{asked}"


def publish(table: FlexTable, results: Path) -> None:
    """Write <results>/tables/videoflextok_<name>.{csv,md} and its claims; print both, and what is missing."""
    plain = table.table
    chosen = choose(measured(results / "records"), table.specs)
    publish_rows(plain, chosen, caption(table.item, chosen, table.note), results)
    publish_claims(table.claims_of(chosen.rows), plain.name, table.item, results)
    final_tables.tell(commands(table, chosen))


@dataclass(frozen=True)
class RecordTable:
    """A table from one record of its own experiment (kind videoflextok_<experiment>): of most clips, the newest.

    Attributes:
        caption_of: what follows the item's name in the caption.
        command: what makes the record.
    """

    name: str
    experiment: str
    item: str
    caption_of: Callable[[Record], str]
    cells_of: Callable[[Record], list[Cell]]
    claims_of: Callable[[Record], list[Sign]]
    command: str


def publish_record(table: RecordTable, results: Path) -> None:
    """Write <results>/tables/videoflextok_<name>.{csv,md} and its claims; print both, or the commands to make them."""
    name, signs = f"videoflextok_{table.name}", list[Sign]()
    found = of_most_clips(records.query(results / "records", kind=f"videoflextok_{table.experiment}"))
    for record in found:
        told = f"{table.item}. {table.caption_of(record)}"
        tables.Table(name, told, table.cells_of(record), shown=_shown).publish(results)
        signs += table.claims_of(record)
    publish_claims(signs, name, table.item, results)
    final_tables.tell([] if found else [f"  {table.command}"])


def _shown(cell: Cell) -> str:
    """Format as the other tables do; a metric of one window of a long clip has the decimals of the metric."""
    return final_tables.shown(replace(cell, metric=cell.metric.partition("_window")[0]))


def of_most_clips(found: Sequence[Record]) -> list[Record]:
    """The newest of the records of most clips or samples, so that no trial on a few is a table; none of none."""
    counts = [max(metric.n for metric in record.metrics.values()) for record in found]
    return [record for record, count in zip(found, counts, strict=True) if count == max(counts)][-1:]


def publish_rows(spec: TableSpec, chosen: Chosen, text: str, results: Path) -> None:
    """Write and print the table of the chosen rows, with `text` as its caption."""
    cells = final_tables.to_cells(spec, chosen, tables.paper_values(spec.name))
    tables.Table(spec.name, text, cells, shown=final_tables.shown, tail=final_tables.tail).publish(results)


def publish_claims(found: list[Sign], name: str, item: str, results: Path, note: str = "") -> None:
    """Write <name>_signs.csv and .md and print them, with `note` first; nothing if no record allows a claim."""
    if found:
        claims.publish(found, results, f"{name}_signs", item.partition(",")[0], f"{note}{claims.DECIDES}")


def told_of(found: Sequence[Record]) -> str:
    """Describe the one tokenizer that records are of, as a note to its claims."""
    if not found:
        return ""
    model = found[0].model
    facts, file = model["facts"], Path(found[0].config["checkpoint"]).name
    training = f"stage {facts['stage']}, {facts['decoder_mask']} attention in the decoder, seed {facts['seed']}"
    return f"All of one tokenizer, `{file}` ({training}; sha256 {model['sha256'][:12]}). "


def of_one_tokenizer(*protocols: Sequence[Record]) -> list[list[Record]]:
    """Return unguided records of one tokenizer, a list per protocol: the newest at each point (length, steps).

    That of stage 2 with full attention has precedence, as in Table 8; of several the one that has most points, then the
    newest.
    """
    points: dict[str, dict[tuple[Any, ...], Record]] = defaultdict(dict)
    for index, found in enumerate(protocols):
        for record in found:
            model = record.model
            if model["assignment"] == "uniform" and model["flow_guidance"] == 1.0:
                points[model["sha256"]][(index, model["row"][0], model["flow_steps"])] = record
    best = max(points.values(), key=_precedence, default={})
    return [[best[point] for point in sorted(best) if point[0] == index] for index in range(len(protocols))]


def _precedence(held: Mapping[Any, Record]) -> tuple[bool, int, str]:
    facts = next(iter(held.values())).model["facts"]
    shown = all(facts.get(key) == value for key, value in SHOWN.items())
    return shown, len(held), max(record.created for record in held.values())


def rivals(folder: Path, ours: Record) -> list[Record]:
    """Return comparable records of other tokenizers at uniform lengths, under the same protocol."""
    return [
        record
        for record in records.query(folder, kind="evaluate", name=PROTOCOL)
        if record.model.get("assignment") == "uniform"
        and record.model.get("system") != SYSTEM
        and record.protocol.get("hash") == ours.protocol.get("hash")
        and record.protocol.get("comparable") is True
    ]


def nearest(ours: Record, others: list[Record]) -> Record | None:
    """Return the record closest in bits per pixel, by ratio; the newest among ties, None if none is close."""
    bits = ours.metrics["bits_per_pixel"].value

    def away(record: Record) -> float:
        return abs(record.metrics["bits_per_pixel"].value / bits - 1)

    near = [record for record in others if "bits_per_pixel" in record.metrics and away(record) <= EQUAL_BITS]
    return min(reversed(near), key=away, default=None)


def told_rival(ours: Row, other: Row) -> str:
    """Say which tokenizer the rival is, and how equal its bits per pixel are; "" without one."""
    bits = [row.value("bits_per_pixel") for row in (ours, other)]
    if bits[0] is None or bits[1] is None:
        return ""
    record, more = other.records[0], 100 * (bits[1].value / bits[0].value - 1)
    file = Path(record.config["checkpoint"]).name
    return (
        f"EVATok's row, `{file}` at {record.model['row'][0]} tokens per block, has the nearest bits per pixel "
        f"({more:+.0f} %; within {100 * EQUAL_BITS:.0f} % they count as equal)."
    )


def frame_of(found: Sequence[Record], metrics: Sequence[str]) -> pd.DataFrame:
    """Return a line per record and metric: tokens per latent frame, steps, decoder FLOPs per clip, value."""
    lines = []
    for record in found:
        model = record.model
        point = (model["row"][0], model["flow_steps"], model["flow_steps"] * model["flops_per_step"])
        for name in metrics:
            if name in record.metrics:
                metric = record.metrics[name]
                lines.append((*point, name, metric.value, metric.unit, metric.n, record.status, record.id))
    columns = ["tokens", "flow_steps", "decoder_flops", "metric", "value", "unit", "n", "status", "record"]
    return pd.DataFrame(lines, columns=columns).sort_values(["metric", "flow_steps", "tokens"], ignore_index=True)


def rows_of(found: Sequence[Record]) -> dict[tuple[int, int], Row]:
    """Return the records as rows of claims, by (tokens, steps)."""
    keys = [(record.model["row"][0], record.model["flow_steps"]) for record in found]
    return {key: Row(Spec(_point(key), None), (record,)) for key, record in zip(keys, found, strict=True)}


def compare(
    rows: Mapping[tuple[int, int], Row], better: tuple[int, int], than: tuple[int, int], metric: str, paper: str
) -> Sign:
    """Claim that one point is better than another; not measured if a point is missing."""
    named = {_point(key): rows.get(key, Row(Spec(_point(key), None))) for key in (better, than)}
    return claims.better(named, _point(better), _point(than), metric, paper)


def missing_points(
    found: Sequence[Record], steps: Sequence[int], checkpoint: str, protocol: str = PROTOCOL
) -> list[str]:
    """Return commands for the points (length, steps) a tokenizer lacks; `checkpoint` is used if it has no records."""
    empty: dict[str, Any] = {"most_tokens": LONGEST["toy"], "facts": {"size": "toy"}}
    model = found[0].model if found else empty
    path = found[0].config["checkpoint"] if found else checkpoint
    have, most = set(rows_of(found)), model["most_tokens"]
    levels = [0, *(2**n for n in range(most.bit_length())), *([] if most.bit_count() == 1 else [most])]
    wanted = [(tokens, step) for step in steps for tokens in levels if (tokens, step) not in have]
    return [f"  {measuring(model['facts']['size'], path, *point, protocol)}" for point in wanted]


def _point(key: tuple[int, int]) -> str:
    return f"{counted(key[0])}, {key[1]} step{'s' * (key[1] != 1)}"


def counted(count: int | None) -> str:
    """Say how many tokens, None: all."""
    return "all tokens" if count is None else f"{count} token{'s' * (count != 1)}"


def main(run: Callable[[Path], None], name: str, description: str | None, argv: list[str] | None = None) -> int:
    """Run a script's command line: `run` on the folder that `--results` names."""
    with command_line.results_of(name, description, argv) as results:
        run(results)
    return 0
