"""The format of a record: what each field holds, checked on creation and on reading."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evatok.errors import EvatokError
from evatok.storage.environment import REPOSITORY, portable
from evatok.storage.files import sha256_file

STATUSES = ("toy", "small", "paper")
DIRECTIONS = ("higher", "lower", None)
ENVIRONMENT_KEYS = ("argv", "commit", "dirty", "versions", "device", "threads", "wall_seconds")
_KIND = re.compile(r"[a-z0-9_]+")


class RecordError(EvatokError, ValueError):
    """A record that may not be written, or a file that is not a valid record."""


@dataclass(frozen=True)
class Metric:
    """A measured value: its unit ("dB", "clips/s", "" for none), the number of samples `n` it comes from, which
    direction is better ("higher", "lower", or None where neither is) and its spread (None: not measured)."""

    value: float
    unit: str
    n: int
    direction: str | None
    spread: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file that belongs to a record: `path` relative to the repository, `sha256` in hex."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path | str, root: Path = REPOSITORY) -> Artifact:
        """Return the artifact at `path`. Raises RecordError if it lies outside `root`."""
        resolved = Path(path).resolve()
        if not resolved.is_relative_to(root.resolve()):
            raise RecordError(f"artifact {resolved.name} lies outside the repository: move it there")
        return cls(resolved.relative_to(root.resolve()).as_posix(), sha256_file(resolved))


@dataclass(frozen=True)
class Record:
    """One set of measured numbers with everything needed to judge and repeat them.

    `protocol` says what was measured (data set, split, clips, frames, stride, size, networks, N, seeds),
    `model` on what (checkpoint hash, parents, parameters, mean tokens), `environment` where and how.
    """

    id: str
    kind: str
    status: str
    created: str
    protocol: dict[str, Any]
    model: dict[str, Any]
    metrics: dict[str, Metric]
    config: dict[str, Any]
    environment: dict[str, Any]
    artifacts: dict[str, Artifact]
    supersedes: str | None


def new_record(
    *,
    kind: str,
    status: str,
    protocol: Mapping[str, Any],
    model: Mapping[str, Any],
    metrics: Mapping[str, Metric | Mapping[str, Any]],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    artifacts: Mapping[str, Artifact | Mapping[str, str]] | None = None,
    supersedes: str | None = None,
) -> Record:
    """Create a checked record named `<kind>-<UTC time>-<8 hex of its content>`, reducing absolute paths in it.

    Raises RecordError for NaN or infinity, an unknown status, an incomplete metric, a value JSON cannot hold.
    """
    now = datetime.now(UTC)
    told = portable({"protocol": protocol, "model": model, "config": config, "environment": environment})
    content = {
        "kind": kind,
        "status": status,
        **told,
        "metrics": {name: _as_dict(metric) for name, metric in metrics.items()},
        "artifacts": {name: _as_dict(artifact) for name, artifact in (artifacts or {}).items()},
        "supersedes": supersedes,
    }
    content = plain(content, where=f"new {kind} record")
    for metric in content["metrics"].values():
        metric.setdefault("spread", None)
    return stamped(content, now)


def plain(value: Any, where: str = "value", nonfinite_as_null: bool = False) -> Any:
    """Convert `value` to JSON types: tuples become lists, arrays and tensors numbers or lists, paths text.

    NaN and infinity raise, or become None where `nonfinite_as_null`. Raises RecordError naming the entry
    (`where` and the keys below it) that JSON cannot hold.
    """
    if value is None or isinstance(value, bool | int | str):
        return value if type(value) in (type(None), bool, int, str) else _exact(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if nonfinite_as_null:
            return None
        raise RecordError(f"{where} is {value}: only finite numbers can be recorded")
    if isinstance(value, Mapping):
        return {str(key): plain(v, f"{where}.{key}", nonfinite_as_null) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{index}]", nonfinite_as_null) for index, v in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors
        return plain(value.tolist(), where, nonfinite_as_null)
    raise RecordError(f"{where} is a {type(value).__name__}, which JSON cannot hold: convert it first")


def _exact(value: Any) -> Any:
    """Convert subclasses of str and int (enumerations, numpy strings) to the type itself."""
    return str(value) if isinstance(value, str) else int(value)


def _as_dict(item: Any) -> dict[str, Any]:
    return asdict(item) if isinstance(item, Metric | Artifact) else dict(item)


def stamped(content: Mapping[str, Any], moment: datetime) -> Record:
    """Return the record of this content, created at a moment (UTC)."""
    kind = content["kind"]
    content = {**content, "created": moment.isoformat(timespec="microseconds")}
    return checked({"id": f"{kind}-{moment:%Y%m%dT%H%M%S}-{_digest(content)}", **content}, f"new {kind} record")


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def checked(content: Any, where: str) -> Record:
    """Build a record from `content`. Raises RecordError naming `where` and the first wrong field."""
    values = _values(content, Record, where)
    plain(values, where)
    _check(
        _KIND.fullmatch(values["kind"]),
        f"{where}: kind is {values['kind']!r}, not in lower_case_with_underscores",
    )
    _check(
        values["status"] in STATUSES,
        f"{where}: status is {values['status']!r}, not one of {', '.join(STATUSES)}",
    )
    for name in ENVIRONMENT_KEYS:
        _check(
            name in values["environment"],
            f"{where}: environment.{name} is missing",
        )
    for name in ("protocol", "metrics"):
        _check(values[name], f"{where}: {name} is empty; a record needs a protocol and metrics")
    for name in ("protocol", "model", "config", "environment"):
        _check(portable(values[name]) == plain(values[name]), f"{where}: {name} holds an absolute path")
    if values["id"].rpartition("-")[2] != _digest({key: v for key, v in values.items() if key != "id"}):
        raise RecordError(f"{where} was tampered with: its content no longer has the hash its id ends in")
    metrics = {name: _metric(entry, f"{where}: metrics.{name}") for name, entry in values["metrics"].items()}
    artifacts = {name: _artifact(entry, f"{where}: artifacts.{name}") for name, entry in values["artifacts"].items()}
    return Record(**{**values, "metrics": metrics, "artifacts": artifacts})


def _metric(entry: Any, where: str) -> Metric:
    metric = Metric(**_values(entry, Metric, where))
    _check(metric.n >= 1, f"{where}.n is {metric.n}: a value needs at least one sample")
    _check(
        metric.direction in DIRECTIONS,
        f"{where}.direction is {metric.direction!r}, not in {DIRECTIONS}",
    )
    return metric


def _artifact(entry: Any, where: str) -> Artifact:
    artifact = Artifact(**_values(entry, Artifact, where))
    inside = not artifact.path.startswith("/") and ".." not in Path(artifact.path).parts
    _check(inside, f"{where}.path is {artifact.path!r}, not a path inside the repository")
    _check(re.fullmatch(r"[0-9a-f]{64}", artifact.sha256), f"{where}.sha256 is not 64 hex digits")
    return artifact


_ACCEPTED: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
}


def _values(content: Any, schema: type, where: str) -> dict[str, Any]:
    """Return `content` as fields of the dataclass `schema`: all present, none unknown, each of its type."""
    _check(isinstance(content, dict), f"{where} is not a JSON object")
    known = {field.name: field for field in fields(schema)}
    _refuse(where, "unknown field", content.keys() - known.keys())
    _refuse(where, "missing field", {n for n, f in known.items() if f.default is MISSING} - content.keys())
    for name, value in content.items():
        declared = str(known[name].type)
        fits = isinstance(value, _ACCEPTED.get(declared, (dict,))) and not isinstance(value, bool)
        _check(fits, f"{where}: field {name} is {value!r}, expected {declared}")
    return dict(content)


def _check(condition: object, message: str) -> None:
    if not condition:
        raise RecordError(message)


def _refuse(where: str, what: str, names: Iterable[str]) -> None:
    odd = sorted(names)
    _check(not odd, f"{where}: {what} {', '.join(name or '(no name)' for name in odd)}")
