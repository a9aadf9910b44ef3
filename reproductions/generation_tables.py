"""What the tables of generators share: which records make up a row, its values, and how it is shown.

A row needs up to three records: of the tokenizer under its own assignments (kind `evaluate`), of class-to-video and of
frame prediction (kind `sample`). One table shows only samples of equal generator, training, clips, protocol and way of
sampling: the set that fills most of its rows, of several such sets the newest. What no record fills is a dash, and the
commands that would fill it are printed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evatok import records, tables
from evatok.records import Record
from reproductions import final_tables, signs
from reproductions.final_tables import MEASURED, UNIFORM, Chosen, Spec, Table, Value
from reproductions.signs import FAILS, HOLDS, UNKNOWN, Sign

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
EQUAL_COMPUTE = 0.05
"""Trainings are of equal compute where steps times batch times tokens a clip differ by no more than this share."""
LEAST_SAVED = 0.26
"""Generated tokens the paper saves: 27.7 % (GPT-B), 26.2 % (larger)."""
TIME_SHARE = 0.9
"""Of the saved tokens, the share that should be saved in sampling time."""
DECIDES = (
    "A gFVD of one sampling has no interval, so its bare sign decides; class consistencies differ where they do by "
    "more than the root of the summed squares of their 95 % half-intervals."
)


def of_generator(source: str, prefix: str = "") -> dict[str, Column]:
    """The columns of one task's samples."""
    return {
        "gen_params": (source, "parameters", 1e-6, "M"),
        f"{prefix}gfvd": (source, "gfvd", 1, ""),
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
    """What a table's generators write, and what its tokenizers are measured on.

    Attributes:
        sampled: names of the protocols whose samples it shows.
        reconstructed: name of the protocol that its tokenizers are measured under.
        tokenizer: file of the one tokenizer of all rows; "": each row has a final tokenizer of its own.
        router: file of the router of its adaptive rows; "": the pyramid router of the matched weight.
        train, take: further settings of stage5_generator and of sample, in the commands that would fill a row.
    """

    sampled: tuple[str, ...] = (
        "embedded-generation",
        "embedded-prediction",
        "larp-ucf101-generation",
        "larp-k600-prediction",
    )
    reconstructed: str = final_tables.PROTOCOL
    tokenizer: str = ""
    router: str = ""
    train: tuple[str, ...] = ()
    take: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeneratorTable(Table):
    """A table of generators; `published` says whether a paper has it."""

    task: Task = field(default_factory=Task)
    published: bool = True


def fixed(name: str) -> Spec:
    """A row of the fixed-length tokenizer and its generator."""
    return Spec(name, {"assignment": "uniform"}, "uniform")


def adaptive(name: str, equal: str = "steps", given: str = "levels") -> Spec:
    """A row of the adaptive tokenizer.

    Args:
        equal: what its generator has in common with the fixed one's, "steps" or "compute".
        given: how frame prediction scales the given frames' tokens, with "levels" or with the fixed "row".
    """
    return Spec(name, {"assignment": "router", "equal": equal, "given": given}, "router")


def published(name: str) -> Spec:
    """A row that the paper alone has."""
    return Spec(name, None)


@dataclass(frozen=True)
class Row(final_tables.Row):
    """A row with the records of each source, and the columns they fill."""

    sources: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)

    def value(self, metric: str) -> Value | None:
        """As of a tokenizer's row; a column is one source's metric, or the parameters of what was measured."""
        source, name, factor, unit = self.columns[metric]
        held = self.sources.get(source, ())
        if name == "parameters":
            return _parameters(held, factor, unit)
        found = final_tables.Row(self.spec, tuple(held)).value(name)
        if found is None:
            return None
        spread, interval = (None if v is None else factor * v for v in (found.spread, found.interval))
        return Value(factor * found.value, unit, found.n, spread, interval, found.higher, found.ids)


def _parameters(held: Sequence[Record], factor: float, unit: str) -> Value | None:
    if not held or "parameters" not in held[0].model:
        return None
    return Value(factor * held[0].model["parameters"], unit, 1, None, None, False, (held[0].id,))


