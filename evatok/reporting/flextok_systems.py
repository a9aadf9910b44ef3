"""VideoFlexTok's Table 1 in small: generators on its tokens, on its 3D grid, and on EVATok's fixed and adaptive codes.

Rows are `sample` records of generators trained with equal operations on equal clips and drawn equally, each with the
reconstructions of its tokenizer at the same tokens. The records are also summarised in words: which system wins where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evatok.metrics import catalogue
from evatok.reporting import claims, final_tables, flextok, generation_claims, tables
from evatok.reporting.claims import HOLDS, UNKNOWN, Sign
from evatok.reporting.final_rows import PROTOCOL, Chosen, Row, Spec, TableSpec, Value
from evatok.reporting.flextok_generation import CEILING, GeneratorSpec, sampled_alike, tokenizer_trained
from evatok.reporting.generation_rows import EQUAL_COMPUTE, measures, of_baseline, samples_in
from evatok.storage import records
from evatok.storage.records import Record

ITEM = "VideoFlexTok Table 1, systems"
FEW, ALL, GRID = "VideoFlexTok, few tokens", "VideoFlexTok, all tokens", "3D grid"
FIXED, ADAPTIVE = "EVATok, fixed length", "EVATok, adaptive"
COLUMNS = ("rfvd", "gfvd", "class_consistency", CEILING, "gtokens", "pflop")
COMPARED = ("rfvd", "gfvd", "class_consistency", "gtokens")
KEPT = 4
"""Tokens per latent frame that count as few: a quarter of the grid's."""
_2D = {"form": "flexible", "decoder_mask": "causal"}


@dataclass(frozen=True)
class EvatokSpec(Spec):
    """A row of sequences with length symbols, by their assignment; uniform ones have the baseline's length."""

    def fits(self, record: Record) -> bool:
        facts, model = record.model["facts"], record.model
        plain = "order" not in facts and model["guidance"] == 1
        return plain and model["assignment"] == self.measured and of_baseline(record)


SPECS: tuple[Spec, ...] = (
    GeneratorSpec(FEW, _2D, kept=KEPT),
    GeneratorSpec(ALL, _2D),
    GeneratorSpec(GRID, {"form": "grid"}, order="depth-first"),
    EvatokSpec(FIXED, {}, "uniform"),
    EvatokSpec(ADAPTIVE, {}, "router"),
)
PAPER_ROWS = ("VidTok-FSQ", "Cosmos-DV", "OmniTokenizer", "LARP")


@dataclass(frozen=True)
class SystemRow(Row):
    """A row of samples, with the evaluations of their tokenizer; `records` are both."""

    samples: tuple[Record, ...] = ()
    evaluated: tuple[Record, ...] = ()

    def value(self, metric: str) -> Value | None:
        """See other rows; rFVD is the tokenizer's, and operations are those of the generator's training."""
        if metric == "rfvd":
            return Row(self.spec, self.evaluated).value(metric)
        if metric != "pflop":
            return Row(self.spec, self.samples).value(metric)
        spent = [record.model["training_flops"] / 1e15 for record in self.samples]
        ids = tuple(record.id for record in self.samples)
        return Value(float(np.mean(spent)), "PFLOP", len(spent), None, None, False, ids) if spent else None


def choose(folder: Path) -> Chosen:
    """Return the rows of the set of samples that fills the most; among ties, that of most records, then the newest.

    A set has one of ours, few tokens, and the samples whose trainings took as many operations. Without one of ours
    there is no set.
    """
    everything = records.query(folder, kind="evaluate")
    found = [r for r in samples_in(folder) if r.protocol.get("comparable") is True]
    found = [record for record in found if record.model.get("task") == "class" and record.model.get("training_flops")]
    references = {(*_alike(r), r.model["training_flops"]): r for r in found if SPECS[0].fits(r)}.values()
    sets = ([record for record in found if _comparable(record, ours)] for ours in references)
    chosen = max((flextok.choose(members, SPECS, lambda _: ()) for members in sets), key=_extent, default=Chosen({}))
    rows: dict[str, Row] = {spec.name: Row(spec) for spec in SPECS}
    for name, row in chosen.rows.items():
        evaluated = _evaluated(everything, row)
        rows[name] = SystemRow(row.spec, (*row.records, *evaluated), row.records, evaluated)
    return Chosen({**rows, **{name: Row(Spec(name, None)) for name in PAPER_ROWS}}, chosen.common)


