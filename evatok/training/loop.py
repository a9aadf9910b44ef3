"""One training loop for every stage: AdamW, warm-up and a cosine or WSD, EMA, clipping, exact resume.

Everything random in step s is drawn from a generator seeded with (seed, s). The state of a training is therefore
its weights, its optimiser and a step number, and a run killed at any point continues on the curve of the unbroken
one, bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from evatok.errors import EvatokError
from evatok.storage.files import replacing, writing
from evatok.training import state

Terms = dict[str, torch.Tensor]
Model = TypeVar("Model", bound=nn.Module)
StepLoss = Callable[[Model, int, torch.Generator], tuple[torch.Tensor, Terms]]
OnLog = Callable[[int, dict[str, float]], None]


class TrainingError(EvatokError, ValueError):
    """A training that cannot go on; the last good state stays on disk."""


class SliceEnded(Exception):  # noqa: N818 (nothing went wrong)
    """A training reached its time limit; its state is saved, and the same command goes on from there."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"time is up after step {step} of {steps}; run the same command again to go on")
        self.step, self.steps = step, steps


@runtime_checkable
class Stateful(Protocol):
    """A step's loss that learns something itself (a discriminator), to be resumed with the rest."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


SCHEDULES = ("cosine", "wsd")
_STABLE = 0.8  # share of all steps that a WSD schedule has behind it when its annealing begins [suppl. C]


@dataclass(frozen=True)
class Recipe:
    """How to optimise. Learning rates are AdamW's; `warmup` and the periods are in steps.

    `schedule` is "cosine", or "wsd" (warm-up, stable, decay): constant until 80 % of the steps are done, then annealed
    to the final rate by one minus the root of what is done of the rest.
    """

    steps: int
    learning_rate: float
    final_learning_rate: float
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    log_every: int = 20
    save_every: int = 200
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise TrainingError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}")
        if min(self.steps, self.log_every, self.save_every) < 1:
            raise TrainingError(f"steps, log_every and save_every must be at least 1, got {self}")
        if self.save_every % self.log_every:
            raise TrainingError(
                f"save_every {self.save_every} must be a multiple of log_every {self.log_every}, or a resumed curve "
                "would lose terms"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up to the peak, then down to the final rate by the schedule."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        drop = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + drop * (self._cosine(step) if self.schedule == "cosine" else self._wsd(step))

    def _cosine(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * _share(step - self.warmup, self.steps - self.warmup)))

    def _wsd(self, step: int) -> float:
        begin = max(self.warmup, round(_STABLE * self.steps))
        return 1 - math.sqrt(_share(max(0, step - begin), self.steps - begin))


def _share(done: int, of: int) -> float:
    return min(1.0, done / max(1, of))


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

    `folder` holds `state.pt`, written every `save_every` steps, and `curve.jsonl`, one line every `log_every`
    steps and one at the end, with the mean of each term since the last line. If they exist, training goes on from
    them.

    Args:
        step_loss: (module, step, generator) -> the loss to minimise and its terms, for the log. If it is `Stateful`,
            its state is saved and resumed as well.
        stop_at: end before this step as if killed after a save.
        seconds: end at the first line of the curve after so much wall time, for slices of a long training.

    Raises:
        TrainingError: a loss or gradient that is not finite (the state before it stays), a state of another model,
            or a `stop_at` between two lines of the curve.
        SliceEnded: `seconds` are over before the last step.
    """
    end = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    if end < recipe.steps and end % recipe.log_every:
        raise TrainingError(f"stop_at {end} must be a multiple of log_every {recipe.log_every}")
    folder.mkdir(parents=True, exist_ok=True)
    averaged = copy.deepcopy(module).requires_grad_(False)
    optimiser = _optimiser(module, recipe)
    trained = _Trained(module, averaged, optimiser, step_loss if isinstance(step_loss, Stateful) else None)
    start, spent = trained.resume(folder / "state.pt")
    opened = time.monotonic()
    _forget_lines_from(folder / "curve.jsonl", start)
    window = _Window()
    with tqdm(total=recipe.steps, initial=start, desc=description, disable=None) as bar:
        for step in range(start, end):
            window.add(_one_step(module, averaged, optimiser, step_loss, recipe, step))
            if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
                line = window.close()
                _append_line(folder / "curve.jsonl", {"step": step + 1, **line})
                bar.set_postfix({name: f"{value:.4g}" for name, value in line.items()})
                if on_log is not None:
                    on_log(step + 1, line)
            elapsed = time.monotonic() - opened
            late = seconds is not None and elapsed > seconds and (step + 1) % recipe.log_every == 0
            if (step + 1) % recipe.save_every == 0 or step + 1 == end or late:
                trained.save(folder / "state.pt", step + 1, spent + elapsed)
            bar.update()
            if late and step + 1 < end:
                raise SliceEnded(step + 1, recipe.steps)
    return averaged


