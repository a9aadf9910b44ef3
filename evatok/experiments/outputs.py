"""Output paths of an experiment: checked before any work, and locked for one run at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok.errors import EvatokError
from evatok.storage import records
from evatok.storage.locks import lock_of, sole_writer

_WHERE = ("work", "checkpoint", "records_folder")
_HOW = (
    "save_every",
    "minutes",
    "device",
    "threads",
    "compile",
    "recompute",
    "workers",
    "accumulate",
    "fsdp",
    "report_to",
)
_PLAN = ("dry_run", "teraflops", "memory_gb", "devices")
FREE_KEYS = frozenset({*_WHERE, *_HOW, *_PLAN})
"""Keys that do not affect the numbers: output locations, save interval and compute device."""


class OutputError(EvatokError, ValueError):
    """A path that cannot be written to."""


@dataclass(frozen=True)
class Outputs:
    """Configuration keys naming an experiment's outputs; an empty value disables the output.

    Attributes:
        folders: keys of folders.
        files: keys of files.
        owned: those among `folders` in which one run at a time may write. An experiment that owns no folder keeps
            shards named after their content in `work`, where any number may run side by side, but no two of one
            command.
    """

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()

    @contextmanager
    def held(self, name: str, config: Mapping[str, Any]) -> Iterator[None]:
        """Check every output path of `config`, and lock it against other runs.

        Args:
            name: of the experiment.

        Raises:
            OutputError: a path that cannot be written to, with its key.
            LockedError: another run writes there.
            RecordError: the records of this experiment are not all valid.
        """
        for key in (*self.folders, *self.files):
            if config[key]:
                check_place(key, Path(str(config[key])), folder=key in self.folders)
        if "records_folder" in self.folders:
            records.query(config["records_folder"], name)  # finds a damaged one now, not when another is added
        with ExitStack() as locks:
            for key in self.owned:
                if config[key] and os.environ.get("RANK", "0") == "0":  # all ranks of a run share its folders
                    locks.enter_context(sole_writer(lock_of(config[key]), f"{key}={config[key]}"))
            if "work" in self.folders and "work" not in self.owned:
                lock = lock_of(config["work"], f"{name}-{self._digest(config)}")
                locks.enter_context(sole_writer(lock, f"what this command asks for, in work={config['work']},"))
            yield

    def _digest(self, config: Mapping[str, Any]) -> str:
        """Return eight hex digits of what a command computes, equal for two commands that would compute the same."""
        free = {*FREE_KEYS, *self.folders, *self.files}
        asked = {key: value for key, value in config.items() if key not in free}
        asked["rank"] = os.environ.get("RANK", "0")
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]


NOTHING = Outputs()
"""An experiment that writes nothing but its run."""


def check_place(key: str, path: Path, *, folder: bool) -> None:
    """Raise OutputError, naming the configuration key, if a folder or file cannot be created or written."""
    told = f"config key {key}: {path}"
    try:
        if "\0" in str(path):
            raise ValueError("it contains a null byte")
        if folder and path.exists() and not path.is_dir():
            raise OutputError(f"{told} is a file, not a folder: move it, or give another path")
        if not folder and path.exists() and not path.is_file():
            raise OutputError(f"{told} is not a regular file: give the path of a file to write")
        nearest = path if folder else path.parent
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise OutputError(f"{told} cannot be created, {nearest} is not a folder: move it, or give another path")
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{told} is not a valid path ({error}): give another one") from error
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{told} cannot be written, {nearest} is not writable: give another path")
