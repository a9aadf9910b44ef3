"""Files that are either complete or absent: the one writer of everything that lies under a final name."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Ending of a file that is being written."""


@contextmanager
def replacing(path: Path | str, *, beside: Path | None = None) -> Iterator[Path]:
    """A new file to write to, which becomes `path` in one step on leaving, flushed to the disk and readable by all.

    Its name is unique, so that several processes may write the same `path`: the last one wins, and a reader sees one
    of their files, complete. An exception removes it. What a killed writer of the same `path` left is removed here.

    Args:
        beside: folder in which it lies until then, on the same file system; by default that of `path`, which is made.
    """
    path = Path(path)
    folder = beside or path.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder, path.name)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.{_writer()}.", suffix=PARTIAL)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON with sorted keys. Raises ValueError for NaN and infinity."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_file(path: Path | str) -> str:
    """The file's SHA-256 in hex, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where everything that can be made again lies: $EVATOK_CACHE, else `evatok` in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("EVATOK_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "evatok"


def _writer() -> str:
    """This process, as the name of a partial file tells it."""
    return f"{socket.gethostname().replace('.', '-')}-{os.getpid()}"


def _remove_abandoned(folder: Path, name: str) -> None:
    """Remove partial files of `name` whose writer was a process of this machine and lives no more."""
    host, _, _ = _writer().rpartition("-")
    start = f".{name}.{host}-"
    for entry in os.scandir(folder):
        if not (entry.name.startswith(start) and entry.name.endswith(PARTIAL)):
            continue
        pid = entry.name.removeprefix(start).partition(".")[0]
        if pid.isdecimal() and not is_alive(int(pid)):
            with suppress(OSError):
                Path(entry.path).unlink()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
