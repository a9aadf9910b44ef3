"""What recipes have made: files that exist and are up to date, and records of the same configuration and inputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evatok.experiments.outputs import FREE_KEYS
from evatok.experiments.recipes import Recipe
from evatok.search import candidate_table
from evatok.storage import checkpoints, records
from evatok.storage.environment import REPOSITORY
from evatok.storage.records import Record

_FREE = (FREE_KEYS - {"checkpoint"}) | {"output", "show", "shown", "per_clip", "judge_reconstructions"}
"""Settings that do not affect a record's numbers, but for adding some. `checkpoint` may be what was measured."""


def is_made(recipe: Recipe) -> bool:
    """Whether its file exists and is up to date. A recipe that makes only a record is rerun, which takes seconds."""
    return state_of(recipe) == "made"


def state_of(recipe: Recipe) -> str:
    """Return "made", "outdated", or "" if there is nothing.

    A file is outdated if its recorded parents differ from the current ones; a candidate table also if it holds a number
    of clips other than its recipe's.
    """
    path = REPOSITORY / recipe.outcome
    if not recipe.outcome or not path.exists():
        return ""
    if path.suffix == ".parquet":
        table = candidate_table.read(path)
        own = {"tokenizer": table.origin["tokenizer"]}
        if len(table.clips) != recipe.settings["clips"]:
            return "outdated"
    else:
        own = checkpoints.load(path).parents
    for role, parent in recipe.parents.items():
        if (REPOSITORY / parent).exists() and own.get(role) != identity(REPOSITORY / parent):
            return "outdated"
    return "made"


def identity(path: Path) -> str:
    """Return the sha256 of a checkpoint's or a candidate table's contents."""
    loaded = candidate_table.read(path) if path.suffix == ".parquet" else checkpoints.load(path)
    return loaded.sha256


def is_recorded(recipe: Recipe, found: Iterable[Record]) -> bool:
    """Whether one of these records has the recipe's configuration, and was made from today's files where they exist."""
    of_kind = [record for record in found if record.kind == recipe.experiment]
    return any(_has_settings(record, recipe) and _has_inputs(record, recipe) for record in of_kind)


def _has_settings(record: Record, recipe: Recipe) -> bool:
    asked = {key: records.plain(value) for key, value in recipe.settings.items() if key not in _FREE}
    return all(key in record.config and record.config[key] == value for key, value in asked.items())


def _has_inputs(record: Record, recipe: Recipe) -> bool:
    """Whether the record names today's contents of each file that it used, in whichever role.

    A measured checkpoint stands with its own parents, so that `tokenizer` may be what it started from.
    """
    measured, parents = record.model.get("sha256"), record.model.get("parents", {})
    used, told = {"checkpoint", "generator", *parents}, {measured, *parents.values()}
    for role, value in {**recipe.settings, **recipe.parents}.items():
        path = REPOSITORY / value if isinstance(value, str) and value.endswith((".safetensors", ".parquet")) else None
        if path and role in used and path.exists() and identity(path) not in told:
            return False
    return True
