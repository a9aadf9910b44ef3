"""Damage to files and nonsense for values, drawn at random: what disks, copies, editors and slips of the pen make."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from evatok.storage import checkpoints

NONSENSE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2.5,
    1e30,
    -1e30,
    10**9,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "many",
    "nan",
    "../../x",
    "/dev/null",
    "/",
    "a\nb",
    "x" * 5000,
    "ünïcode",
    [],
    [-1],
    ["a", None],
    [[]],
    {},
    {"a": 1},
)
"""Values that hardly any key or field can take."""

Damage = Callable[[Path, random.Random], str]


def of_bytes(path: Path, drawn: random.Random) -> str:
    """Damage a file as disks and broken copies do; returns what was done."""
    content = path.read_bytes()
    kind = drawn.choice(["cut", "flipped", "flipped", "zeros", "noise", "longer", "empty", "text", "doubled"])
    at = drawn.randrange(len(content)) if content else 0
    changed = bytearray(content)
    if kind == "flipped" and content:
        changed[at] ^= 1 << drawn.randrange(8)
    elif kind in ("zeros", "noise"):
        length = drawn.randint(1, 4096)
        changed[at : at + length] = bytes(length) if kind == "zeros" else drawn.randbytes(length)
    made = {
        "cut": content[:at],
        "longer": content + drawn.randbytes(17),
        "empty": b"",
        "text": drawn.choice([b"{", b"null", b"[]", b"3\n", b"\xff\xfe", b"<html>404</html>", b"a,b\n1\n" * 9]),
        "doubled": content + content,
    }
    path.write_bytes(made.get(kind, bytes(changed)))
    return f"{path.name}: {kind} at {at}"


def of_place(path: Path, drawn: random.Random) -> str:
    """Put something else where a file or folder was; returns what."""
    kind = drawn.choice(["absent", "folder", "pipe", "link to itself", "link to nothing", "device", "other file"])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "link to nothing":
        path.symlink_to(path.with_name("nothing"))
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "other file":
        path.write_bytes(
            drawn.choice([b"\x89PNG\r\n\x1a\n" + bytes(99), b"PK\x03\x04" + bytes(99), b"PAR1" + bytes(9)])
        )
    return f"{path.name}: {kind}"


def of_value(value: Any, drawn: random.Random) -> Any:
    """A copy of something in JSON types with one odd entry, missing entry or entry too many, at any depth."""
    value = copy.deepcopy(value)
    holder, key = drawn.choice(_entries(value) or [([value], 0)])
    action = drawn.choice(["odd", "odd", "odd", "near", "gone", "more"])
    if action == "gone":
        del holder[key]
    elif action == "more" and isinstance(holder, dict):
        holder[drawn.choice(["x", "", "py/object", key + "s"])] = drawn.choice(NONSENSE)
    elif action == "near" and type(holder[key]) in (int, float):
        holder[key] = drawn.choice([holder[key] + 0.5, -holder[key], holder[key] * 10**6, str(holder[key])])
    else:
        holder[key] = drawn.choice(NONSENSE)
    return value


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """All places of a nested value: (the dictionary or list, the key in it)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, part in pairs:
        found += [(value, key), *_entries(part)]
    return found


def of_json(path: Path, drawn: random.Random) -> str:
    """Make one entry of a JSON file odd."""
    path.write_text(json.dumps(of_value(json.loads(path.read_text()), drawn)))
    return f"{path.name}: {path.read_text()[:300]}"


def of_lines(path: Path, drawn: random.Random) -> str:
    """Damage a text file of lines as editors and spreadsheets do."""
    lines = path.read_text().splitlines()
    at = drawn.randrange(len(lines))
    cells = lines[at].split(",")
    kind = drawn.choice(["cell", "cell", "gone", "twice", "swapped", "joined", "semicolons", "quoted", "sorted"])
    if kind == "cell":
        cells[drawn.randrange(len(cells))] = str(drawn.choice(NONSENSE))
        lines[at] = ",".join(cells)
    elif kind == "gone":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "swapped":
        lines[at], lines[-1] = lines[-1], lines[at]
    elif kind == "joined":
        lines[at : at + 2] = ["".join(lines[at : at + 2])]
    elif kind == "sorted":
        lines[1:] = sorted(lines[1:], reverse=True)
    else:
        lines[at] = lines[at].replace(",", ";") if kind == "semicolons" else '"' + lines[at]
    path.write_text("\n".join(lines) + "\n")
    return f"{path.name}, line {at + 1}: {kind}"


