"""Rows of generator tables: which records make up each, and its values.

A row needs up to three records: of the tokenizer under its own assignments (kind `evaluate`), of class-to-video and of
frame prediction (kind `sample`). One table shows only samples of equal generator, training, clips, protocol and
sampling settings: the set that fills the most rows; among ties the one with the most seeds, then the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evatok.reporting import final_rows
from evatok.reporting.final_rows import Chosen, Spec, TableSpec, Value
from evatok.storage import records
from evatok.storage.records import Record

TRAINING = "stage5_generator"
"""Kind of the records of generators' trainings."""
RECONSTRUCTION, CLASS, FRAMES = "reconstruction", "class", "frames"
"""Where a column's values come from: the tokenizer, class-to-video, frame prediction."""
Column = tuple[str, str, float, str]
"""A source, what its records call the metric (or "parameters"), a factor, and the unit shown."""
OF_TOKENIZER: dict[str, Column] = {
    "tok_params": (RECONSTRUCTION, "parameters", 1e-6, "M"),
    "lpips": (RECONSTRUCTION, "lpips_vgg", 1, ""),
    "st_lpips": (RECONSTRUCTION, "st_lpips_alex", 1, ""),
    "rfvd": (RECONSTRUCTION, "rfvd", 1, ""),
    "rtokens": (RECONSTRUCTION, "mean_tokens", 1, "tokens"),
}
DRAWN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "flow_guidance": 1.0}
"""How samples are drawn, besides what rows may vary (guidance, tokens, flow steps): settings, and their values off."""
EQUAL_COMPUTE = 0.05
"""Trainings count as equal compute if steps times batch times tokens per clip differ by no more than this share."""


def of_generator(source: str) -> dict[str, Column]:
    """Return the columns of one task's samples."""
    return {
        "gen_params": (source, "parameters", 1e-6, "M"),
        "gfvd": (source, "gfvd", 1, ""),
        "gtokens": (source, "mean_tokens", 1, "tokens"),
        "sampling_ms": (source, "seconds_per_clip", 1000, "ms a clip"),
    }


OF_CONSISTENCY: dict[str, Column] = {
    name: (CLASS, name, 1, "%")
    for name in (
        "class_consistency",
        "class_consistency_balanced",
        "class_consistency_real_balanced",
        "class_consistency_reconstructed_balanced",
    )
}


@dataclass(frozen=True)
class Task:
    """What a table's generators generate, and what its tokenizers are measured on.

    Attributes:
        sampled: names of the protocols whose samples it shows.
        reconstructed: name of the protocol that its tokenizers are measured under.
        tokenizer: file of the one tokenizer of all rows; "": each row has its own final tokenizer.
        router: file of the router of its adaptive rows; "": the pyramid router at the matched weight.
        train, take: further settings of stage5_generator and of sample, in the commands that would fill a row.
    """

    sampled: tuple[str, ...] = (
        "embedded-generation",
        "embedded-prediction",
        "larp-ucf101-generation",
        "larp-k600-prediction",
    )
    reconstructed: str = final_rows.PROTOCOL
    tokenizer: str = ""
    router: str = ""
    train: tuple[str, ...] = ()
    take: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeneratorTable(TableSpec):
    """A table of generators; `guided` takes only samples with classifier-free guidance."""

    task: Task = field(default_factory=Task)
    guided: bool = False


def fixed(name: str) -> Spec:
    """Return a row of the fixed-length tokenizer and its generator."""
    return Spec(name, {"assignment": "uniform"}, "uniform")


def adaptive(name: str, equal: str = "steps", given: str = "levels") -> Spec:
    """Return a row of the adaptive tokenizer.

    Args:
        equal: what its generator shares with the fixed one's, "steps" or "compute".
        given: how frame prediction scales the given frames' tokens, with "levels" or with the fixed "row".
    """
    return Spec(name, {"assignment": "router", "equal": equal, "given": given}, "router")


def published(name: str) -> Spec:
    """Return a row that only the paper has."""
    return Spec(name, None)


