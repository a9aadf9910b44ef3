"""Errors for users, and how every command ends on one: a line on stderr and an exit code.

2   an error: the line names the file, key or device, and the way out
130 Ctrl-C, 143 SIGTERM: everything saved so far is kept, and the same command resumes from it
141 the reader of the output is gone, as in `... --list | head`: no line, as with other programs

`--debug`, an option of every command (`evatok.storage.arguments.with_debug`), shows the traceback.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import multiprocessing.util
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

PACKAGE = Path(__file__).resolve().parent
ERROR, INTERRUPTED, TERMINATED, UNREAD = 2, 128 + signal.SIGINT, 128 + signal.SIGTERM, 141
_STOPPING: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)

LONGEST_LINE = 1500
"""Characters of an error's line at most."""

_GO_ON = "saved work is kept, and the same command resumes from it"
_WAYS_OUT = {
    errno.ENOENT: "give a path that exists",
    errno.EACCES: "give another path, or change its permissions",
    errno.EPERM: "give another path, or change its permissions",
    errno.EROFS: "give a path that can be written to",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "a file is in the way of a folder: move it, or give another path",
    errno.EEXIST: "it is in the way: move it, or give another path",
    errno.ELOOP: "a link leads back to itself: remove it, or give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOSPC: "free some space, or give another path; the same command then resumes from what is saved",
    errno.EDQUOT: "free some space, or give another path; the same command then resumes from what is saved",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or write less",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer workers",
}
_NO_DEVICE = (
    "found no nvidia driver",
    "no cuda gpus",
    "not compiled with cuda",
    "invalid device ordinal",
    "no hip gpus",
)
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "unable to allocate", "cannot allocate")
_NO_ROOM = ("no space left", "file too large", "pytorchstreamwriter failed", "unexpected pos", "disk quota")


class EvatokError(Exception):
    """Base class of the project's errors: the message says what is wrong and the way out."""


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, so that cleaning up can run.

    No `except Exception` takes it for a fault, and whatever ends in order at Ctrl-C does so here: Sacred, too, which
    stores the run with this status.
    """

    STATUS = "PREEMPTED"


@contextmanager
def one_line(name: str, *, debug: bool = False) -> Iterator[None]:
    """End the process with one line on stderr for whatever goes wrong within, and for SIGTERM and Ctrl-C.

    Args:
        name: of the command, with which the line begins.
        debug: leave the traceback as it is.
    """
    try:
        with terminable():
            yield
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            sys.exit(UNREAD)
        if debug:
            raise
        sys.exit(report(name, error))


def _unread() -> bool:
    """Whether nothing reads the standard output any more; then nothing further is written to it."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by something without a file
        return False
    waiting = select.poll()
    waiting.register(output, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # what is left is flushed at exit
    return True


def report(name: str, error: BaseException) -> int:
    """Print the line for `error` to stderr; returns the exit code."""
    print(f"{name}: {line_of(error)}", file=sys.stderr)
    if isinstance(error, Terminated):
        return TERMINATED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else ERROR


def line_of(error: BaseException) -> str:
    """Describe an error and the way out in one line for a terminal.

    Bytes of names that are not UTF-8 are replaced, characters that are not printable written as escapes, and the middle
    of a line longer than `LONGEST_LINE` is left out: a damaged file may have put anything into it.
    """
    line = " ".join(_told(error).split()).encode(errors="replace").decode()
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - 305]} ... {line[-300:]}"


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated in the main thread at the first SIGTERM; forked processes die of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(TERMINATED)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let the cleaning up finish
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end of a short section that must complete or not begin.

    In the main thread, where Python runs handlers; other threads are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # Those that were not set from Python cannot be put back.
    previous = {number: handler for number in _STOPPING if (handler := signal.getsignal(number)) is not None}
    try:
        for number in previous:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for held_back in came[:1]:
            signal.raise_signal(held_back)


def die_with_parent(number: int) -> None:
    """For a child process: have the system send it a signal once its parent is gone, even by `kill -9`.

    On Linux; elsewhere a thread looks for the parent every second.
    """
    parent = getattr(multiprocessing.parent_process(), "pid", None) or os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
    else:
        threading.Thread(target=_signal_orphan, args=(parent, number), daemon=True).start()
    if os.getppid() != parent:  # gone already
        os.kill(os.getpid(), number)


def _signal_orphan(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)


def end_quietly() -> None:
    """For a worker process: leave Ctrl-C to the parent, and clean up on the SIGTERM with which it ends its workers.

    The same signal comes where the parent is killed.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    # Once its work is done it is ending anyway; what it would raise in a function of atexit would only be printed.
    multiprocessing.util.Finalize(None, signal.signal, (signal.SIGTERM, signal.SIG_IGN), exitpriority=1000)
    die_with_parent(signal.SIGTERM)


def quiet_interrupts(name: str) -> None:
    """Print one line for a Ctrl-C that nothing handles, as while modules are being imported."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            return previous(kind, error, trace)
        code = report(name, error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Python would die of the signal instead, and some shells go on then

    sys.excepthook = hook


def _told(error: BaseException) -> str:
    message = str(error) or type(error).__name__
    if isinstance(error, Terminated):
        return f"stopped by SIGTERM; {_GO_ON}"
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by Ctrl-C; {_GO_ON}"
    if isinstance(error, EvatokError):
        return message
    if isinstance(error, MemoryError) or _says(error, _NO_MEMORY):
        return f"out of memory ({_first(message)}): take a smaller batch, fewer clips or workers, or a smaller size"
    if _says(error, _NO_DEVICE):
        return f"the device is not available ({_first(message)}): give device=cpu, or a device that PyTorch sees"
    if is_no_room(error) and not isinstance(error, OSError):
        return f"a file could not be written completely ({_first(message)}): {_WAYS_OUT[errno.ENOSPC]}"
    if isinstance(error, OSError):
        return _of_file(error)
    if isinstance(error, ImportError):
        return message if "pip install" in message else f"{message}: install the package it comes in"
    if _is_deliberate(error):
        return message
    return f"unexpected {type(error).__name__}: {_first(message)} ({_place(error)}); --debug shows the traceback"


def _of_file(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = " -> ".join(names)
    reason = error.strerror or str(error) or type(error).__name__
    way_out = _WAYS_OUT.get(error.errno or 0)
    return (f"{where}: " if where else "") + reason + (f"; {way_out}" if way_out else "")


def is_no_room(error: BaseException) -> bool:
    """Whether an error means, in its library's words, that a disk, quota or limit is exceeded."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return _says(error, _NO_ROOM)


def _says(error: BaseException, parts: tuple[str, ...]) -> bool:
    return isinstance(error, Exception) and any(part in str(error).lower() for part in parts)


def _first(message: str) -> str:
    """The first line of a message, without the pages of advice that some libraries add."""
    return message.strip().partition("\n")[0][:200]


def _is_deliberate(error: BaseException) -> bool:
    """Whether this package raised it on purpose, with a message made for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not isinstance(error, ValueError | TypeError | RuntimeError):
        return False
    return Path(frames[-1].filename).is_relative_to(PACKAGE) and (frames[-1].line or "").startswith("raise")


def _place(error: BaseException) -> str:
    """The innermost line of this package in the traceback, else of any."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if not frames:
        return "nowhere"
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