def choose(folder: Path, table: GeneratorTable, columns: Mapping[str, Column]) -> Chosen:
    """The records in `folder` that fill the table's rows."""
    everything = records.query(folder)
    used = {source for source, *_ in columns.values()}
    samples = {task: _samples(everything, table, task) for task in (CLASS, FRAMES) if task in used}
    rows = {}
    for spec in table.specs:
        sources = {task: held.get(spec.name, ()) for task, held in samples.items()}
        generated = [record for held in sources.values() for record in held]
        if RECONSTRUCTION in used and spec.trained is not None:
            sources[RECONSTRUCTION] = _reconstruction(folder, everything, spec, generated, table.task)
        held = tuple(dict.fromkeys(record.id for part in sources.values() for record in part))
        by_id = {record.id: record for part in sources.values() for record in part}
        rows[spec.name] = Row(spec, tuple(by_id[name] for name in held), sources, columns)
    shown = [r for row in rows.values() for task in samples for r in row.sources[task]]
    facts = shown[0].model["facts"] if shown else {}
    return Chosen(rows, {**facts, "guidance": shown[0].model["guidance"], "samples": shown} if shown else {})


def _samples(everything: Sequence[Record], table: GeneratorTable, task: str) -> dict[str, tuple[Record, ...]]:
    """Of one task: the records of each row, from the one set that fills most rows."""
    sets: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in everything:
        if record.kind != "sample" or record.model["task"] != task or record.protocol.get("comparable") is not True:
            continue
        if record.protocol.get("name") in table.task.sampled:
            sets[_common(record)].append(record)
    candidates = []
    for members in sets.values():
        for steps in {record.model["facts"]["steps"] for record in members}:
            rows = {spec.name: _fitting(spec, members, steps) for spec in table.specs}
            held = [record for row in rows.values() for record in row]
            if held:
                filled, newest = sum(map(bool, rows.values())), max(record.created for record in held)
                candidates.append(((filled, steps if table.longest else 0, newest), rows))
    return max(candidates, key=lambda candidate: candidate[0])[1] if candidates else {}


def _common(record: Record) -> tuple[Any, ...]:
    """What the samples of one table have in common, but for the generator's steps."""
    facts, model = record.model["facts"], record.model
    trained = tuple(facts.get(key) for key in ("size", "model", "batch", "label"))
    sampled = tuple(model.get(key) for key in ("guidance", "temperature", "top_k", "top_p"))
    return (*trained, model.get("parents", {}).get("clips"), record.protocol.get("hash"), *sampled)


def _fitting(spec: Spec, members: Sequence[Record], steps: int) -> tuple[Record, ...]:
    """A row's records: of each pair of seeds, of training and of sampling, the newest."""
    if spec.trained is None:
        return ()
    own = [record for record in members if record.model["assignment"] == spec.measured]
    if "given" in spec.trained:  # records older than the choice have scaled with the levels
        own = [record for record in own if record.model["facts"].get("given", "levels") == spec.trained["given"]]
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


def _like_compute(one: Record, other: Record) -> bool:
    mine, its = (
        r.model["facts"]["steps"] * r.model["facts"]["batch"] * r.model["facts"]["tokens_per_clip"]
        for r in (one, other)
    )
    return bool(abs(mine / its - 1) <= EQUAL_COMPUTE)


def _reconstruction(
    folder: Path, everything: Sequence[Record], spec: Spec, generated: Sequence[Record], task: Task
) -> tuple[Record, ...]:
    """The tokenizer of the samples under its own assignments; without samples, the final that Table 1 shows."""
    if generated:
        held = [record for record in everything if _measures(record, generated[0], task.reconstructed)]
        return tuple(held[-1:])
    if task.tokenizer:
        return ()
    recipe = {"assignment": spec.measured, "discriminator": "semantic", "alignment": True}
    final = Table("finals", "", (Spec("final", recipe, spec.measured),))
    return tuple(final_tables.choose(folder, final).rows["final"].records)


def _measures(record: Record, sample: Record, protocol: str) -> bool:
    """Whether this is the evaluation of a sample's tokenizer, under the assignments that taught its generator."""
    if record.kind != "evaluate" or record.protocol.get("comparable") is not True:
        return False
    model, facts, parents = record.model, sample.model["facts"], sample.model["parents"]
    if record.protocol.get("name") != protocol or model.get("sha256") != parents["tokenizer"]:
        return False
    if sample.model["assignment"] == "router":
        return bool(model.get("router") == parents["router"])
    return bool(model.get("assignment") in ("uniform", "fixed") and set(model["row"]) == set(facts["row"]))


def caption(table: GeneratorTable, chosen: Chosen) -> str:
    """What is compared with what."""
    if not chosen.common:
        brackets = "; in brackets the paper's values" if table.published else ""
        return f"{table.item}. No sample on record yet{brackets}."
    common = chosen.common
    samples = common["samples"][0].metrics["mean_tokens"].n
    steps = " and ".join(str(n) for n in sorted({r.model["facts"]["steps"] for r in common["samples"]}, reverse=True))
    ours = "Ours (paper): generators" if table.published else "Generators"
    compare = (
        "Rows of ours compare with each other; ours and the paper's are of other clips, sizes, trainings and N, so "
        "that values, gFVD above all, never compare."
        if table.published
        else "Rows compare with each other alone."
    )
    return (
        f"{table.item}. {ours} of {common['model']} size after {steps} steps of {common['batch']} clips, guidance "
        f"{common['guidance']:g}, {samples} samples against as many real clips. {compare} After ± half a 95 % interval "
        "over clips, or the deviation over seeds."
    )


