"""Lock files for one writer at a time: a lock names its holder, ends with it, and says what to do meanwhile.

A lock is a file locked with flock: the kernel releases it however its holder ends, `kill -9` included, so on one
machine a lock that can be taken is free. The file names its holder. On a network file system this may not hold: NFS
mounted with `nolock` or `local_lock=flock`, Lustre without `-o flock` and some FUSE file systems keep flock local to
one machine. So the holder also touches the file every few seconds, and a lock last held by another machine is taken
over only after `LEASE` seconds without such a heartbeat, by the file server's own clock.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from evatok.errors import EvatokError, undisturbed
from evatok.storage.leftovers import CleanUp

LEASE = 90.0
"""Seconds without a heartbeat after which the lock of another machine's process is taken over."""

_BEAT = LEASE / 6
_POLL = 0.1


class LockedError(EvatokError):
    """Another process is writing there."""


@contextmanager
def sole_writer(path: Path | str, what: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which is created with its folder and removed afterwards.

    A thread, a forked child or another call in the same process counts as another writer. Spawned children do not
    inherit the lock.

    Args:
        what: the name of what is written, for the message; by default the folder.
        wait: wait for a holder on this machine to finish instead of raising; only for short sections.

    Raises:
        LockedError: it is held; the message names the holder and the way out.
    """
    path, ended, beat = Path(path), threading.Event(), None
    held: list[_Held] = []  # filled inside, so that an interruption finds what to release
    try:
        _take(path, what or str(path.parent), wait, held)
        beat = threading.Thread(target=_keep_alive, args=(held[0].handle, ended), name=f"lock {path.name}", daemon=True)
        beat.start()
        yield
    finally:
        ended.set()
        if beat is not None and beat.ident is not None:
            beat.join()
        for lock in held:
            lock.let_go()


def lock_of(folder: Path | str, name: str = "writer") -> Path:
    """Return the lock file of a folder, or of `name` in it."""
    return Path(folder) / f".{name}.lock"


@dataclass(frozen=True)
class _Held:
    """An open lock file, and what releases it."""

    handle: int
    let_go: CleanUp


def _take(path: Path, what: str, wait: bool, held: list[_Held]) -> None:
    """Append the lock to `held` once it is held."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with undisturbed():  # otherwise a held lock could be unknown
            if _try_to_take(path, what, wait, held):
                return
        time.sleep(_POLL)


def _try_to_take(path: Path, what: str, wait: bool, held: list[_Held]) -> bool:
    """Whether it is held now; False if another writer has it, or just had."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        free = _flock(handle, path)
        if free and _is_at(handle, path):  # otherwise its holder has just removed it
            _refuse_other_machine(handle, path, what)
            held.append(_Held(handle, CleanUp(partial(_let_go, handle, path))))
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(_me()).encode(), 0)
        elif not free and not wait:
            raise LockedError(_told(_holder(handle), path, what))
    finally:
        if not held:
            os.close(handle)
    return bool(held)


def _let_go(handle: int, path: Path) -> None:
    if _is_at(handle, path):
        path.unlink(missing_ok=True)  # while held: nobody else can have taken this very file
    os.close(handle)


def _flock(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # ENOLCK, EOPNOTSUPP
        raise LockedError(
            f"{path}: this file system does not support locks ({error.strerror}), so two runs could write there "
            "at once; "
            "give a folder on a local disk"
        ) from error
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)


def _refuse_other_machine(handle: int, path: Path, what: str) -> None:
    """Raise LockedError if another machine's process was seen alive recently: its flock may not be visible here."""
    holder = _holder(handle)
    if not holder or holder.get("host") == socket.gethostname():
        return
    seen = os.fstat(handle).st_mtime
    os.utime(handle)  # now, by the file server's clock
    now = os.fstat(handle).st_mtime
    if now - seen < LEASE:
        os.utime(handle, (seen, seen))
        raise LockedError(
            f"{_told(holder, path, what)}; it last showed a sign of life {max(0, now - seen):.0f} s ago, and after "
            f"{LEASE:.0f} s the lock is taken over. If it is certainly dead, delete {path}"
        )


def _keep_alive(handle: int, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with suppress(OSError):
            os.utime(handle)


def _me() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv)[:500],
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(handle: int) -> dict[str, Any]:
    """Read what the file says about its holder; {} if not written yet, or not one of this project's."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _told(holder: dict[str, Any], path: Path, what: str) -> str:
    if not holder:
        return f"{what} is being written by another process (lock {path}): wait for it, or choose another folder"
    who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
    return f"{what} is being written by {who} ({holder.get('command')}): wait for it, stop it, or choose another folder"
