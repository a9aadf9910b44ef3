"""Run any training: claim the folder, train, save in shipping form, reload, measure, record.

A `Task` defines what is trained; everything that trainings share happens here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from torch import nn

from evatok.experiments.setting import claim_folder, optional_artifact, recipe, schedule_changes, set_threads
from evatok.experiments.tracking import ConfigError, Tracker
from evatok.storage import ranks, records
from evatok.training import loop
from evatok.training.loop import Model, Recipe, StepLoss


@dataclass(frozen=True)
class Measured:
    """The measurements of a finished network, for its record.

    Attributes:
        protocol: what it was measured on.
        model: its sha256, its parents, its size.
        metrics: its metrics.
        told: further results that the command reports.
        artifacts: files besides the checkpoint that belong to the record.
    """

    protocol: dict[str, Any]
    model: dict[str, Any]
    metrics: dict[str, records.Metric]
    told: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, records.Artifact] = field(default_factory=dict)


class Task(ABC, Generic[Model]):
    """A network, its loss, and how it ships and is measured.

    Attributes:
        kind: of its record.
        module: the network, on the configured device.
        objective: the loss of one step.
        inputs: identity (sha256) of everything it is trained on.
        steps_may_change: whether a training may resume with a different number of steps.
        distributed: whether its loss covers one rank's part of the batch (`evatok.storage.ranks`).
    """

    kind: str
    module: Model
    objective: StepLoss[Model]
    inputs: str
    steps_may_change: bool = False
    distributed: bool = False

    def look(self) -> dict[str, float]:
        """Return validation metrics of the network during training, at every saved state."""
        return {}

    @abstractmethod
    def ship(self, averaged: Model, path: Path, changes: dict[str, Any]) -> None:
        """Write the finished network in the precision it ships in.

        Args:
            changes: schedule changes, for its header.
        """

    @abstractmethod
    def measure(self, averaged: Model, path: Path, folder: Path) -> Measured:
        """Measure the checkpoint at `path` as users load it: the shipped file is what gets measured.

        Args:
            averaged: network before saving, to be filled from the checkpoint.
            folder: of the training.
        """

    def pace(self, folder: Path) -> dict[str, Any]:
        """Return the training speed so far."""
        return {}


def train(config: dict[str, Any], tracker: Tracker, make: Callable[[dict[str, Any]], Task[Any]]) -> dict[str, Any]:
    """Train, ship, measure and record the task that `make` builds from the configuration; stop after `minutes`.

    Under `torchrun` or `accelerate launch` all ranks train; the first does the rest.

    Raises:
        ConfigError: a batch that the ranks cannot split equally, or a task that trains in one process only.
    """
    set_threads(config["threads"])
    steps = recipe(config)  # first: rejects settings no training can run with
    with ranks.together(config["device"]):
        _check_shares(config)
        task = make(config)
        ranks.check_alike("what they train on", task.inputs)
        if ranks.count() > 1 and not task.distributed:
            raise ConfigError(f"{task.kind} trains in one process only; start it without torchrun")
        folder, leads = _folder(config, tracker, task), ranks.rank() == 0
        try:
            averaged = _trained(config, tracker, task, steps, folder)
        except loop.SliceEnded as ended:
            return {"complete": False, "step": ended.step, "steps": ended.steps, **task.pace(folder)}
    if not leads:
        return {"complete": True}
    path = Path(config["checkpoint"])
    task.ship(averaged, path, schedule_changes(folder))
    measured = task.measure(averaged, path, folder)
    told = {**measured.told, **task.pace(folder)}
    return {**finished(config, tracker, task.kind, measured, loop.seconds_spent(folder)), **told}


def _folder(config: dict[str, Any], tracker: Tracker, task: Task[Any]) -> Path:
    """Claim the folder for all ranks."""
    folder = Path(config["work"])
    if ranks.rank() == 0:
        claim_folder(folder, config, task.inputs, tracker, steps_may_change=task.steps_may_change)
    ranks.wait()
    return folder


def _check_shares(config: dict[str, Any]) -> None:
    """Raise ConfigError for a batch that the ranks, or their pieces, cannot split equally."""
    pieces = config.get("accumulate", 1)
    if config["batch"] % (ranks.count() * pieces) and pieces > 1:
        raise ConfigError(
            f"config key accumulate: {config['batch']} clips (batch) cannot be cut into {pieces} pieces on each of "
            f"{ranks.count()} ranks; take a divisor"
        )
    if config["batch"] % ranks.count():
        raise ConfigError(
            f"config key batch: {config['batch']} clips cannot be shared by {ranks.count()} ranks equally; take a "
            "multiple"
        )


def _trained(config: dict[str, Any], tracker: Tracker, task: Task[Any], steps: Recipe, folder: Path) -> nn.Module:
    def on_log(step: int, line: dict[str, float]) -> None:
        for name, value in line.items():
            tracker.scalar(name, value, step)
        if step % config["save_every"] == 0 and not config.get("fsdp"):  # validation runs on the first rank only
            for name, value in task.look().items():
                tracker.scalar(f"validation.{name}", value, step)

    return loop.train(
        task.module,
        task.objective,
        steps,
        folder,
        description=task.kind,
        on_log=on_log,
        seconds=60 * config["minutes"] or None,
    )


def finished(config: dict[str, Any], tracker: Tracker, kind: str, measured: Measured, seconds: float) -> dict[str, Any]:
    """Record the measurements of the network at the configured checkpoint, which took this many seconds to train.

    The record supersedes that of the previous checkpoint at the same path, if any.
    """
    path = Path(config["checkpoint"])
    record = records.new_record(
        kind=kind,
        status=config["size"],
        protocol=measured.protocol,
        model={**measured.model, "run": tracker.run_id},
        metrics=measured.metrics,
        config=config,
        environment={**tracker.environment(), "wall_seconds": seconds},
        artifacts=optional_artifact("checkpoint", path / "model.safetensors" if path.is_dir() else path)
        | measured.artifacts,
    )
    written = tracker.record(record, outcome="checkpoint")
    if (curve := Path(config["work"]) / "curve.jsonl").exists():
        tracker.artifact(curve)
    return {"complete": True, "checkpoint": str(path), "record": written}
