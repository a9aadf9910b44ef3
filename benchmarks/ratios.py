"""Speeds as ratios: a plain baseline and ours, timed alternately in one run, so that drift affects both alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Pass = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """One measured pair.

    Attributes:
        row: what was measured ("tree_search").
        metric: the quantity, with its unit last ("wall_seconds").
        baseline, ours: costs of the baseline and of ours, so less is better, unless `note` says otherwise.
        note: what the baseline is, and anything else needed to interpret the number.
    """

    row: str
    metric: str
    baseline: float
    ours: float
    note: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.baseline) and math.isfinite(self.ours)) or self.ours == 0:
            raise ValueError(f"{self.row} {self.metric}: {self.baseline} against {self.ours} is no ratio")

    @classmethod
    def of(cls, row: str, metric: str, costs: Sequence[float], note: str = "") -> Ratio:
        """Build from costs (baseline, ours)."""
        baseline, ours = costs
        return cls(row, metric, baseline, ours, note)

    @property
    def ratio(self) -> float:
        """Cost of the baseline over ours; above 1, ours is better."""
        return self.baseline / self.ours


def interleaved(
    baseline: Pass, ours: Pass, *, device: str = "cpu", repeats: int = 5, at_least: float = 0.05
) -> tuple[float, float]:
    """Median seconds per call of each, warmed up, timed alternately.

    Args:
        repeats: number of turns; the order alternates.
        at_least: minimum seconds per turn; shorter calls are repeated within one.
    """
    timed = seconds_of([baseline, ours], device=device, repeats=repeats, at_least=at_least)
    return timed[0], timed[1]


def seconds_of(passes: Sequence[Pass], *, device: str = "cpu", repeats: int = 5, at_least: float = 0.05) -> list[float]:
    """Median seconds per call of several passes, see `interleaved`."""
    calls = [_calls_of(each, device, at_least) for each in passes]
    seconds: list[list[float]] = [[] for _ in passes]
    order = list(range(len(passes)))
    for _ in range(repeats):
        for i in order:
            seconds[i].append(_timed(passes[i], calls[i], device))
        order.reverse()
    return [statistics.median(each) for each in seconds]


def once(work: Pass, device: str = "cpu") -> float:
    """Seconds of one call, not warmed up."""
    return _timed(work, 1, device)


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of a cost's growth: least-squares slope of log seconds over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def peak_bytes(work: Pass, device: str = "cpu") -> int:
    """Peak bytes of tensors alive during a call, beyond those before it.

    On a GPU as counted by its allocator, including workspaces of operations; elsewhere only results of operations.
    """
    work()
    if torch.device(device).type == "cuda":
        return _peak_on_gpu(work, device)
    with _Alive() as alive:
        work()
    return alive.peak


def synchronise(device: str) -> None:
    """Wait for a GPU to finish; does nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _peak_on_gpu(work: Pass, device: str) -> int:
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


class _Alive(TorchDispatchMode):
    """Tracks the tensors that operations create."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._track((args, kwargs), new=False)
        result = func(*args, **(kwargs or {}))
        self._track(result, new=True)
        self._held = {key: (ref, size) for key, (ref, size) in self._held.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return result

    def _track(self, values: Any, new: bool) -> None:
        for value in tree_leaves(values):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                ref = StorageWeakRef(storage)
                self._held.setdefault(ref.cdata, (ref, storage.nbytes() if new else 0))


def _calls_of(work: Pass, device: str, at_least: float) -> int:
    """Warm up, then return the number of calls that fill a turn."""
    _timed(work, 1, device)
    return max(1, math.ceil(at_least / max(_timed(work, 1, device), 1e-7))) if at_least else 1


def _timed(work: Pass, calls: int, device: str) -> float:
    synchronise(device)
    started = time.perf_counter()
    for _ in range(calls):
        work()
    synchronise(device)
    return (time.perf_counter() - started) / calls