def read_curve(folder: Path) -> list[dict[str, float]]:
    """The logged lines of a training folder."""
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def steps_done(folder: Path) -> int:
    """Steps behind the state from which a training in `folder` would resume; 0 where there is none."""
    path = folder / "state.pt"
    return int(torch.load(path, weights_only=True, map_location="cpu", mmap=True)["step"]) if path.exists() else 0


def seconds_spent(folder: Path) -> float:
    """Wall time in seconds of all steps of a training folder's state, over every run that made them."""
    return float(torch.load(folder / "state.pt", weights_only=True, map_location="cpu", mmap=True)["seconds"])


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of a step's random choices."""
    mixed = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))


def batch_indices(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """(batch,) clip indices of a step: every clip once an epoch, in an order drawn anew each epoch."""
    if batch > count:
        raise TrainingError(f"a batch of {batch} clips from a set of {count}: lower batch or build more clips")
    per_epoch = count // batch
    epoch, within = divmod(step, per_epoch)
    order = np.random.default_rng(np.random.SeedSequence([seed, epoch, 1])).permutation(count)
    return np.sort(order[within * batch : (within + 1) * batch])


def half_of(count: int, generator: torch.Generator) -> np.ndarray:
    """(count,) booleans, each true with probability one half."""
    return (torch.rand(count, generator=generator) < 0.5).numpy()


def mirror(clips: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Clips (B, T, H, W, 3), those of `which` (B,) mirrored left to right."""
    return np.where(which[:, None, None, None, None], clips[:, :, :, ::-1], clips)


def mirrored_batch(clips: np.ndarray, rows: np.ndarray, flip: bool, generator: torch.Generator) -> np.ndarray:
    """The clips (N, T, H, W, 3) of a step's rows (B,), with `flip` a random half of them mirrored."""
    return mirror(clips[rows], half_of(len(rows), generator) & flip)


def _one_step(
    module: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    step_loss: StepLoss[Any],
    recipe: Recipe,
    step: int,
) -> Terms:
    generator = step_generator(recipe.seed, step)
    # Layers such as dropout draw from the global generator.
    torch.manual_seed(int(generator.initial_seed() % 2**63))
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate(step)
    loss, terms = step_loss(module, step, generator)
    if not torch.isfinite(loss):
        bad = [name for name, value in terms.items() if not torch.isfinite(value).all()]
        raise TrainingError(f"step {step}: the loss is {loss.item()} (terms not finite: {bad}); last state kept")
    optimiser.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
    if not torch.isfinite(norm):
        # A finite loss can have such a gradient; one step along it would spoil the weights, and then the state.
        raise TrainingError(f"step {step}: the gradient's norm is {norm.item()} at loss {loss.item()}; last state kept")
    optimiser.step()
    _average(averaged, module, min(recipe.ema, (step + 1) / (step + 10)))
    return {**terms, "loss": loss, "gradient_norm": norm}


@torch.no_grad()
def _average(averaged: nn.Module, module: nn.Module, decay: float) -> None:
    for mean, new in zip(averaged.parameters(), module.parameters(), strict=True):
        mean.lerp_(new.detach(), 1 - decay)
    for held, latest in zip(averaged.buffers(), module.buffers(), strict=True):
        held.copy_(latest)


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(p.device.type == "cuda" for p in matrices)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=fused or None)


class _Window:
    """Sums of the terms since the last log line, and in how many steps each occurred."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: Terms) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
            self.counts[name] = self.counts.get(name, 0) + 1

    def close(self) -> dict[str, float]:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


@dataclass(frozen=True)
class _Trained:
    """All that a training changes."""

    module: nn.Module
    averaged: nn.Module
    optimiser: torch.optim.Optimizer
    objective: Stateful | None

    def save(self, path: Path, step: int, seconds: float) -> None:
        parts = {
            "step": step,
            "seconds": seconds,
            "module": self.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "objective": self.objective.state_dict() if self.objective else {},
        }
        state.write(path, parts)

    def resume(self, path: Path) -> tuple[int, float]:
        """Steps done and seconds spent on them."""
        if not path.exists():
            return 0, 0.0
        try:
            held = state.read(path)
            self.module.load_state_dict(held["module"])
            self.averaged.load_state_dict(held["averaged"])
            self.optimiser.load_state_dict(held["optimiser"])
            if self.objective:
                self.objective.load_state_dict(held["objective"])
            return int(held["step"]), float(held["seconds"])
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainingError(f"{path}: cannot resume ({reason}); delete it to start again") from error


def _forget_lines_from(path: Path, step: int) -> None:
    """Drop lines written after the state that training resumes from (and a line cut short by a kill)."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text().splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text)
        except json.JSONDecodeError:
            break
    with replacing(path) as partial:
        partial.write_text("".join(line + "\n" for line in kept))


def _append_line(path: Path, line: dict[str, float]) -> None:
    with writing(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")
