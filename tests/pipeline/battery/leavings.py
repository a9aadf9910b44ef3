"""What a command leaves in its folder, without what differs between any two runs: times, and the numbers of runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open

from evatok.search import candidate_table
from evatok.storage import records
from evatok.storage.files import PARTIAL, sha256_file
from evatok.training import state

_NOT_LEFT = ("runs", "tmp", "cwd", "stdout", "stderr", "stdout.changes")


def leavings(folder: Path) -> dict[str, Any]:
    """Every file that a command left, by its name below `folder`, with what it says."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.parts[0] in _NOT_LEFT:
            continue
        if name.parts[0] == "records":
            kind, told = _record(path)
            found.setdefault(f"records of {kind}", []).append(told)
        else:
            found[str(name)] = _content(path)
    return found


def litter(folder: Path) -> list[str]:
    """Files that no command should leave: half of a file, a lock, and whatever lies where temporary files do."""
    left = [path for path in folder.rglob("*") if path.name.endswith((PARTIAL, ".lock")) or ".partial" in path.name]
    left += [path for name in ("tmp", "cwd") for path in (folder / name).iterdir()]
    return sorted(str(path.relative_to(folder)) for path in left)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The files of which two commands left something else, with what they say of it."""
    names = sorted(one.keys() | other.keys())
    return [
        f"{name}: {str(one.get(name))[:300]} | {str(other.get(name))[:300]}"
        for name in names
        if one.get(name) != other.get(name)
    ]


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix == ".parquet":
        table = candidate_table.read(path)
        return table.sha256, table.origin, table.clips.tolist()
    if path.name == "state.pt":
        return state.sha256({key: value for key, value in state.read(path).items() if key != "seconds"})
    if path.name == "training.json":
        told = json.loads(path.read_text())
        return told["inputs"], {key: value for key, value in told["config"].items() if not str(value).startswith("/")}
    return sha256_file(path)


def _tensors(path: Path) -> Any:
    """The header and a hash of the tensors; the time that drawing a sample took is one, and left out."""
    with safe_open(path, framework="pt") as file:
        told = json.loads((file.metadata() or {}).get("evatok", "{}"))
        names = sorted(file.keys())
        tensors = {name: file.get_tensor(name) for name in names if "seconds" not in name}
    if len(tensors) < len(names):
        told.pop("sha256", None)
    return told, state.sha256(tensors)


def _record(path: Path) -> tuple[str, Any]:
    """A record's kind, and its numbers with what they were measured on."""
    record = records.read(path)
    metrics = {name: asdict(metric) for name, metric in record.metrics.items() if metric.unit != "s"}
    model = {key: value for key, value in record.model.items() if key != "run"}
    return record.kind, (record.status, record.protocol, model, metrics, sorted(record.artifacts))
