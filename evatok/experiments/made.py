"""What recipes have made: files that exist and are up to date, and records of the same configuration and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from evatok.experiments.outputs import FREE_KEYS
from evatok.experiments.recipes import Recipe, every_recipe
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
    """Return the sha256 of a checkpoint's or a candidate table's contents, read once for all recipes that name it."""
    now = path.stat()
    return _identity(path, now.st_mtime_ns, now.st_size)


@cache
def _identity(path: Path, changed: int, size: int) -> str:
    """`identity` of a file as last changed: the time and the size tell apart what replaced it."""
    loaded = candidate_table.read(path) if path.suffix == ".parquet" else checkpoints.load(path)
    return loaded.sha256


def is_recorded(recipe: Recipe, found: Sequence[Record]) -> bool:
    """Whether one of these records has the recipe's configuration, and was made from the same inputs.

    Files count by their contents, wherever they were when the record was written. One that is not there counts by its
    path, or by the record of the recipe that makes it.
    """
    return any(record.kind == recipe.experiment and _tells(record, recipe, found) for record in found)


def _tells(record: Record, recipe: Recipe, found: Sequence[Record]) -> bool:
    roles = {"checkpoint", "generator", *record.model.get("parents", {})}
    named = {**recipe.parents, **recipe.settings}
    files = {key: str(value) for key, value in named.items() if key in roles and _has_contents(value)}
    asked = {key: records.plain(value) for key, value in recipe.settings.items() if key not in _FREE | files.keys()}
    if any(key not in record.config or record.config[key] != value for key, value in asked.items()):
        return False  # before any file is read
    return all(_is_of(record, recipe, key, path, found) for key, path in files.items())


def _is_of(record: Record, recipe: Recipe, key: str, path: str, found: Sequence[Record]) -> bool:
    """Whether a file that the recipe names is among those the record is of."""
    # A measured checkpoint stands with its own parents, so that `tokenizer` may be what it started from.
    held = {record.model.get("sha256"), *record.model.get("parents", {}).values()}
    if (REPOSITORY / path).exists():
        return identity(REPOSITORY / path) in held
    if path == recipe.outcome or record.config.get(key) == path:
        return True
    maker = next((made for made in every_recipe().values() if made.outcome == path), None)
    return maker is not None and any(
        made.kind == maker.experiment and made.model.get("sha256") in held and _tells(made, maker, found)
        for made in found
    )


def _has_contents(value: Any) -> bool:
    """Whether a setting names a file whose contents have an identity."""
    return isinstance(value, str) and value.endswith((".safetensors", ".parquet"))
