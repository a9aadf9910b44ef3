"""Records of measured numbers: one JSON file per set of numbers, written once, checked when read.

A record's id ends in a hash of its content, so a file edited by hand no longer matches its name. Records are only ever
added: a wrong or outdated one is superseded by another that names it. Paths inside a record are relative to the
repository, never absolute, so that a record means the same on every machine.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Container, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from evatok.storage.environment import REPOSITORY
from evatok.storage.files import remove_abandoned, write_json
from evatok.storage.locks import lock_of, sole_writer
from evatok.storage.record_format import (
    DIRECTIONS,
    ENVIRONMENT_KEYS,
    STATUSES,
    Artifact,
    Metric,
    Record,
    RecordError,
    checked,
    new_record,
    plain,
    stamped,
)

__all__ = [
    "DIRECTIONS",
    "ENVIRONMENT_KEYS",
    "REPOSITORY",
    "STATUSES",
    "Artifact",
    "Metric",
    "Record",
    "RecordError",
    "new_record",
    "newest",
    "plain",
    "query",
    "read",
    "write",
    "write_once",
]

_ROUNDING = 1e-6
_REASON = "supersedes_because"
"""Entry of a record's model: why it supersedes another."""

_log = logging.getLogger("evatok.records")


def write(record: Record, folder: Path | str) -> Path:
    """Write `<folder>/<id>.json` in one step and return its path.

    The newest record of a kind is the one written last, whatever the clock says: if the clock is behind the newest
    record in the folder, the new one is stamped right after it, with a matching id.

    Raises RecordError if the record is invalid, already exists, or supersedes one missing from `folder`.
    """
    folder = Path(folder)
    record = checked(asdict(record), record.id)
    if (folder / f"{record.id}.json").exists():
        raise RecordError(
            f"{folder / record.id}.json exists: records are append-only, write a new one that supersedes it"
        )
    if record.supersedes is not None and not (folder / f"{record.supersedes}.json").exists():
        raise RecordError(f"{record.id} supersedes {record.supersedes}, which is not in {folder}")
    with sole_writer(lock_of(folder), f"records folder {folder}", wait=True):
        record = _after(newest(folder, record.kind), record)
        path = folder / f"{record.id}.json"
        write_json(path, asdict(record))
    return path


def write_once(
    record: Record, folder: Path | str, *, free: Container[str] = (), outcome: str = ""
) -> tuple[Path, bool]:
    """Write a record unless `folder` already holds the same numbers; return its path and whether it is new.

    Records are the same if kind, status, protocol, model (but for `run` and `supersedes_because`), configuration and
    artifacts by content are equal, and numbers agree up to rounding. Timings (unit "s") are not compared, and
    superseded records are not considered.

    Args:
        free: configuration keys that may differ.
        outcome: the artifact that the command made. The record supersedes the newest one of its kind for a file at the
            same path, since that file is no longer there.
    """
    folder = Path(folder)
    with sole_writer(lock_of(folder, "once"), f"records folder {folder}", wait=True):
        with sole_writer(lock_of(folder), f"records folder {folder}", wait=True):
            remove_abandoned(folder)  # a killed command's file and lock, as this one may have nothing to write
        found = query(folder, record.kind)
        for earlier in reversed(found):
            if _same(record, earlier, free):
                return folder / f"{earlier.id}.json", False
        return write(_superseding(record, found, outcome, free), folder), True


def newest(folder: Path | str, kind: str) -> Record | None:
    """Return the record of a kind written last; None if there is none."""
    found = query(folder, kind, superseded=True)
    return found[-1] if found else None


def _in_order(found: Iterable[Record], superseded: bool) -> list[Record]:
    everything = list(found)
    replaced = set() if superseded else {record.supersedes for record in everything}
    left = (record for record in everything if record.id not in replaced)
    return sorted(left, key=lambda record: (record.created, record.id))


def _after(earlier: Record | None, record: Record) -> Record:
    """Return the record, stamped a microsecond after an earlier one if the clock puts it before that."""
    if earlier is None or earlier.created < record.created:
        return record
    moment = datetime.fromisoformat(earlier.created) + timedelta(microseconds=1)
    _log.warning(
        "the clock reads %s, before the newest record %s (%s): the new one is stamped right after it",
        record.created,
        earlier.id,
        earlier.created,
    )
    content = {key: value for key, value in asdict(record).items() if key != "id"}
    return stamped(content, moment)


def _superseding(record: Record, found: list[Record], outcome: str, free: Container[str]) -> Record:
    """Return the record, or one that supersedes the newest of `found` whose outcome it overwrote, with the reason."""
    if record.supersedes is not None or outcome not in record.artifacts:
        return record
    path = record.artifacts[outcome].path
    overwritten = [r for r in found if outcome in r.artifacts and r.artifacts[outcome].path == path]
    if not overwritten:
        return record
    before, now = _asked(overwritten[-1], free), _asked(record, free)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    how = f"with other settings ({', '.join(changed)})" if changed else "by the same command"
    content = {key: value for key, value in asdict(record).items() if key != "id"}
    content["supersedes"] = overwritten[-1].id
    content["model"] = {**record.model, _REASON: f"{path} was made again {how}"}
    return stamped(content, datetime.fromisoformat(record.created))


_LATER = {"fp16": False, "short": "skip", "random_start": False}
"""Keys added to configurations later, and the values equivalent to their absence."""


def _asked(record: Record, free: Container[str]) -> dict[str, Any]:
    """Return the part of a configuration that affects numbers; later keys count only if they change something."""
    asked = {key: value for key, value in record.config.items() if key not in free}
    return {key: value for key, value in asked.items() if key not in _LATER or value != _LATER[key]}


def _same(one: Record, other: Record, free: Container[str]) -> bool:
    def asked(record: Record) -> tuple[Any, ...]:
        files = {name: artifact.sha256 for name, artifact in record.artifacts.items()}
        return record.kind, record.status, record.protocol, _asked(record, free), files

    def found(record: Record) -> dict[str, Any]:
        values = {name: asdict(m) if m.unit != "s" else None for name, m in record.metrics.items()}
        model = {key: value for key, value in record.model.items() if key not in ("run", _REASON)}
        return {"metrics": values, "model": model}

    return asked(one) == asked(other) and _agree(found(one), found(other))


def _agree(one: Any, other: Any) -> bool:
    """Whether both are equal, numbers up to rounding: other devices and thread counts sum in another order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING)
    return bool(one == other)


def read(path: Path | str) -> Record:
    """Read the record at `path`. Raises RecordError naming the file and the missing or wrong field."""
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would block
        raise RecordError(f"{path}: not a regular file, so not a record; move it away")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such record") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{path} is not valid JSON: {error}") from error
    record = checked(content, str(path))
    if path.stem != record.id:
        raise RecordError(f"{path}: its field id says {record.id}; a record's file is named after its id")
    return record


def query(
    folder: Path | str,
    kind: str | None = None,
    status: str | None = None,
    *,
    superseded: bool = False,
    **protocol: Any,
) -> list[Record]:
    """Return the matching records in `folder`, newest last; a missing folder holds none.

    `protocol` filters compare with the entries of a record's protocol. Superseded records are omitted unless
    `superseded` is True. If a kind is given, no other file is read. Raises RecordError for an invalid record.
    """
    names = "*.json" if kind is None else f"{kind}-*.json"
    everything = _in_order((read(path) for path in Path(folder).glob(names)), superseded)

    def wanted(record: Record) -> bool:
        return status in (None, record.status) and all(
            record.protocol.get(key) == plain(value) for key, value in protocol.items()
        )

    return list(filter(wanted, everything))