@dataclass(frozen=True)
class Row(final_rows.Row):
    """A row with the records of each source, and the columns they fill."""

    sources: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)

    def value(self, metric: str) -> Value | None:
        """See a tokenizer's row; a column is one source's metric, or the parameters of what was measured."""
        source, name, factor, unit = self.columns[metric]
        held = self.sources.get(source, ())
        if name == "parameters":
            return _parameters(held, factor, unit)
        found = final_rows.Row(self.spec, tuple(held)).value(name)
        if found is None:
            return None
        spread, interval = (None if v is None else factor * v for v in (found.spread, found.interval))
        told = name if factor == 1 else ""  # a converted metric is not the records'
        return Value(factor * found.value, unit, found.n, spread, interval, found.higher, found.ids, told)


def _parameters(held: Sequence[Record], factor: float, unit: str) -> Value | None:
    if not held or "parameters" not in held[0].model:
        return None
    return Value(factor * held[0].model["parameters"], unit, 1, None, None, False, (held[0].id,))


def choose(folder: Path, table: GeneratorTable, columns: Mapping[str, Column]) -> Chosen:
    """Return the records in `folder` that fill the table's rows."""
    everything, drawn_here = records.query(folder), samples_in(folder)
    used = {source for source, *_ in columns.values()}
    samples = {task: _samples(drawn_here, table, task) for task in (CLASS, FRAMES) if task in used}
    rows = {}
    for spec in table.specs:
        sources = _of_one_tokenizer({task: held.get(spec.name, ()) for task, held in samples.items()})
        generated = [record for held in sources.values() for record in held]
        if RECONSTRUCTION in used and spec.trained is not None:
            sources[RECONSTRUCTION] = _reconstruction(folder, everything, spec, generated, table.task)
        held = tuple(dict.fromkeys(record.id for part in sources.values() for record in part))
        by_id = {record.id: record for part in sources.values() for record in part}
        rows[spec.name] = Row(spec, tuple(by_id[name] for name in held), sources, columns)
    shown = [r for row in rows.values() for task in samples for r in row.sources[task]]
    facts = shown[0].model["facts"] if shown else {}
    return Chosen(rows, {**facts, "guidance": shown[0].model["guidance"], "samples": shown} if shown else {})


def _of_one_tokenizer(sources: dict[str, tuple[Record, ...]]) -> dict[str, tuple[Record, ...]]:
    """Drop a row's samples on a tokenizer other than the first task's: a row is one system."""
    first = next((held for held in sources.values() if held), ())
    own = {record.model["parents"]["tokenizer"] for record in first}
    return {
        task: tuple(record for record in held if record.model["parents"]["tokenizer"] in own)
        for task, held in sources.items()
    }


def samples_in(folder: Path, **protocol: Any) -> list[Record]:
    """Return the `sample` records in `folder`, newest last, with their generators' peak learning rates in `model`.

    A sample's record does not hold this rate; the record of the generator's training does.
    """
    trained = records.query(folder, kind=TRAINING, superseded=True)
    rates = {record.model.get("sha256"): record.config.get("learning_rate") for record in trained}
    return [
        replace(record, model={**record.model, "learning_rate": rates.get(record.model.get("sha256"))})
        for record in records.query(folder, kind="sample", **protocol)
    ]


def _samples(drawn_here: Sequence[Record], table: GeneratorTable, task: str) -> dict[str, tuple[Record, ...]]:
    """Return the records of each row for one task, from the set that fills the most rows."""
    sets: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    found = [r for r in drawn_here if r.model["task"] == task and "order" not in r.model["facts"]]  # EVATok's grammar
    for record in final_rows.of_newest_version(found):
        if record.protocol.get("name") in table.task.sampled and not (table.guided and record.model["guidance"] == 1):
            sets[common_of(record)].append(record)
    candidates = []
    for members in sets.values():
        for steps in {record.model["facts"]["steps"] for record in members}:
            rows = {spec.name: _fitting(spec, members, steps) for spec in table.specs}
            held = [record for row in rows.values() for record in row]
            if held:
                filled, newest = sum(map(bool, rows.values())), max(record.created for record in held)
                candidates.append(((filled, steps if table.longest else 0, len(held), newest), rows))
    return max(candidates, key=lambda candidate: candidate[0])[1] if candidates else {}


