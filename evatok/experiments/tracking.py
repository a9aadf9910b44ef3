"""Glue between the experiments and Sacred: configuration, signals, one-line errors.

An experiment declares its configuration and one main function:

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
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok import errors
from evatok.experiments import config_files, keys, reports, runs
from evatok.experiments.config_checks import ConfigError, check_device, check_seed, settle_precision, settle_types
from evatok.experiments.domains import Refused
from evatok.experiments.outputs import NOTHING, Outputs
from evatok.experiments.tracker import Tracker
from evatok.storage import ranks, records
from evatok.storage.allocator import keep_freed_memory
from evatok.storage.environment import REPOSITORY, environment

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import sacred
    from docopt import DocoptExit
    from sacred.dependencies import gather_sources_and_dependencies
    from sacred.run import Run
    from sacred.utils import ConfigAddedError, NamedConfigNotFoundError, SacredError

sacred.SETTINGS.CAPTURE_MODE = "sys"  # "fd" would put every refresh of a progress bar into cout.txt
config_files.guard()

Main = Callable[[dict[str, Any], "Tracker"], dict[str, Any] | None]


class _Raised(BaseException):
    """Carry an exception past Sacred's command line, which would print it and exit by itself."""


class Experiment(sacred.Experiment):
    """Sacred's experiment with typed configuration, a default store, and errors left to `command_line`."""

    commanded = False
    declared = False  # whether every key is declared in `evatok.experiments.keys`
    path: str
    logger: Any
    captured_out_filter: Any

    def run(self, *arguments: Any, **keywords: Any) -> Run:
        """Run a command as Sacred does. Raises whatever the command raises."""
        options = keywords.get("options") or {}
        try:
            return super().run(*arguments, **keywords)
        except Exception as error:
            if not self.commanded or options.get("--pdb") or options.get("--debug"):
                raise
            raise _Raised from error

    def _check_command(self, cmd_name: str) -> str | None:
        """Check that the command exists: for an unknown one, Sacred prints its usage and exits with 1."""
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
            note = docs.get(name) if name != "seed" else None  # Sacred documents its own
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
        """Create Sacred's run from its arguments, checked before anything is stored."""
        options = dict(options or {})
        config_files.check_keys(config_updates or {}, "the configuration")
        check_seed(config_updates or {})
        works = command_name in (None, self.default_command)
        folder, address = options.pop("--file_storage", None), options.pop("--mongo_db", None)
        if options.get("--sql"):
            raise runs.StoreError("Sacred's SQL store cannot hold results that are dictionaries: use -F or -m")
        if options.pop("--enforce_clean", False) and environment()["dirty"] is not False:
            raise ConfigError("--enforce_clean: the code is not a clean checkout of a commit; commit it first")
        run = super()._create_run(command_name, config_updates, named_configs, info, meta_info, options)
        _time_from_now(run)
        try:
            settle_types(run, self._keys_of(run))
        except Refused as error:
            raise ConfigError(str(error)) from error
        settle_precision(run.config)
        planned = run.config.get("dry_run", False)
        if works and "device" in run.config and not planned:
            check_device(run.config["device"])
        # One run for all of torchrun; none for a dry run.
        run.unobserved = run.unobserved or os.environ.get("RANK", "0") != "0" or planned
        if not run.unobserved:
            run.observers += runs.stores(self.path, folder, address, given=bool(run.observers))
        return run


def experiment(name: str, doc: str | None, shared: Mapping[str, Any] | None = None) -> Experiment:
    """Create an experiment called `name`, described by `doc`, whose configuration starts with `seed = 0`.

    Args:
        shared: further defaults to start with, such as `keys.RUN`. An experiment that passes them declares all its keys
            in `evatok.experiments.keys`: values are checked before any work, and print_config shows their meaning.
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


def main(
    ex: Experiment, outputs: Outputs = NOTHING, *, together: bool = False, plan: str = ""
) -> Callable[[Main], Main]:
    """Decorator for the experiment's main function, which stays callable as `main(config, tracker)`.

    `config` is a plain dictionary with sorted keys, including `seed`; torch, numpy and random are seeded from it. The
    returned dictionary becomes the run's result, with null for non-finite numbers.

    Args:
        outputs: what the experiment writes besides its run. Before the function is called, each output is checked to be
            writable and locked against other runs.
        together: ranks started by `torchrun` share its shards (`evatok.storage.ranks`); the first records.
        plan: name in `evatok.experiments.dry_costs` of what estimates the cost, for `dry_run`.
    """

    def decorate(function: Main) -> Main:
        def command(_run: Run) -> dict[str, Any] | None:
            config = _plain_config(_run.config)
            if plan and config["dry_run"]:
                return _planned(config, plan)
            tracker = Tracker(_run, outputs)
            tracker.info({"environment": tracker.environment()})
            _seed_everything(config["seed"])
            ranks.take_device(config.get("device", "cpu"))
            keep_freed_memory()
            shared = ranks.together(config["device"]) if together else nullcontext()
            reports.check(config.get("report_to", "none"))  # fail before any work if it is missing
            with errors.terminable(), outputs.held(ex.path, config), shared, closing(tracker):
                result = function(config, tracker)
            return records.plain(result, "result", nonfinite_as_null=True)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        ex.main(command)
        return function

    return decorate


def _planned(config: dict[str, Any], plan: str) -> dict[str, Any]:
    from evatok.experiments import dry_costs, dry_run  # these import the networks of all stages

    return dry_run.told(config, getattr(dry_costs, plan))


def command_line(ex: Experiment, argv: list[str] | None = None) -> None:
    """Run `ex` from the command line: any failure becomes one line on stderr, see `evatok.errors`.

    Errors exit with 2, Ctrl-C with 130, SIGTERM with 143. With `--debug` an error keeps its traceback; a stored run has
    it in its run.json in any case.
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


def _plain_config(value: Any) -> Any:
    """Deep-copy a configuration into plain dictionaries and lists, with sorted keys and without docstrings."""
    if isinstance(value, Mapping):
        return {key: _plain_config(value[key]) for key in sorted(value, key=str) if key != "__doc__"}
    if isinstance(value, list | tuple):
        return [_plain_config(entry) for entry in value]
    return copy.deepcopy(value)


def _time_from_now(run: Run) -> None:
    """Let Sacred time a run that Ctrl-C ends before it began; on its own it fails on the missing start."""
    made, stop = datetime.now(UTC).replace(tzinfo=None), run._stop_time

    def stop_time() -> Any:
        run.start_time = run.start_time or made
        return stop()

    run._stop_time = stop_time  # type: ignore[method-assign]


def _seed_everything(seed: int) -> None:
    """Seed torch, numpy and random: Sacred seeds torch only if it was imported in time."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries still draw from numpy's global state
    torch.manual_seed(seed)


def _for_user(error: BaseException | None, ex: Experiment) -> BaseException:
    """Return `error`, or what it means in this project's words if Sacred raised it."""
    assert error is not None
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


def _keep_message(record: logging.LogRecord) -> bool:
    """Drop Sacred's warnings about a changed type (here an error or settled) and about a docstring."""
    return not str(record.msg).startswith(("Changed type of config entry", 'Added new config entry: "__doc__"'))


def _without_bars(text: str) -> str:
    """Return captured output without the progress-bar states that the terminal has overwritten."""
    return re.sub(r"[^\n]*\r(?!\n)", "", text)