def commands(table: GeneratorTable, chosen: Chosen, columns: Mapping[str, Column]) -> list[str]:
    """What would fill each row that lacks a source: train and measure the tokenizer, train the generator, sample."""
    common = {"size": "toy", **chosen.common, "matched": _matched_steps(chosen)}
    used = list(dict.fromkeys(source for source, *_ in columns.values()))
    lines: list[str] = []
    for name, row in chosen.rows.items():
        held = row.sources if isinstance(row, Row) else {}
        missing = [source for source in used if row.spec.trained and not held.get(source)]
        told = [f"  {line}" for source in missing for line in _filling(row.spec, source, common, table.task)]
        told = [line for line in told if line not in lines]  # rows may share a tokenizer
        lines += [f"{name}:", *told] if told else []
    return lines


def _matched_steps(chosen: Chosen) -> str:
    """Steps by which an adaptive generator costs what the fixed one does, where both are on record."""
    facts = {r.model["assignment"]: r.model["facts"] for r in chosen.common.get("samples", ())}
    if facts.keys() < {"uniform", "router"}:
        return "STEPS"
    ratio = facts["uniform"]["tokens_per_clip"] / facts["router"]["tokens_per_clip"]
    return str(round(facts["uniform"]["steps"] * ratio))


def _filling(spec: Spec, source: str, common: Mapping[str, Any], task: Task) -> list[str]:
    size, rule, checkpoints = common["size"], spec.measured, "results/checkpoints"
    tokenizer = task.tokenizer or f"{checkpoints}/final-{size}-{rule}.safetensors"
    router = task.router or f"{checkpoints}/router-{size}-pyramid-matched.safetensors"
    routed = [f"router={router}"] if rule == "router" else []
    if source == RECONSTRUCTION:
        measured = f"router:{router}" if rule == "router" else f"uniform:{UNIFORM[size]}"
        measure = [f"size={size}", f"checkpoint={tokenizer}", f"assignment={measured}", f"\"metrics='{MEASURED}'\""]
        if task.tokenizer:
            return [_command("evaluate", *measure, f"protocol={task.reconstructed}")]
        given = [size, f"assignment={rule}", *routed, "discriminator=semantic", f"checkpoint={tokenizer}"]
        return [_command("stage4_final", *given), _command("evaluate", *measure)]
    trained = spec.trained or {}
    longer, by_row = trained.get("equal") == "compute", source == FRAMES and trained.get("given") == "row"
    name = "-".join(
        ["games" if task.tokenizer else source, rule, *(["longer"] if longer else []), *(["row"] if by_row else [])]
    )
    generator = f"{checkpoints}/generator-{size}-{name}.safetensors"
    steps = common["matched"] if longer else common.get("steps")
    train = [size, f"task={source}", f"assignment={rule}", *routed, f"tokenizer={tokenizer}", f"checkpoint={generator}"]
    train += [f"work=results/work/{Path(generator).stem}", *([f"steps={steps}"] if steps else [])]
    train += [*task.train, *(["given=row"] if by_row else [])]
    take = [f"generator={generator}", f"tokenizer={tokenizer}", *routed, *task.take]
    take += [f"guidance={common['guidance']:g}"] if "guidance" in common else []
    return [_command("stage5_generator", *train), _command("sample", *take)]


def _command(experiment: str, *settings: str) -> str:
    return f"python -m evatok.experiments.{experiment} with {' '.join(settings)}"


def fewer_tokens(rows: Mapping[str, final_tables.Row], first: str, second: str, paper: str) -> Sign:
    """`first` generates at least 26 % fewer tokens than `second`."""
    name = f"{first} generates {100 * LEAST_SAVED:.0f} % fewer tokens than {second}"
    ours, other = rows[first].value("gtokens"), rows[second].value("gtokens")
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    saved = 1 - ours.value / other.value
    told = f"{ours.value:.1f} against {other.value:.1f} ({less(saved, 'fewer')})"
    return Sign(name, paper, told, HOLDS if saved >= LEAST_SAVED else FAILS)