def _extent(chosen: Chosen) -> tuple[int, int, str]:
    """Return how many rows are filled, by how many records, and when the newest was made."""
    held = [record for row in chosen.rows.values() for record in row.records]
    return sum(bool(row.records) for row in chosen.rows.values()), len(held), max(record.created for record in held)


def _common(record: Record) -> tuple[Any, ...]:
    facts = record.model["facts"]
    return (facts.get("size"), facts.get("model"), *sampled_alike(record))


def _alike(record: Record) -> tuple[Any, ...]:
    return (*_common(record), *tokenizer_trained(record))


def _comparable(record: Record, ours: Record) -> bool:
    """Whether a training took as many operations as ours, +- 5 %, on equal clips, and on tokenizers trained equally.

    The latter holds for VideoFlexTok's; EVATok's tokenizers are trained in stages of their own.
    """
    alike = _alike if "order" in record.model["facts"] else _common
    apart = abs(record.model["training_flops"] / ours.model["training_flops"] - 1)
    return alike(record) == alike(ours) and apart <= EQUAL_COMPUTE


def _evaluated(everything: Sequence[Record], row: Row) -> tuple[Record, ...]:
    """Return the newest evaluation of the row's tokenizer at the same tokens."""
    held: dict[str, Record] = {}
    for sample in row.records:
        for record in everything:
            if _reconstructs(record, sample):
                held[sample.model["parents"]["tokenizer"]] = record
    return tuple(held.values())


def _reconstructs(record: Record, sample: Record) -> bool:
    if "order" not in sample.model["facts"]:
        return measures(record, sample, PROTOCOL)
    model = record.model
    if record.kind != "evaluate" or record.protocol.get("name") != PROTOCOL or model.get("system") != flextok.SYSTEM:
        return False
    asked = ([sample.model["kept"]], sample.model["flow_steps"], 1.0)
    same = model["sha256"] == sample.model["parents"]["tokenizer"] and record.protocol.get("comparable") is True
    return bool(same and (model["row"], model["flow_steps"], model["flow_guidance"]) == asked)


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """Claim that few tokens generate better than the grid, and as well as EVATok's; tokens are counted."""
    said = "gFVD 80.0, the best of all (LARP 87.5)"
    score = "score .833, second to OmniTokenizer's .858"
    return [
        generation_claims.fewer_tokens(rows, FEW, GRID, "160 against 1,280", least=1 - KEPT / 16),
        claims.better(rows, FEW, GRID, "gfvd", said),
        claims.better(rows, FEW, GRID, "class_consistency", score),
        claims.better(rows, FEW, GRID, "rfvd", "48.7 against VidTok's 84.1", or_equal=True),
        claims.better(rows, FEW, FIXED, "gfvd", said),
        claims.better(rows, FEW, FIXED, "class_consistency", score),
        claims.better(rows, FEW, ADAPTIVE, "gfvd", "-"),
        claims.better(rows, FEW, ADAPTIVE, "class_consistency", "-"),
        generation_claims.fewer_tokens(rows, FEW, ADAPTIVE, "-", least=0),
    ]


def winners(rows: Mapping[str, Row]) -> pd.DataFrame:
    """metric | best | value | better than | undecided against: one line per metric that several rows have."""
    lines = []
    for metric in COMPARED:
        held = {name: value for name, row in rows.items() if (value := row.value(metric)) is not None}
        if len(held) < 2:
            continue
        higher = next(iter(held.values())).higher
        by_value = sorted(held, key=dict(zip(held, (value.value for value in held.values()), strict=True)).__getitem__)
        best = by_value[-1 if higher else 0]
        judged = {name: _beaten(rows, best, name, metric) for name in held if name != best}
        entry = catalogue.of(metric)
        lines.append(
            {
                "metric": entry.label,
                "best": best,
                "value": f"{held[best].value:.{entry.decimals}f}",
                "better than": "; ".join(name for name, verdict in judged.items() if verdict == HOLDS) or "-",
                "undecided against": "; ".join(name for name, verdict in judged.items() if verdict != HOLDS) or "-",
            }
        )
    return pd.DataFrame(lines, columns=["metric", "best", "value", "better than", "undecided against"])


