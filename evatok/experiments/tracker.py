"""What a running experiment writes to its run: scalars, files, facts, records."""

from __future__ import annotations

import math
import mimetypes
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evatok.errors import undisturbed
from evatok.experiments import reports, runs
from evatok.experiments.config_checks import ConfigError
from evatok.experiments.outputs import FREE_KEYS, NOTHING, Outputs
from evatok.storage import ranks, records
from evatok.storage.environment import environment
from evatok.storage.records import Record

if TYPE_CHECKING:
    from sacred.run import Run


class Tracker:
    """What a running experiment writes to its run: scalars, files, facts. Also works without a store."""

    def __init__(self, run: Run, outputs: Outputs = NOTHING) -> None:
        self._run, self._outputs = run, outputs
        self._started = time.monotonic()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._report: reports.Report | None = None
        self.seed: int = run.config["seed"]
        self.nonfinite: dict[str, int] = {}
        # The heartbeat thread reads run.info at any time, so it is replaced, never mutated. Sacred's MongoDB
        # store appends to "metrics" from that thread: all copies share the one list.
        run.info = {"metrics": [], **run.info}

    @property
    def run_id(self) -> str | None:
        """Return `<experiment>/<number>`, or None for a run that is not stored."""
        return None if self._run._id is None else f"{self._run.experiment_info['name']}/{self._run._id}"

    @property
    def folder(self) -> Path:
        """Return where this run may write files: its folder in the store, or a temporary one if it has no store.

        A run stored only in MongoDB gets `<runs>/<experiment>/mongo-<number>`.
        """
        for observer in self._run.observers:
            if isinstance(observer, runs.FileStorageObserver):
                return Path(str(observer.dir))
        if self._run._id is None:
            with undisturbed():  # otherwise the folder could exist without being known to
                self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="evatok-run-")
            return Path(self._temporary.name)
        folder = runs.runs_folder() / self._run.experiment_info["name"] / f"mongo-{self._run._id}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scalar(self, name: str, value: Any, step: int) -> None:
        """Store one number (a float, or a one-element tensor or array) of the series `name` at `step`.

        NaN and infinity are stored as null and counted, by name, in `nonfinite` and in the run's info.
        Raises ValueError for more than one element.
        """
        if math.prod(getattr(value, "shape", ())) != 1:
            raise ValueError(f"scalar {name} at step {step} has shape {tuple(value.shape)}: reduce it to one number")
        number = float(value.item() if hasattr(value, "item") else value)
        if not math.isfinite(number):
            self.nonfinite = {**self.nonfinite, name: self.nonfinite.get(name, 0) + 1}
            self.info({"nonfinite": self.nonfinite})
        self._run.log_scalar(name, number if math.isfinite(number) else None, int(step))
        if self._run.config.get("report_to", "none") != "none":
            self._reported(int(step)).add(name, number, int(step))

    def _reported(self, step: int) -> reports.Report:
        """Return the external report, opened at the first scalar."""
        if self._report is None:
            config = records.plain(self._run.config, "config", nonfinite_as_null=True)
            name = self._run.experiment_info["name"]
            self._report = reports.opened(config, self.run_id or f"{name}/{int(time.time())}", step)
            assert self._report is not None
        return self._report

    def close(self) -> None:
        """Flush the external report."""
        if self._report is not None:
            self._report.close()
            self._report = None

    def info(self, facts: Mapping[str, Any]) -> None:
        """Add `facts` to the run's info, as plain JSON types; NaN becomes null, an old key is replaced."""
        self._run.info = {**self._run.info, **records.plain(facts, "info", nonfinite_as_null=True)}

    def resumes(self, run_id: str) -> None:
        """Record that this run continues `run_id` ("stage1_proxy/11")."""
        if not re.fullmatch(r"[^/\s]+/[^/\s]+", run_id):
            raise ConfigError(f"cannot resume {run_id!r}: a run is named <experiment>/<number>")
        self.info({"resumes": run_id})

    def artifact(self, path: Path | str, name: str | None = None) -> None:
        """Store a copy of the file at `path` with the run.

        Raises FileNotFoundError, and ValueError for a name the store itself uses.
        """
        path, name = _existing(path), name or Path(path).name
        if name in runs.STORE_FILES:
            raise ValueError(f"artifact {name}: the store keeps a file of that name itself, choose another name")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._run.add_artifact(str(path), name=name, content_type=kind)

    def record(self, record: Record, *, outcome: str = "", free: Iterable[str] = ()) -> str:
        """Write a record to the configured `records_folder`; returns its id.

        A command that had already finished writes none: the id is then that of the record holding its numbers, and the
        log says so. With several ranks only the first writes.

        Args:
            outcome: the artifact that the command made; see `records.write_once`.
            free: further configuration keys that do not affect the numbers.
        """
        if ranks.rank():
            return record.id
        free = {*FREE_KEYS, *self._outputs.folders, *self._outputs.files, *free}
        path, new = records.write_once(record, self._run.config["records_folder"], free=free, outcome=outcome)
        if not new:
            self._run.run_logger.info("nothing new: %s holds these numbers already", path)
        return path.stem

    def resource(self, path: Path | str) -> None:
        """Store a copy of a (small) input such as a manifest, once per content. Raises FileNotFoundError."""
        self._run.add_resource(str(_existing(path)))

    def environment(self) -> dict[str, Any]:
        """Return `evatok.storage.environment.environment`; its wall time is the seconds since this run's main began."""
        return environment(wall_seconds=round(time.monotonic() - self._started, 3))


def _existing(path: Path | str) -> Path:
    """Check that a file exists: Sacred would disable a store for the rest of the run if it could not copy it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file, so it cannot be stored with the run")
    return Path(path)
