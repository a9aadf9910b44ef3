"""Every experiment's unbroken run, made when it is first asked for together with those it builds on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from battery.experiments import BY_NAME, Experiment
from battery.leavings import leavings
from battery.running import Ended, Server
from battery.small import make_clips


class Base:
    """The folder of the clips and of all unbroken runs."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self._ended: dict[str, Ended] = {}
        self._left: dict[str, dict[str, Any]] = {}
        make_clips(folder / "clips")

    def run(self, name: str) -> Ended:
        """How an experiment's unbroken run ended, after those of the experiments whose results it takes."""
        if name not in self._ended:
            experiment = BY_NAME[name]
            for other in needed(experiment):
                self.run(other)
            out = self.folder / name
            ended = self.server.run(experiment.line(self.folder, out), out)
            assert ended.status == 0, f"{name}: {ended}"
            self._ended[name] = ended
        return self._ended[name]

    def left(self, name: str) -> dict[str, Any]:
        """What it left."""
        self.run(name)
        if name not in self._left:
            self._left[name] = leavings(self.folder / name)
        return self._left[name]

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file that experiments take from here, by which a change shows."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def needed(experiment: Experiment) -> list[str]:
    """The names of the experiments that one builds on."""
    told = " ".join(str(value) for value in experiment.settings.values())
    return [name for name in re.findall(r"\{base\}/(\w+)", told) if name != "clips"]
