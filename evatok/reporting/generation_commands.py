"""The commands that would fill the rows of a generator table: train and measure the tokenizer, train, sample.

At toy size these are recipes, which include their prerequisites.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evatok.reporting.final_commands import made_by, recipe
from evatok.reporting.final_rows import MEASURED, UNIFORM, Chosen, Spec, shipped
from evatok.reporting.generation_rows import FRAMES, RECONSTRUCTION, Column, GeneratorTable, Row


def commands(table: GeneratorTable, chosen: Chosen, columns: Mapping[str, Column]) -> list[str]:
    """What would fill each row that lacks a source: train and measure the tokenizer, train the generator, sample."""
    common = {"size": "toy", **chosen.common, "matched": _matched_steps(chosen)}
    used = list(dict.fromkeys(source for source, *_ in columns.values()))
    lines: list[str] = []
    for name, row in chosen.rows.items():
        held = row.sources if isinstance(row, Row) else {}
        missing = [source for source in used if row.spec.trained and not held.get(source)]
        told = [f"  {line}" for source in missing for line in _filling(row.spec, source, common, table)]
        told = [line for line in told if line not in lines]  # rows may share a tokenizer
        lines += [f"{name}:", *told] if told else []
    return lines


def _matched_steps(chosen: Chosen) -> str:
    """Return the steps at which an adaptive generator costs as much as the fixed one, if both are recorded."""
    facts = {r.model["assignment"]: r.model["facts"] for r in chosen.common.get("samples", ())}
    if facts.keys() < {"uniform", "router"}:
        return "STEPS"
    ratio = facts["uniform"]["tokens_per_clip"] / facts["router"]["tokens_per_clip"]
    return str(round(facts["uniform"]["steps"] * ratio))


def _filling(spec: Spec, source: str, common: Mapping[str, Any], table: GeneratorTable) -> list[str]:
    if common["size"] == "toy":
        return [made_by(recipe_of(spec, source, table))]
    task = table.task
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
    train += [*task.train, *(["given=row", f"uniform_tokens={UNIFORM[size]}"] if by_row else [])]
    take = [f"generator={generator}", f"tokenizer={tokenizer}", *routed, *task.take]
    take += [f"guidance={common['guidance']:g}"] if "guidance" in common else []
    return [_command("stage5_generator", *train), _command("sample", *take)]


def recipe_of(spec: Spec, source: str, table: GeneratorTable) -> str:
    """Return the recipe for what a toy row lacks: its tokenizer's measurement, or its samples."""
    rule, trained = spec.measured, spec.trained or {}
    if source == RECONSTRUCTION:
        return f"evaluate-proxy-games-{rule}" if table.task.tokenizer else recipe(shipped(rule))
    by_row = source == FRAMES and trained.get("given") == "row"
    longer = trained.get("equal") == "compute"
    further = [*(["row"] if by_row else []), *(["longer"] if longer else [])]
    way = ["guided"] if table.guided else []
    return "-".join(["sample", "games" if table.task.tokenizer else source, *further, rule, *way, "0"])


def _command(experiment: str, *settings: str) -> str:
    return f"python -m evatok.experiments.{experiment} with {' '.join(settings)}"
