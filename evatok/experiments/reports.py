"""Where a run's scalars go besides its store: TensorBoard files or a trackio project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from evatok.experiments.config_checks import ConfigError
from evatok.storage.environment import REPOSITORY


class Report(Protocol):
    """An open report."""

    def add(self, name: str, number: float, step: int) -> None:
        """Log one number of a series."""

    def close(self) -> None:
        """Flush pending output."""


def check(kind: str) -> None:
    """Raise ConfigError if the package of a report is not installed."""
    if kind != "none":
        {"tensorboard": _board_writer, "trackio": _trackio}[kind]()


def opened(config: Mapping[str, Any], run_id: str, step: int) -> Report | None:
    """Open the report that `report_to` asks for, for a run whose first scalar is at `step`; None for none.

    Args:
        run_id: `<experiment>/<number>`.
    """
    kind = config.get("report_to", "none")
    if kind == "tensorboard":
        return _TensorBoard(Path(config["work"]), step)
    return _Trackio(config, run_id) if kind == "trackio" else None


class _TensorBoard:
    """Files in the training's folder; whatever a killed run wrote from the first step on is dropped."""

    def __init__(self, work: Path, step: int) -> None:
        self.writer = _board_writer()(log_dir=str(work / "tensorboard"), purge_step=step)

    def add(self, name: str, number: float, step: int) -> None:
        self.writer.add_scalar(name, number, step)

    def close(self) -> None:
        self.writer.close()


class _Trackio:
    """A run of a project named after the experiment, in trackio's own folder (TRACKIO_DIR).

    trackio cannot take back steps, so a resumed training is a new run; the runs of one training form a group, named
    after its folder.
    """

    def __init__(self, config: Mapping[str, Any], run_id: str) -> None:
        work = Path(config["work"]).absolute()
        group = work.relative_to(REPOSITORY) if work.is_relative_to(REPOSITORY) else work
        project = f"evatok-{run_id.partition('/')[0]}"
        self.run = _trackio().init(project, name=run_id, group=str(group), config=dict(config), embed=False)

    def add(self, name: str, number: float, step: int) -> None:
        self.run.log({name: number}, step=step)

    def close(self) -> None:
        self.run.finish()


def _board_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _absent("tensorboard") from error
    return SummaryWriter


def _trackio() -> Any:
    try:
        import trackio
    except ImportError as error:
        raise _absent("trackio") from error
    return trackio


def _absent(name: str) -> ConfigError:
    return ConfigError(
        f'config key report_to: {name} is not installed: pip install "evatok[{name}]", or set report_to=none'
    )
