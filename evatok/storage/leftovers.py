"""Clean-up that an interruption may delay but not prevent: it runs at process exit at the latest.

A second Ctrl-C, or one arriving as a `finally` is entered, skips what the `finally` guards.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from evatok.errors import undisturbed

_DUE: list[CleanUp] = []
_PATIENCE = 2.0


class CleanUp:
    """Runs its action once: when called, or at process exit.

    A forked child leaves its parent's actions to the parent.
    """

    def __init__(self, action: Callable[[], object]) -> None:
        self._action, self._owner, self._thread = action, os.getpid(), threading.current_thread()
        _DUE.append(self)

    def await_owner(self) -> None:
        """Wait some seconds while another thread may be about to clean up by itself."""
        end = time.monotonic() + _PATIENCE
        while self in _DUE and self._thread is not threading.current_thread() and self._thread.is_alive():
            if time.monotonic() > end:
                return
            time.sleep(0.01)

    def __call__(self) -> None:
        if self._owner != os.getpid():
            return
        with undisturbed():
            if self in _DUE:
                _DUE.remove(self)
                self._action()


@contextmanager
def for_a_while(make: Callable[[], Path], remove: Callable[[Path], object]) -> Iterator[Path]:
    """Yield the path that `make` creates, and remove it afterwards, even if an interruption hits either."""
    made: list[tuple[Path, CleanUp]] = []  # filled inside, so that an interruption finds what to remove
    try:
        with undisturbed():
            path = make()
            made.append((path, CleanUp(lambda: remove(path))))
        yield path
    finally:
        for _, clean_up in made:
            clean_up()


def temporary_folder(prefix: str) -> AbstractContextManager[Path]:
    """Yield an empty folder, removed afterwards with its contents."""
    return for_a_while(
        lambda: Path(tempfile.mkdtemp(prefix=prefix)), lambda folder: shutil.rmtree(folder, ignore_errors=True)
    )


@atexit.register
def _clean_up() -> None:
    for due in list(_DUE):
        due.await_owner()
        due()
