"""Everything the experiments share with Sacred: configuration checks, scalars, signals, errors in one line.

An experiment declares its configuration and one main function; nothing else in the project knows Sacred:

    ex = tracking.experiment("stage1_proxy", __doc__)

    @ex.config
    def config():
        steps = 100  # optimiser steps

    @tracking.main(ex)
    def main(config: dict, tracker: tracking.Tracker) -> dict: ...

    if __name__ == "__main__":
        tracking.command_line(ex)

Runs land in results/runs/<experiment>/<number> (EVATOK_RUNS sets another base folder), in DIR/<number> with
`-F DIR`, or in a MongoDB with `-m`. `python -m evatok.experiments.runs` lists them.
"""

from __future__ import annotations

import copy
import difflib
import logging
import math
import mimetypes
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok import errors
from evatok.errors import EvatokError, undisturbed
from evatok.experiments import config_files, keys, runs
from evatok.experiments.domains import Refused
from evatok.experiments.outputs import FREE_KEYS, Outputs
from evatok.models.precision import bf16_is_native
from evatok.storage import records
from evatok.storage.environment import REPOSITORY, environment
from evatok.storage.records import Record

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import sacred
    from docopt import DocoptExit
    from sacred.dependencies import gather_sources_and_dependencies
    from sacred.observers import FileStorageObserver
    from sacred.run import Run
    from sacred.utils import ConfigAddedError, NamedConfigNotFoundError, SacredError, SacredInterrupt

sacred.SETTINGS.CAPTURE_MODE = "sys"  # "fd" would put every refresh of a progress bar into cout.txt
config_files.guard()

NOTHING = Outputs()
"""Of an experiment that writes nothing but its run."""

Main = Callable[[dict[str, Any], "Tracker"], dict[str, Any] | None]


class ConfigError(EvatokError, ValueError):
    """A configuration value the experiment cannot start with."""


class Preempted(SacredInterrupt):
    """Raised inside a run by SIGTERM; Sacred records the run with this status."""

    STATUS = "PREEMPTED"


class _Raised(BaseException):
    """Carries an exception past Sacred's command line, which would print it and exit by itself."""


