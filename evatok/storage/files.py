"""Atomic writes: files are either complete or absent. Nothing else writes under a final name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evatok.errors import EvatokError, is_no_room, undisturbed
from evatok.storage.leftovers import for_a_while

_PIECE = 2**24

PARTIAL = ".partial"
"""Suffix of a file being written."""


class NoRoomError(EvatokError, OSError):
    """A disk, quota or file size limit too small for the file to write."""


class CacheError(EvatokError):
    """No folder is available for the cache."""


class NotAFileError(EvatokError, OSError):
    """A pipe, a device or a folder in place of a file."""


def ordinary(path: Path | str) -> Path:
    """Return the path of a file that can be read without waiting for a writer.

    Raises:
        NotAFileError: something else is there.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise NotAFileError(f"{path}: not a file; move away what is there")
    return path


@contextmanager
def replacing(path: Path | str, *, beside: Path | None = None, size: int | None = None) -> Iterator[Path]:
    """Yield a new file to write to, which becomes `path` in one step on exit, flushed to disk and readable by all.

    Its name is unique, so that several processes may write the same `path`: the last one wins, and a reader sees one of
    their files, complete. An exception removes it. Leftovers of a killed writer of the same `path` are removed here.

    Args:
        beside: folder to hold it until then, on the same file system; by default that of `path`, created if needed.
        size: bytes to be written, if known: without room for them nothing is started.

    Raises:
        NoRoomError: the disk is full; the message names file and disk.
    """
    path = Path(path)
    folder = beside or path.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, path.name)

    def empty() -> Path:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.{_writer()}.", suffix=PARTIAL)
        os.close(handle)
        return Path(name)

    with for_a_while(empty, lambda made: made.unlink(missing_ok=True)) as partial, writing(path, partial, size):
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)


@contextmanager
def replacing_folder(folder: Path | str) -> Iterator[Path]:
    """Yield a new folder to write to, which replaces `folder` on exit; an exception removes it.

    Leftovers of a killed writer of the same `folder` are removed here.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent, folder.name)
    place = folder.parent / f".{folder.name}.{_writer()}.folder{PARTIAL}"  # first for the new one, then for the old one

    def empty() -> Path:
        (place / "new").mkdir(parents=True)
        return place

    with for_a_while(empty, lambda made: shutil.rmtree(made, ignore_errors=True)):
        yield place / "new"
        with undisturbed():
            if folder.exists():
                folder.rename(place / "old")
            (place / "new").rename(folder)


@contextmanager
def writing(path: Path, partial: Path | None = None, size: int | None = None) -> Iterator[None]:
    """Within, a full disk raises a NoRoomError naming the file, the disk and, if known, what is missing.

    Args:
        partial: the file under its current name.
        size: final size in bytes; without room for it nothing is started.
    """
    folder = path.parent
    if size is not None and (free := shutil.disk_usage(folder).free) < size:
        raise NoRoomError(_no_room(path, "there is no room", size, free))
    try:
        yield
    except Exception as error:
        if not is_no_room(error):
            raise
        reason = getattr(error, "strerror", None) or "it could not be written completely"
        held = partial.stat().st_size if partial and partial.exists() else 0
        raise NoRoomError(_no_room(path, reason, size, shutil.disk_usage(folder).free + held)) from error


def reserve(path: Path, size: int) -> None:
    """Allocate blocks of the file up to `size` bytes: a memory map of a sparse file dies by a signal on a full disk."""
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        for start in range(0, size, _PIECE):  # a file system of zeros, so nothing existing is lost
            file.seek(start)
            held = file.read(min(_PIECE, size - start))
            file.seek(start)
            file.write(held.ljust(min(_PIECE, size - start), b"\0"))


def told_bytes(count: float) -> str:
    """Format a number of bytes: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def memory_bytes() -> int:
    """Return the bytes of memory this process may use: the machine's, or its container's if less."""
    held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            held = min(held, int(Path(path).read_text()))
    return held


def disk_of(path: Path) -> Path:
    """Return the mount point of an existing path's file system."""
    path = path.resolve()
    while path != path.parent and path.parent.stat().st_dev == path.stat().st_dev:
        path = path.parent
    return path


def _no_room(path: Path, reason: str, size: int | None, free: int) -> str:
    told = f"{path}: {reason}: the disk at {disk_of(path.parent)} has {told_bytes(free)} left"
    if size is not None:
        told += f", the file needs {told_bytes(size)}"
        told += f", {told_bytes(size - free)} are missing" if size > free else ""
    return f"{told}; free some space, or give another path: the same command then resumes from what is saved"


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON with sorted keys. Raises ValueError for NaN and infinity."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path, size=len(text)) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_file(path: Path | str) -> str:
    """Return the file's SHA-256 in hex, read in pieces."""
    with ordinary(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the cache folder: $EVATOK_CACHE, else `evatok` in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        CacheError: none of them is set, and the user has no home folder.
    """
    chosen = os.environ.get("EVATOK_CACHE")
    try:
        return Path(chosen or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / (
            "" if chosen else "evatok"
        )
    except RuntimeError as error:
        raise CacheError("this user has no home folder: set EVATOK_CACHE to a folder that can be written") from error


def _writer() -> str:
    """Identify this process, for the name of a partial file."""
    return f"{socket.gethostname().replace('.', '-')}-{os.getpid()}"


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove partial files of `name`, or of any, whose writer was a process of this machine and has ended."""
    host, _, _ = _writer().rpartition("-")
    begins = rf"\.{re.escape(name)}\." if name else r"\..+\."
    written = re.compile(rf"{begins}{re.escape(host)}-(\d+)\..*{re.escape(PARTIAL)}", re.DOTALL)
    for entry in os.scandir(folder):
        found = written.fullmatch(entry.name)
        if found and not is_alive(int(found[1])):
            with suppress(OSError):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else Path(entry.path).unlink()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
