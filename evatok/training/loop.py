"""One training loop for every stage: AdamW, warm-up, cosine or WSD schedule, EMA, gradient clipping, exact resume.

All random numbers of step s come from a generator seeded with (seed, s). The state of a training is therefore its
weights, its optimiser and a step number, and a run killed at any point resumes on the curve of an uninterrupted one,
bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from evatok.storage import ranks
from evatok.storage.files import ordinary
from evatok.training import sharding, state
from evatok.training.curve import Window, append_line, drop_lines_after, read_curve
from evatok.training.gradients import Gradients, step_generator
from evatok.training.recipe import SCHEDULES, Recipe, TrainingError
from evatok.training.watch import Watch

__all__ = [
    "SCHEDULES",
    "Recipe",
    "SliceEnded",
    "TrainingError",
    "batch_indices",
    "half_of",
    "mirror",
    "read_curve",
    "seconds_spent",
    "step_generator",
    "steps_done",
    "train",
]

Terms = dict[str, torch.Tensor]
Model = TypeVar("Model", bound=nn.Module)
StepLoss = Callable[[Model, int, torch.Generator], tuple[torch.Tensor, Terms]]
OnLog = Callable[[int, dict[str, float]], None]


class SliceEnded(Exception):  # noqa: N818 (nothing went wrong)
    """A training reached its time limit; its state is saved, and the same command resumes from it."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"time is up after step {step} of {steps}; run the same command again to resume")
        self.step, self.steps = step, steps


@runtime_checkable
class Stateful(Protocol):
    """A loss with a state of its own (such as a discriminator), which is saved and resumed with the rest."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(
    module: Model,
    step_loss: StepLoss[Model],
    recipe: Recipe,
    folder: Path,
    *,
    description: str = "training",
    on_log: OnLog | None = None,
    stop_at: int | None = None,
    seconds: float | None = None,
) -> Model:
    """Train `module` in place and return its EMA copy.

    `folder` holds `state.pt`, written every `save_every` steps, and `curve.jsonl`, one line every `log_every` steps and
    one at the end, with the mean of each term since the previous line. If they exist, training resumes from them. Of
    several ranks (`evatok.storage.ranks`) all read them, and the first writes.

    Args:
        step_loss: (module, step, generator) -> the loss to minimise and its terms, for the log. If it is `Stateful`,
            its state is saved and resumed as well.
        stop_at: stop before this step, as if killed after a save.
        seconds: wall-clock budget; stop at the first line of the curve after it.

    Raises:
        TrainingError: a loss or gradient that is not finite, found at the next line of the curve or save (the last
            saved state is kept), a state of another model, or a `stop_at` between two lines of the curve.
        SliceEnded: `seconds` ran out before the last step.
    """
    end = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    if end < recipe.steps and end % recipe.log_every:
        raise TrainingError(f"stop_at {end} must be a multiple of log_every {recipe.log_every}")
    leads = ranks.rank() == 0  # with several ranks, the first one writes
    folder.mkdir(parents=True, exist_ok=True)
    averaged = copy.deepcopy(module).requires_grad_(False)
    shipped = averaged
    if sharded := recipe.fsdp and ranks.count() > 1:
        shipped = copy.deepcopy(averaged)
        sharding.shard(module)
        sharding.shard(averaged)
    optimiser = _optimiser(module, recipe)
    gradients = Gradients(module, step_loss, recipe)
    trained = _Trained(module, averaged, optimiser, gradients, step_loss if isinstance(step_loss, Stateful) else None)
    start, spent = trained.resume(folder / "state.pt")
    started = time.monotonic()
    ranks.check_alike("the step from which they resume", start)
    if leads:
        drop_lines_after(folder / "curve.jsonl", start)
    window, conditions = Window(), Watch()
    with tqdm(total=recipe.steps, initial=start, desc=description, disable=None if leads else True) as bar:
        for step in range(start, end):
            with ranks.in_step(), conditions.noting():
                window.add(_one_step(trained, recipe, step))
            logs, saves = (step + 1) % recipe.log_every == 0, (step + 1) % recipe.save_every == 0
            if logs or saves or step + 1 == end:  # the only steps that wait for the device
                conditions.look()
            if logs or step + 1 == recipe.steps:
                line = window.close()
                if leads:
                    append_line(folder / "curve.jsonl", {"step": step + 1, **line})
                    bar.set_postfix({name: f"{value:.4g}" for name, value in line.items()})
                if leads and on_log is not None:
                    on_log(step + 1, line)
            elapsed = time.monotonic() - started
            time_is_up = seconds is not None and logs and ranks.from_first(elapsed > seconds)
            if (leads or sharded) and (saves or step + 1 == end or time_is_up):
                trained.save(folder / "state.pt", step + 1, spent + elapsed)
            bar.update()
            if time_is_up or step + 1 == end:
                ranks.wait()  # until the first rank has saved
            if time_is_up and step + 1 < end:
                raise SliceEnded(step + 1, recipe.steps)
    if sharded:
        shipped.load_state_dict(sharding.whole(averaged.state_dict()))
    return shipped


def steps_done(folder: Path) -> int:
    """Number of steps completed in the state that a training in `folder` would resume; 0 without a state."""
    path = folder / "state.pt"
    return int(_of_state(path, "step")) if path.exists() else 0


def seconds_spent(folder: Path) -> float:
    """Wall time in seconds of all steps of a training folder's state, summed over runs."""
    return _of_state(folder / "state.pt", "seconds")