class Experiment(sacred.Experiment):
    """Sacred's experiment with typed configuration, a default store, and errors left to `command_line`."""

    commanded = False
    declared = False  # whether every key stands in `evatok.experiments.keys`
    path: str
    logger: Any
    captured_out_filter: Any

    def run(self, *arguments: Any, **keywords: Any) -> Run:
        """Run a command as Sacred does. Raises what the command raises."""
        options = keywords.get("options") or {}
        try:
            return super().run(*arguments, **keywords)
        except Exception as error:
            if not self.commanded or options.get("--pdb") or options.get("--debug"):
                raise
            raise _Raised from error

    def _check_command(self, cmd_name: str) -> str | None:
        """Sacred prints its usage for a command it does not know, and exits with 1."""
        complaint: str | None = super()._check_command(cmd_name)
        if complaint and self.commanded:
            known = ", ".join(sorted(name for name, _ in self.gather_commands()))
            raise ConfigError(f"unknown command {cmd_name!r}; known ones: {known}; settings follow the word with")
        return complaint

    def _keys_of(self, run: Run) -> dict[str, keys.Key]:
        """Look up each key's declaration; print_config shows it before the experiment's own comment on the default."""
        if not self.declared:
            return {}
        declared = keys.of(self.path, set(run.config) - {"__doc__"})
        docs = run.config_modifications.docs
        for name, key in declared.items():
            note = docs.get(name) if name != "seed" else None  # Sacred's own
            docs[name] = f"{key.comment}; {key.domain}" + (f" ({note})" if note else "")
        return declared

    def _create_run(
        self,
        command_name: str | None = None,
        config_updates: dict[str, Any] | None = None,
        named_configs: tuple[str, ...] = (),
        info: dict[str, Any] | None = None,
        meta_info: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Run:
        """The run Sacred makes of its arguments, checked before anything is stored."""
        options = dict(options or {})
        config_files.check_keys(config_updates or {}, "the configuration")
        _check_seed(config_updates or {})
        works = command_name in (None, self.default_command)
        folder, address = options.pop("--file_storage", None), options.pop("--mongo_db", None)
        if options.get("--sql"):
            raise runs.StoreError("Sacred's SQL store cannot hold results that are dictionaries: use -F or -m")
        if options.pop("--enforce_clean", False) and environment()["dirty"] is not False:
            raise ConfigError("--enforce_clean: the code is not a clean checkout of a commit; commit it first")
        run = super()._create_run(command_name, config_updates, named_configs, info, meta_info, options)
        try:
            _settle_types(run, self._keys_of(run))
        except Refused as error:
            raise ConfigError(str(error)) from error
        _settle_precision(run.config)
        if works and "device" in run.config:
            _check_device(run.config["device"])
        run.unobserved = run.unobserved or os.environ.get("RANK", "0") != "0"  # one run for all of torchrun
        if not run.unobserved:
            run.observers += runs.stores(self.path, folder, address, given=bool(run.observers))
        return run


def experiment(name: str, doc: str | None, shared: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment called `name`, described by `doc`, whose configuration starts with `seed = 0`.

    Args:
        shared: further defaults to start with, such as `keys.RUN`. All keys of an experiment that gives them stand in
            `evatok.experiments.keys`: their values are checked before any work, and print_config says what they mean.
    """
    told_by = sys._getframe(1).f_globals
    home = Path(told_by["__file__"]).resolve()
    base = REPOSITORY if home.is_relative_to(REPOSITORY) else home.parent
    ex = Experiment(name, base_dir=base, save_git_info=False)
    ex.mainfile, ex.sources, ex.dependencies = gather_sources_and_dependencies(told_by, False, str(base))
    ex.doc = doc or ""
    ex.captured_out_filter = _without_bars
    ex.logger = logging.getLogger("evatok.runs")
    ex.logger.setLevel(logging.INFO)
    ex.logger.addFilter(_keep_message)
    ex.declared = shared is not None
    ex.add_config(seed=0, **(shared or {}))
    return ex


def main(ex: Experiment, outputs: Outputs = NOTHING) -> Callable[[Main], Main]:
    """Decorator for the experiment's main function, which stays callable as `main(config, tracker)`.

    `config` is a plain dictionary with sorted keys, `seed` among them; torch, numpy and random are seeded
    from it. The returned dictionary becomes the run's result, with null for what is not finite.

    Args:
        outputs: what the experiment writes besides its run. That it can be written, and that no other run writes
            there, is made sure of before the function is called.
    """

    def decorate(function: Main) -> Main:
        def command(_run: Run) -> dict[str, Any] | None:
            config = _plain_config(_run.config)
            tracker = Tracker(_run, outputs)
            tracker.info({"environment": tracker.environment()})
            _seed_everything(config["seed"])
            with errors.terminable(Preempted("stopped by SIGTERM")), outputs.held(ex.path, config):
                result = function(config, tracker)
            return records.plain(result, "result", nonfinite_as_null=True)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        ex.main(command)
        return function

    return decorate


def command_line(ex: Experiment, argv: list[str] | None = None) -> None:
    """Run `ex` from the command line: whatever goes wrong is one line on stderr, as in `evatok.errors`.

    Errors exit with 2, Ctrl-C with 130, SIGTERM with 143. With `--debug` an error keeps its traceback; a run that is
    stored has it in its run.json in any case.
    """
    logging.basicConfig(format="%(message)s")
    argv = sys.argv if argv is None else argv
    ex.commanded = True
    with errors.one_line(ex.path, debug=not {"-d", "--debug", "--pdb"}.isdisjoint(argv)):
        try:
            ex.run_commandline(argv)
        except _Raised as raised:
            raise _for_user(raised.__cause__, ex) from None
        except TypeError as error:
            if "item assignment" not in str(error):
                raise
            raise ConfigError("a key and one of its parts are both set: a=1 leaves no room for a.b=2") from error
        except DocoptExit as error:
            told = f"cannot read {' '.join(argv[1:])!r}; expected [COMMAND] [with KEY=VALUE ...] [options]"
            raise ConfigError(f"{told}, --help lists them") from error
        finally:
            ex.commanded = False


class Tracker:
    """What a running experiment writes to its run: scalars, files, facts. Works without a store, too."""

    def __init__(self, run: Run, outputs: Outputs = NOTHING) -> None:
        self._run, self._outputs = run, outputs
        self._started = time.monotonic()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.seed: int = run.config["seed"]
        self.nonfinite: dict[str, int] = {}
        # The heartbeat thread reads run.info at any time, so it is replaced, never changed. Sacred's MongoDB
        # store appends to "metrics" from that thread: all copies share the one list.
        run.info = {"metrics": [], **run.info}

    @property
    def run_id(self) -> str | None:
        """`<experiment>/<number>`, or None for a run that is not stored."""
        return None if self._run._id is None else f"{self._run.experiment_info['name']}/{self._run._id}"

    @property
    def folder(self) -> Path:
        """Where this run may write files: its folder in the store, or one that vanishes if it has no store.

        A run stored in MongoDB alone gets `<runs>/<experiment>/mongo-<number>`.
        """
        for observer in self._run.observers:
            if isinstance(observer, FileStorageObserver):
                return Path(str(observer.dir))
        if self._run._id is None:
            with undisturbed():  # or the folder could be made and not be known to be
                self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="evatok-run-")
            return Path(self._temporary.name)
        folder = runs.runs_folder() / self._run.experiment_info["name"] / f"mongo-{self._run._id}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scalar(self, name: str, value: Any, step: int) -> None:
        """Store one number (a float, or a tensor or array of one element) of the series `name` at `step`.

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

    def info(self, facts: Mapping[str, Any]) -> None:
        """Add `facts` to the run's info, as plain JSON types; NaN becomes null, an old key is replaced."""
        self._run.info = {**self._run.info, **records.plain(facts, "info", nonfinite_as_null=True)}

    def resumes(self, run_id: str) -> None:
        """Say that this run continues `run_id` ("stage1_proxy/11")."""
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

        A command that had finished before writes none: the id is that of the record which holds its numbers, and
        the log says so.

        Args:
            outcome: the artifact that the command made; see `records.write_once`.
            free: further configuration keys that decide no number.
        """
        free = {*FREE_KEYS, *self._outputs.folders, *self._outputs.files, *free}
        path, new = records.write_once(record, self._run.config["records_folder"], free=free, outcome=outcome)
        if not new:
            self._run.run_logger.info("nothing new: %s holds these numbers already", path)
        return path.stem

    def resource(self, path: Path | str) -> None:
        """Store a copy of a (small) input such as a manifest, once per content. Raises FileNotFoundError."""
        self._run.add_resource(str(_existing(path)))

    def environment(self) -> dict[str, Any]:
        """`evatok.storage.environment.environment` with the seconds since this run's main began as its wall time."""
        return environment(wall_seconds=round(time.monotonic() - self._started, 3))


def _check_seed(updates: Mapping[str, Any]) -> None:
    """Refuse a seed that is not an integer: Sacred asserts on it, and invents one for None."""
    seed = updates.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed: expected an int from 0 to 2**32 - 1, got {seed!r}; print_config shows the defaults")


def _settle_types(run: Run, declared: Mapping[str, keys.Key]) -> None:
    """Bring declared keys into their domain, and turn an int given for a float into one.

    Raises:
        Refused: a declared key outside its domain.
        ConfigError: of another key, any other change of its value's type.
    """
    for name, key in declared.items():
        run.config[name] = keys.settled(key, name, run.config[name])
    keys.check_together({name: run.config[name] for name in declared})
    for path, (expected, given) in sorted(run.config_modifications.typechanged.items()):
        *parents, last = path.split(".")
        if path.partition(".")[0] in declared:
            continue
        holder = run.config
        for parent in parents:
            holder = holder[parent]
        if (expected, given) != (float, int):
            told = f"expected {_type_name(expected)}, got {holder[last]!r} ({_type_name(given)})"
            raise ConfigError(f"config key {path}: {told}; print_config lists every key with its default")
        holder[last] = float(holder[last])


def _settle_precision(config: dict[str, Any]) -> None:
    """Say of a `bf16` left at None whether it is on, so that the record does. Raises ConfigError for no bool."""
    bf16 = config.get("bf16", False)
    if bf16 is None:
        config["bf16"] = bf16_is_native(device_of(config["device"]))
    elif not isinstance(bf16, bool):
        raise ConfigError(f"config key bf16: expected True, False or None, got {bf16!r}; print_config explains it")


def device_of(name: Any) -> torch.device:
    """The device a `device` key names, there or not. Raises ConfigError for one that no PyTorch knows."""
    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"config key device: {name!r} is no device; give cpu, cuda or cuda:N") from error


def _check_device(name: str) -> None:
    """Raise ConfigError, before any work, for a device that is not there."""
    device = device_of(name)
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"config key device: {name} is not supported; give cpu, cuda or cuda:N")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("config key device: mps is not there; give device=cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"config key device: {name} is not there, PyTorch sees no GPU; give device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"config key device: {name} is not there, PyTorch sees {torch.cuda.device_count()} GPUs")


