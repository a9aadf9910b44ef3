"""Videos inside container files: webdataset's tar shards, Parquet or Arrow files of Hugging Face datasets.

A contained video's path is its file's path, a slash, and its name there (`shard-000.tar/0007.mp4`; in tables, the row
number). Tar shards are read in place by their index; tables by row group or mapped row. Labels are a shard's `.cls`, or
the `label` of its `.json`, and a table's column `label` with its class names. Splits come from words such as train in
file and folder names, if every file has one.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evatok.errors import EvatokError

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".ts",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".vob",
    ".wmv",
    ".asf",
    ".flv",
    ".3gp",
    ".3g2",
    ".ogv",
    ".gif",
)
TABLES = (".parquet", ".arrow")
SUFFIXES = (".tar", *TABLES)
LABELS = ("label", "action", "class", "cls")
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


class ContainerError(EvatokError, ValueError):
    """A shard or table that cannot be read, or holds no videos."""


def held_in(path: Path) -> tuple[Path, str] | None:
    """Return the container of the video at a path and its name there; None for an ordinary path."""
    for parent in path.parents:
        if parent.suffix.lower() in SUFFIXES and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def state(path: Path) -> tuple[int, int]:
    """Return size and modification time of a file, or of a video within one. Raises OSError if missing."""
    found = held_in(path)
    if found is None:
        told = path.stat()
        return told.st_size, told.st_mtime_ns
    container, name = found
    return _size(container, name), container.stat().st_mtime_ns


def read(path: Path) -> io.BytesIO:
    """Read a video within a container. Raises OSError if it is missing."""
    found = held_in(path)
    assert found is not None
    container, name = found
    if container.suffix.lower() in TABLES:
        return io.BytesIO(_content(container, name))
    offset, size = _entry(container, name)
    with container.open("rb") as file:
        file.seek(offset)
        return io.BytesIO(file.read(size))


def files_of(path: Path) -> list[Path]:
    """List the containers at a path: itself, or those of a folder or its subfolder data; [] for none."""
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return [path]
    if not path.is_dir():
        return []
    found = [file for folder in (path, path / "data", *_split_folders(path)) for file in _within(folder)]
    return sorted(set(found))


def scan(path: Path) -> pd.DataFrame:
    """List the videos of all containers at a path as manifest rows. Raises ContainerError for none."""
    files = files_of(path)
    splits = [_split_of(file.relative_to(path) if path.is_dir() else Path(file.name)) for file in files]
    told = all(splits)
    rows = [
        {"path": str(file.absolute() / name), "label": label, "start": 0.0, "split": split if told else ""}
        for file, split in zip(files, splits, strict=True)
        for name, label in _videos(file)
    ]
    if not rows:
        raise ContainerError(f"{path}: its {len(files)} shards hold no video")
    return pd.DataFrame(rows)


def _videos(file: Path) -> Iterator[tuple[str, str]]:
    """Yield name and label of every video in a container."""
    if file.suffix.lower() in TABLES:
        yield from _rows(file)
        return
    index = _index(file, file.stat().st_mtime_ns)
    for name in sorted(index):
        if Path(name).suffix.lower() in VIDEO_SUFFIXES:
            yield name, _label_of(file, name.rpartition(".")[0], index)


def _label_of(file: Path, key: str, index: dict[str, tuple[int, int]]) -> str:
    if f"{key}.cls" in index:
        return read(file / f"{key}.cls").read().decode(errors="replace").strip()
    if f"{key}.json" in index:
        try:
            facts = json.loads(read(file / f"{key}.json").read())
        except ValueError as error:
            raise ContainerError(f"{file}: {key}.json is not JSON ({error})") from error
        return next((str(facts[name]) for name in LABELS if isinstance(facts, dict) and name in facts), "")
    return ""


@lru_cache(maxsize=4096)
def _index(file: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Return offset and size of every file in a tar shard."""
    try:
        with tarfile.open(file, "r:") as shard:
            return {entry.name.removeprefix("./"): (entry.offset_data, entry.size) for entry in shard if entry.isfile()}
    except (tarfile.TarError, EOFError) as error:
        raise ContainerError(f"{file}: not an uncompressed tar file ({error}); unpack it, or make it again") from error


def _entry(file: Path, name: str) -> tuple[int, int]:
    try:
        return _index(file, file.stat().st_mtime_ns)[name]
    except KeyError:
        raise FileNotFoundError(2, "the shard does not hold it", str(file / name)) from None


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    table = _Table(file)
    labels = table.labels()
    for number, label in enumerate(labels):
        yield f"{number:09d}.mp4", label


def _size(container: Path, name: str) -> int:
    if container.suffix.lower() in TABLES:
        return container.stat().st_size  # of the table: a row's own size would have to be read
    return _entry(container, name)[1]


def _content(file: Path, name: str) -> bytes:
    return _Table(file).video(int(Path(name).stem))


class _Table:
    """A table with a column of videos, struct<bytes, path>."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self.schema = pq.read_schema(file) if file.suffix.lower() == ".parquet" else _mapped(file).schema
        except (pa.ArrowInvalid, pa.ArrowIOError, OSError) as error:
            raise ContainerError(f"{file}: not a complete table ({error})") from error
        found = [field.name for field in self.schema if _holds_videos(field)]
        if not found:
            raise ContainerError(f"{file}: no column of videos (a struct of bytes and path) in {self.schema.names}")
        self.column = "video" if "video" in found else found[0]

    def labels(self) -> list[str]:
        name = next((name for name in LABELS if name in self.schema.names), None)
        if self.file.suffix.lower() == ".parquet":
            count = pq.ParquetFile(self.file).metadata.num_rows
            values = [] if name is None else pq.read_table(self.file, columns=[name])[name].to_pylist()
        else:
            count = _mapped(self.file).num_rows
            values = [] if name is None else _mapped(self.file)[name].to_pylist()
        names = self._class_names(name)
        told = [names[value] if names and isinstance(value, int) else str(value) for value in values]
        return told or [""] * count

    def _class_names(self, column: str | None) -> list[str]:
        told = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
        feature: dict[str, Any] = told.get("info", {}).get("features", {}).get(column, {})
        return list(feature.get("names", []))

    def video(self, row: int) -> bytes:
        """Read a row's video, from the table or from the file it names."""
        if self.file.suffix.lower() == ".arrow":
            held = _mapped(self.file)[self.column][row].as_py()
        else:
            file = pq.ParquetFile(self.file)
            group, before = 0, 0
            while row >= before + file.metadata.row_group(group).num_rows:
                before += file.metadata.row_group(group).num_rows
                group += 1
            held = _group(self.file, self.file.stat().st_mtime_ns, group, self.column)[row - before].as_py()
        if held["bytes"] is not None:
            return bytes(held["bytes"])
        return (self.file.parent / held["path"]).read_bytes()


@lru_cache(maxsize=1)
def _group(file: Path, changed: int, group: int, column: str) -> pa.ChunkedArray:
    return pq.ParquetFile(file).read_row_group(group, columns=[column])[column]


@lru_cache(maxsize=64)
def _mapped(file: Path) -> pa.Table:
    source = pa.memory_map(str(file))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source).read_all()


def _holds_videos(field: pa.Field) -> bool:
    return pa.types.is_struct(field.type) and {"bytes", "path"} <= {inner.name for inner in field.type}


def _within(folder: Path) -> Iterable[Path]:
    return [file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]


def _split_folders(path: Path) -> list[Path]:
    return [path / name for name in _SPLITS if (path / name).is_dir()]


def _split_of(name: Path) -> str:
    words = re.split(r"[^a-z]+", name.as_posix().lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")
