"""Commands as a shell runs them, from a process that has imported everything already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok.storage.environment import REPOSITORY

LIMIT = 20.0
"""Seconds of computing, or tenth of those of waiting, after which a command that should take one hangs."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit code, or minus the signal it died of.
        seconds: that it computed.
        left: command lines of the processes that it left behind.
        changes: what its main thread changed on the disk, counted; 0 for one that did not end by itself.
    """

    status: int
    seconds: float
    hung: bool
    left: list[str]
    out: str
    err: str
    changes: int

    def __str__(self) -> str:
        return f"exit {self.status} after {self.seconds:.2f} s{', hung' if self.hung else ''}: {self.err[-1500:]}"


class Server:
    """The process that forks; see `server`."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg"}
        environment |= {"PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parents[1]}", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "battery.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            cwd=REPOSITORY,
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the server ended: {Path(self._log.name).read_text()[-3000:]}"
        return json.loads(line)

    def run(
        self,
        command: list[str],
        folder: Path,
        *,
        number: int | None = None,
        after: float | None = None,
        at_change: int | None = None,
        limit: float = LIMIT,
        cache: Path | None = None,
    ) -> Ended:
        """Run `evatok COMMAND ...` in a folder, where its runs, its cache and its temporary files lie, too.

        Args:
            number: a signal it is sent `after` so many seconds of computing, or when its main thread changes the disk
                for the `at_change`-th time.
            limit: seconds after which it is killed.
        """
        for name in ("tmp", "cwd"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        places = {"TMPDIR": "tmp", "EVATOK_RUNS": "runs", "EVATOK_CACHE": "cache"}
        environment = {name: str(folder / place) for name, place in places.items()}
        if cache:
            environment["EVATOK_CACHE"] = str(cache)
        request = {
            "command": command,
            "cwd": str(folder / "cwd"),
            "environment": environment,
            "stdout": str(folder / "stdout"),
            "stderr": str(folder / "stderr"),
            "signal": number or signal.SIGKILL,
            "after": after,
            "at_change": at_change,
            "limit": limit,
        }
        changes = folder / "stdout.changes"
        changes.unlink(missing_ok=True)
        assert self._process.stdin
        print(json.dumps(request), file=self._process.stdin, flush=True)
        told = self._answer()
        out, err = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        made = int(changes.read_text()) if changes.exists() else 0
        return Ended(told["status"], told["seconds"], told["hung"], told["left"], out, err, made)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._log.close()