def of_header(path: Path, drawn: random.Random) -> str:
    """Make one entry of a checkpoint's header odd, under the hash that goes with it."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["evatok"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    part = drawn.choice(["config", "config", "facts", "parents"])
    header[part] = of_value(header[part], drawn)
    _save(path, header, weights)
    return f"{path.name}: {part} {json.dumps(header[part])[:400]}"


def of_weights(path: Path, drawn: random.Random) -> str:
    """Make one tensor of a checkpoint odd, under the hash that goes with it."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["evatok"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = drawn.choice(sorted(weights))
    kind = drawn.choice(["nan", "inf", "gone", "renamed", "flat", "whole numbers", "one more"])
    if kind in ("nan", "inf") and weights[name].is_floating_point():
        weights[name] = torch.full_like(weights[name], float(kind))
    elif kind in ("gone", "renamed"):
        held = weights.pop(name)
        weights |= {name + "_": held} if kind == "renamed" else {}
    elif kind == "flat":
        weights[name] = weights[name].flatten().contiguous()[:-1].clone()
    elif kind == "whole numbers":
        weights[name] = torch.zeros(weights[name].shape, dtype=torch.int64)
    else:
        weights["more"] = torch.zeros(3)
    _save(path, header, weights)
    return f"{path.name}: {name} {kind}"


def _save(path: Path, header: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    header["sha256"] = checkpoints._sha256(header, weights)
    save_file(weights, path, metadata={"evatok": json.dumps(header)})


def of_table(path: Path, drawn: random.Random) -> str:
    """Change what a candidate table holds, or what its header says, as another program would rewrite it."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    kind = drawn.choice(["header", "header", "seconds", "reversed", "shorter", "column gone", "scores", "text"])
    if kind == "header":
        metadata[b"evatok"] = json.dumps(of_value(json.loads(metadata[b"evatok"]), drawn)).encode()
    elif kind == "seconds":
        metadata[b"seconds"] = str(drawn.choice(NONSENSE)).encode()
    elif kind == "reversed":
        table = table.take(np.arange(len(table))[::-1].copy())
    elif kind == "shorter":
        table = table.slice(0, drawn.randrange(len(table)))
    elif kind == "column gone":
        table = table.drop_columns([drawn.choice(table.column_names)])
    else:
        name = drawn.choice([name for name in table.column_names if name != "clip"])
        size = len(table[name][0])
        odd = drawn.choice([np.nan, np.inf, 0.0, 1e30])
        values = [[odd] * size] * len(table) if kind == "scores" else ["word"] * len(table)
        column = pa.array(values, pa.list_(pa.float32(), size) if kind == "scores" else pa.string())
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return f"{path.name}: {kind}"


def of_array(path: Path, drawn: random.Random) -> str:
    """Save something else under the name of a NumPy array."""
    held = np.load(path)
    kind = drawn.choice(["floats", "flat", "shorter", "objects", "other order", "empty", "signed"])
    made = {
        "floats": held.astype(np.float32) / 255,
        "flat": held.ravel(),
        "shorter": held[:-1],
        "objects": np.array([None, {}], dtype=object),
        "other order": held[::-1],
        "empty": held[:0],
        "signed": held.astype(np.int64) - 300,
    }[kind]
    np.save(path, made, allow_pickle=True)
    return f"{path.name}: {kind}"


def of_state(path: Path, drawn: random.Random) -> str:
    """Change what a training's state holds, under its hash or without one."""
    parts = torch.load(path, weights_only=True)
    kind = drawn.choice(["part gone", "step", "weights", "other", "hash"])
    if kind == "part gone":
        del parts[drawn.choice(sorted(parts))]
    elif kind == "step":
        parts["step"] = drawn.choice(NONSENSE)
    elif kind == "weights":
        name = drawn.choice(sorted(parts["module"]))
        parts["module"][name] = parts["module"][name] + 1
    elif kind == "hash":
        parts["sha256"] = drawn.choice(["", "0" * 64, None, 3])
    torch.save(drawn.choice([None, [], {}, 3]) if kind == "other" else parts, path)
    return f"{path.name}: {kind}"
