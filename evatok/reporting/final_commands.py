"""The commands that would fill the rows of a table of trained tokenizers.

At toy size a row has a recipe; at other sizes there are two commands, one to train and one to measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evatok.reporting.final_rows import MEASURED, PROTOCOL, UNIFORM, Chosen, Spec, TableSpec


def commands(table: TableSpec, chosen: Chosen) -> list[str]:
    """Return what would fill each row without a record: a recipe at toy size, else commands to train and to measure."""
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
    """Return the command that makes a recipe and everything it needs."""
    return f"python -m evatok.experiments.make {recipe}"


def recipe(spec: Spec, protocol: str = PROTOCOL) -> str:
    """Return the recipe that measures a toy row's first seed."""
    where = "" if protocol == PROTOCOL else f"-{protocol.removeprefix('embedded-')}"
    return f"evaluate-final-{slug(spec.trained or {})}-0-{spec.measured}{where}"


def slug(trained: Mapping[str, Any]) -> str:
    """Name a tokenizer by its facts: router-semantic, uniform-transformer-aligned."""
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