def no_worse(rows: Mapping[str, final_tables.Row], first: str, second: str, metric: str, paper: str) -> Sign:
    """`first` has an equal or better value than `second`, or one that is worse within the interval."""
    name = f"{first} no worse than {second}, {metric}"
    ours, other = rows[first].value(metric), rows[second].value(metric)
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    interval = signs._joint(ours, other)
    gain = (ours.value - other.value) * (1 if ours.higher else -1)
    remark = "no interval measured" if interval is None else f"± {interval:.1f}"
    told = f"{ours.value:.1f} against {other.value:.1f} ({remark})"
    return Sign(name, paper, told, signs._verdict(gain, interval or 0.0, or_equal=True))


def time_follows_tokens(rows: Mapping[str, final_tables.Row], first: str, second: str) -> Sign:
    """Sampling saves at least 0.9 of the share of time that it saves of the tokens."""
    name = f"{first} saves {TIME_SHARE:g} of its token saving in sampling time"
    values = [rows[row].value(metric) for metric in ("gtokens", "sampling_ms") for row in (first, second)]
    if any(value is None for value in values):
        return Sign(name, "-", "-", UNKNOWN)
    tokens, rival_tokens, time, rival_time = (value.value for value in values if value is not None)
    saved, faster = 1 - tokens / rival_tokens, 1 - time / rival_time
    told = f"{less(faster, 'less')} time for {less(saved, 'fewer')} tokens"
    return Sign(name, "-", told, HOLDS if faster >= TIME_SHARE * saved > 0 else FAILS)


def less(share: float, word: str) -> str:
    """A share saved in words; one that is negative was spent."""
    return f"{100 * abs(share):.1f} % {word if share >= 0 else 'more'}"


def publish(table: GeneratorTable, columns: Mapping[str, Column], results: Path) -> Chosen:
    """Write <results>/tables/<name>.csv and .md, print the table and the commands that would fill its dashes."""
    paper = tables.paper_values(records.REPOSITORY / "results" / "paper", table.name) if table.published else {}
    chosen = choose(results / "records", table, columns)
    folder = results / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    spreads = [(v.spread if v else None) for row in chosen.rows.values() for v in map(row.value, table.columns)]
    frame = tables.tidy(final_tables.to_cells(table, chosen, paper)).assign(spread=pd.Series(spreads, dtype=float))
    frame = frame[frame["paper"].notna() | frame["ours"].notna() | ~frame["row"].isin(_paper_rows(table))]
    frame.astype({"n": "Int64"}).to_csv(
        folder / f"{table.name}.csv", index=False, float_format="%.4f", lineterminator="\n"
    )
    text = f"{caption(table, chosen)}\n\n{markdown(table, chosen, paper)}\n"
    (folder / f"{table.name}.md").write_text(text, encoding="utf-8")
    print(text)
    missing = commands(table, chosen, columns)
    if missing:
        print("What would fill the empty rows:\n" + "\n".join(missing) + "\n")
    return chosen


def markdown(table: GeneratorTable, chosen: Chosen, paper: Mapping[tuple[str, str], float]) -> str:
    """A line a row, a column a metric, each as `ours ± spread (paper)`."""
    lines = []
    for name, row in chosen.rows.items():
        shown = {metric: _shown(row.value(metric), paper.get((name, metric))) for metric in table.columns}
        ids = "<br>".join(record.id for record in row.records)
        lines.append({"row": name, **shown, "records": ids or "-"})
    return str(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True))


def _shown(value: Value | None, paper: float | None) -> str:
    spread = f" ± {value.spread:.2g}" if value and value.spread is not None else ""
    ours = "-" if value is None else f"{value.value:.4g}{spread}"
    return ours if paper is None else f"{ours} ({paper:g})"


def _paper_rows(table: GeneratorTable) -> list[str]:
    return [spec.name for spec in table.specs if spec.trained is None]


def _item(table: GeneratorTable) -> str:
    name = table.item.partition(",")[0]
    return name[0].lower() + name[1:]


def main(
    table: GeneratorTable,
    columns: Mapping[str, Column],
    claims: Any,
    description: str | None,
    argv: list[str] | None = None,
) -> int:
    """The command line of a table's script; `claims` makes the signs of the chosen rows."""
    results = final_tables.results_folder(description, argv)
    try:
        chosen = publish(table, columns, results)
        found: list[Sign] = claims(chosen.rows)
        signs.write(found, results / "tables", f"{table.name}_signs", _item(table), DECIDES)
    except (records.RecordError, tables.TableError) as error:
        print(f"{table.name}: {error}", file=sys.stderr)
        return 2
    print(signs.markdown(found, _item(table), DECIDES))
    return 0