def _beaten(rows: Mapping[str, Row], best: str, other: str, metric: str) -> str:
    """Return the verdict on the best row's lead; tokens are counted and compared as is."""
    if metric == "gtokens":
        ours, its = rows[best].value(metric), rows[other].value(metric)
        return HOLDS if ours and its and ours.value < its.value else UNKNOWN
    return claims.better(rows, best, other, metric, "-").verdict


def publish(results: Path) -> None:
    """Write and print the table, its claims, who wins where, and what is missing."""
    spec = TableSpec("videoflextok_table1", ITEM, SPECS, COLUMNS)
    chosen = choose(results / "records")
    flextok.publish_rows(spec, chosen, caption(chosen), results)
    flextok.publish_claims(claims_of(chosen.rows), spec.name, ITEM, results)
    won = winners(chosen.rows)
    if len(won):
        decides = f"{claims.RULE}. Tokens are counted and compared as they are."
        text = f"Who wins where in {ITEM.partition(',')[0]}. {decides}\n\n{tables.markdown(won)}\n"
        tables.write(results / "tables", f"{spec.name}_winners", won, text)
        print(text)
    final_tables.tell(missing(chosen))


def caption(chosen: Chosen) -> str:
    """State what is compared with what."""
    if not chosen.common:
        return f"{ITEM}. No record fills any of its rows yet; in brackets the paper's values."
    common = chosen.common
    return (
        f"{ITEM}. Ours (paper): generators of {common['size']} size on equal clips, whose trainings took equal "
        f"operations (pflop, within {100 * EQUAL_COMPUTE:.0f} %), measured under {common['protocol']}; rFVD is the "
        f"tokenizer's at the same tokens, under {PROTOCOL}. Few tokens are {KEPT} per latent frame. "
        f"{''.join(f'{told} ' for told in (_starts(chosen.rows), _clips_seen(chosen.rows)) if told)}Rows compare with "
        "each other; ours and the paper's are of other clips, sizes and trainings."
    )


def _starts(rows: Mapping[str, Row]) -> str:
    """Say which tokenizers started from a trained one, if only some did."""
    held = {name: row.evaluated for name, row in rows.items() if isinstance(row, SystemRow) and row.evaluated}
    warm = [name for name, found in held.items() if any(r.model.get("parents", {}).get("start") for r in found)]
    cold = [name for name in held if name not in warm]
    if not warm or not cold:
        return ""
    return f"Tokenizers started from a trained proxy in {_listed(warm)}, and from scratch in {_listed(cold)}."


def _clips_seen(rows: Mapping[str, Row]) -> str:
    """Say how many clips the generators saw in training, if not equally many."""
    names: dict[int, list[str]] = {}
    for name, row in rows.items():
        for seen in {r.model["facts"]["steps"] * r.model["facts"]["batch"] for r in getattr(row, "samples", ())}:
            names.setdefault(seen, []).append(name)
    if len(names) < 2:
        return ""
    told = ", ".join(f"{seen:,} in {_listed(names[seen])}" for seen in sorted(names, reverse=True))
    return (
        f"At equal operations generators of longer sequences see fewer clips ({told}); the paper equalises tokens and "
        "videos instead."
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f'"{name}"' for name in names)


def missing(chosen: Chosen) -> list[str]:
    """Return recipes of the rows without a record, and of their reconstructions."""
    empty = {name for name, row in chosen.rows.items() if name not in PAPER_ROWS and not row.records}
    groups = [group for group, names in _GROUPS.items() if empty & set(names)]
    lines = [f"  python -m evatok.experiments.make {group}" for group in groups]
    unmeasured = [name for name, row in chosen.rows.items() if row.records and row.value("rfvd") is None]
    return lines + [
        f"  python -m evatok.experiments.make videoflextok-tables finals   (rFVD of {n})" for n in unmeasured
    ]


_GROUPS = {"videoflextok-generators": (FEW, ALL, GRID), "videoflextok-systems": (FIXED, ADAPTIVE)}
"""Recipe groups that make each row."""