def _type_name(kind: type) -> str:
    for plain in (dict, list, tuple):
        if issubclass(kind, plain):
            return plain.__name__
    return "None" if kind is type(None) else kind.__name__


def _plain_config(value: Any) -> Any:
    """A deep copy of a configuration in plain dictionaries and lists, keys sorted, docstrings left out."""
    if isinstance(value, Mapping):
        return {key: _plain_config(value[key]) for key in sorted(value, key=str) if key != "__doc__"}
    if isinstance(value, list | tuple):
        return [_plain_config(entry) for entry in value]
    return copy.deepcopy(value)


def _seed_everything(seed: int) -> None:
    """Sacred seeds torch only if it was imported in time; this does not depend on that."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries still draw from numpy's global state
    torch.manual_seed(seed)


def _for_user(error: BaseException | None, ex: Experiment) -> BaseException:
    """`error`, or what it means in this project's words where Sacred raised it."""
    assert error is not None
    if isinstance(error, Preempted):
        return errors.Terminated()
    if isinstance(error, ConfigAddedError):
        return ConfigError(_unknown_key(list(error.__conflicting_configs__), error.__config__))
    if isinstance(error, NamedConfigNotFoundError):
        asked = str(error).partition('"')[2].partition('"')[0]
        known = ", ".join(sorted(ex.named_configs)) or "none"
        return ConfigError(f"unknown named config {asked!r}; known ones: {known}")
    if isinstance(error, SacredError) and not error.print_traceback:
        return ConfigError(str(error))
    return error


def _unknown_key(conflicts: list[str], config: Mapping[str, Any]) -> str:
    key = ", ".join(conflicts)
    known = sorted(set(config) - set(conflicts) - {"__doc__"})
    close = difflib.get_close_matches(key, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"unknown config key {key}; {meant}known keys: {', '.join(known)} (print_config explains them)"


def _existing(path: Path | str) -> Path:
    """Sacred switches a store off for the rest of the run at the first file it cannot copy: check before."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file, so it cannot be stored with the run")
    return Path(path)


def _keep_message(record: logging.LogRecord) -> bool:
    """Drop Sacred's warnings of a changed type (here an error or settled) and of a docstring."""
    return not str(record.msg).startswith(("Changed type of config entry", 'Added new config entry: "__doc__"'))


def _without_bars(text: str) -> str:
    """Captured output without the states of a progress bar that the terminal has overwritten."""
    return re.sub(r"[^\n]*\r(?!\n)", "", text)