def common_of(record: Record) -> tuple[Any, ...]:
    """Return what the samples of one table have in common, except for the generator's steps."""
    facts, model = record.model["facts"], record.model
    trained = tuple(facts.get(key) for key in ("size", "model", "batch", "label"))
    clips, protocol = model.get("parents", {}).get("clips"), record.protocol.get("hash")
    return (*trained, clips, protocol, model.get("guidance"), model.get("learning_rate"), *drawn(record))


def drawn(record: Record) -> tuple[Any, ...]:
    """Return the values of DRAWN. A setting that a record lacks, as without a flow decoder, is off."""
    return tuple(record.model.get(name, off) for name, off in DRAWN.items())


def _fitting(spec: Spec, members: Sequence[Record], steps: int) -> tuple[Record, ...]:
    """Return a row's records: the newest per pair of training and sampling seeds."""
    if spec.trained is None:
        return ()
    own = [record for record in members if record.model["assignment"] == spec.measured]
    own = [record for record in own if of_baseline(record)] or own  # older tokenizers had a shorter baseline
    if "given" in spec.trained:  # records older than this key scaled with the levels
        own = [record for record in own if record.model["facts"].get("given", "levels") == spec.trained["given"]]
        own = [record for record in own if record.model["facts"].get("prefix") == own[-1].model["facts"].get("prefix")]
    if spec.trained.get("equal") == "compute":
        rivals = [r for r in members if r.model["assignment"] == "uniform" and r.model["facts"]["steps"] == steps]
        own = [record for record in own if rivals and _like_compute(record, rivals[-1])]
    else:
        own = [record for record in own if record.model["facts"]["steps"] == steps]
    by_seed = {(record.model["facts"].get("seed"), record.model["seed"]): record for record in own}
    if len({record.model["facts"]["steps"] for record in by_seed.values()}) > 1:
        own_steps = own[-1].model["facts"]["steps"]
        by_seed = {seed: r for seed, r in by_seed.items() if r.model["facts"]["steps"] == own_steps}
    return tuple(by_seed[seed] for seed in sorted(by_seed, key=str))


def of_baseline(record: Record) -> bool:
    """Whether a sample's generator writes the fixed-length baseline's tokens, or a router's."""
    facts = record.model["facts"]
    return record.model["assignment"] != "uniform" or set(facts["row"]) == {final_rows.UNIFORM[facts["size"]]}


def _like_compute(one: Record, other: Record) -> bool:
    mine, its = (
        r.model["facts"]["steps"] * r.model["facts"]["batch"] * r.model["facts"]["tokens_per_clip"]
        for r in (one, other)
    )
    return bool(abs(mine / its - 1) <= EQUAL_COMPUTE)


def _reconstruction(
    folder: Path, everything: Sequence[Record], spec: Spec, generated: Sequence[Record], task: Task
) -> tuple[Record, ...]:
    """Return the samples' tokenizer under its own assignments; without samples, the final shown in Table 1."""
    if generated:
        held = [record for record in everything if measures(record, generated[0], task.reconstructed)]
        return tuple(held[-1:])
    if task.tokenizer:
        return ()
    final = TableSpec("finals", "", (final_rows.shipped(spec.measured),))
    return tuple(final_rows.choose(folder, final).rows["final"].records)


def measures(record: Record, sample: Record, protocol: str) -> bool:
    """Whether this evaluates a sample's tokenizer, under the assignments its generator was trained with."""
    if record.kind != "evaluate" or record.protocol.get("comparable") is not True:
        return False
    model, facts, parents = record.model, sample.model["facts"], sample.model["parents"]
    if record.protocol.get("name") != protocol or model.get("sha256") != parents["tokenizer"]:
        return False
    if sample.model["assignment"] == "router":
        return bool(model.get("router") == parents["router"])
    return bool(model.get("assignment") in ("uniform", "fixed") and set(model["row"]) == set(facts["row"]))