def _of_state(path: Path, name: str) -> float:
    try:
        value = float(torch.load(ordinary(path), weights_only=True, map_location="cpu", mmap=True)[name])
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}")
        return value
    except Exception as error:  # a damaged file raises nearly anything
        raise _cannot_resume(path, error) from error


def _cannot_resume(path: Path, error: Exception) -> TrainingError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return TrainingError(f"{path}: cannot resume ({reason}); delete it to start again")


def batch_indices(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """(batch,) clip indices of a step: every clip once per epoch, in an order reshuffled each epoch."""
    if batch > count:
        raise TrainingError(f"a batch of {batch} clips from a set of {count}: lower batch or build more clips")
    per_epoch = count // batch
    epoch, within = divmod(step, per_epoch)
    return np.sort(_order(count, epoch, seed)[within * batch : (within + 1) * batch])


@lru_cache(maxsize=2)
def _order(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, 1])).permutation(count)


def half_of(count: int, generator: torch.Generator) -> np.ndarray:
    """(count,) booleans, each True with probability one half."""
    return (torch.rand(count, generator=generator) < 0.5).numpy()


def mirror(clips: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mirror those clips (B, T, H, W, 3) left to right where `which` (B,) is True."""
    return np.where(which[:, None, None, None, None], clips[:, :, :, ::-1], clips)


def _one_step(trained: _Trained, recipe: Recipe, step: int) -> Terms:
    for group in trained.optimiser.param_groups:
        group["lr"] = recipe.rate(step)
    trained.optimiser.zero_grad()
    terms = trained.gradients(step)
    terms |= trained.gradients.descend(step, trained.optimiser, terms["loss"])
    _average(trained.averaged, trained.module, min(recipe.ema, (step + 1) / (step + 10)))
    return terms


@torch.no_grad()
def _average(averaged: nn.Module, module: nn.Module, decay: float) -> None:
    for mean, parameter in zip(sharding.own(averaged), sharding.own(module), strict=True):
        mean.lerp_(parameter.detach(), 1 - decay)
    for copied, buffer in zip(averaged.buffers(), module.buffers(), strict=True):
        copied.copy_(buffer)


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(p.device.type == "cuda" for p in matrices)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=fused or None)


@dataclass(frozen=True)
class _Trained:
    """Everything that a training changes."""

    module: nn.Module
    averaged: nn.Module
    optimiser: torch.optim.Optimizer
    gradients: Gradients
    objective: Stateful | None

    def save(self, path: Path, step: int, seconds: float) -> None:
        scaler = self.gradients.scaler.state_dict()  # empty without float16
        parts = {
            "step": step,
            "seconds": seconds,
            "module": self.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict() | ({"scaler": scaler} if scaler else {}),
            "objective": self.objective.state_dict() if self.objective else {},
        }
        parts = sharding.whole(parts) if sharding.is_sharded(self.module) else parts
        if ranks.rank() == 0:
            state.write(path, parts)

    def resume(self, path: Path) -> tuple[int, float]:
        """Load the state; returns the completed steps and the seconds spent on them."""
        if not path.exists():
            return 0, 0.0
        try:
            parts = state.read(path)
            if sharding.is_sharded(self.module):
                for name in ("module", "averaged"):
                    parts[name] = sharding.split(parts[name], getattr(self, name))
                parts["optimiser"] = sharding.split_moments(parts["optimiser"], self.optimiser)
            self.module.load_state_dict(parts["module"])
            self.averaged.load_state_dict(parts["averaged"])
            if scaler := parts["optimiser"].pop("scaler", {}):
                self.gradients.scaler.load_state_dict(scaler)
            self.optimiser.load_state_dict(parts["optimiser"])
            if self.objective:
                self.objective.load_state_dict(parts["objective"])
            return int(parts["step"]), float(parts["seconds"])
        except Exception as error:
            raise _cannot_resume(path, error) from error
