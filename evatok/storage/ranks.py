"""The processes of one distributed run: each one's part of a batch, and means over all of them.

The global batch of a step is split into equal consecutive parts, one per rank. Every rank makes all random draws for
the complete batch, from the same generator, and keeps its part: so a run on any number of ranks, and one resumed on
another number, computes the same. With one process every function here is the identity.

Legend: R ranks, B clips of the global batch, b = B / R of a rank.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from evatok.errors import EvatokError
from evatok.storage import pieces

Values = TypeVar("Values", np.ndarray, torch.Tensor)
Made = TypeVar("Made")
Item = TypeVar("Item")

PATIENCE = timedelta(hours=12)
"""How long a rank waits for the others: as long as rank 0 may take to measure."""

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
_stepping = False  # whether the batch spans all ranks (`in_step`)


class RankError(EvatokError, RuntimeError):
    """Ranks that cannot work together."""


def rank() -> int:
    """This process's rank, 0 for a run on its own."""
    return dist.get_rank() if _together() else 0


def count() -> int:
    """R, the number of processes that train together."""
    return dist.get_world_size() if _together() else 1


def take_device(on: str) -> None:
    """Map "cuda" to this rank's own GPU."""
    if on == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


@contextmanager
def together(on: str) -> Iterator[None]:
    """Join the processes started by `torchrun` or `accelerate launch`, each on its own device; otherwise do nothing.

    Raises:
        RankError: `accelerate` is not installed, or another rank ended.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or _together():
        yield
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise RankError('several processes need accelerate: pip install "evatok[distributed]"') from error
    PartialState(cpu=torch.device(on).type == "cpu", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in _LOST):
            raise
        raise RankError("another rank ended, see its message; saved work is kept, rerun to resume from it") from error
    finally:
        dist.destroy_process_group()
        PartialState._reset_state()


@contextmanager
def in_step() -> Iterator[None]:
    """Within, the batch spans all ranks: a training step. What rank 0 measures by itself lies outside."""
    global _stepping
    before, _stepping = _stepping, True
    try:
        yield
    finally:
        _stepping = before


def parts() -> int:
    """The number of parts of a batch: one per rank, or one per piece of each (`evatok.storage.pieces`)."""
    if not _stepping:
        return 1
    piece = pieces.current()
    return count() * (piece.of if piece else 1)


def part() -> int:
    """The index of the current part."""
    piece = pieces.current()
    return rank() * piece.of + piece.number if piece and _stepping else rank()


def share(values: Values, dim: int = 0) -> Values:
    """Return this rank's part of values for the global batch, (B, ...) -> (b, ...), B along `dim`.

    Raises:
        RankError: B is not a multiple of R.
    """
    if parts() == 1:
        return values
    size = values.shape[dim]
    if size % parts():
        raise RankError(f"a batch of {size} clips cannot be shared by {parts()} ranks equally: take a multiple of it")
    mine = slice(part() * (size // parts()), (part() + 1) * (size // parts()))
    return values[(slice(None),) * dim + (mine,)]


def whole(size: int) -> int:
    """Return the size of the global batch, of which this rank has `size` clips."""
    return size * parts()


def mean(value: torch.Tensor, of: torch.Tensor | int) -> torch.Tensor:
    """Weight a mean over `of` things such that the mean over ranks is the mean over the things of all ranks."""
    if parts() == 1:
        return value
    number = of.float() if isinstance(of, torch.Tensor) else value.new_full((), of, dtype=torch.float32)
    everything = _summed(number)
    return torch.where(number > 0, value, 0.0) * (number * parts() / everything)


def total(value: torch.Tensor) -> torch.Tensor:
    """Sum over ranks, differentiable: every rank's loss may depend on it, and on all equally."""
    if parts() == 1:
        return value
    if pieces.current():  # the others' gradients would equal this one's
        return _summed(value) + parts() * (value - value.detach())
    return _Total.apply(value)


def _summed(value: torch.Tensor) -> torch.Tensor:
    """Sum over all parts without a gradient; in a rehearsal, when it is still unknown, this part's own."""
    piece = pieces.current()
    if piece and piece.rehearsed:
        piece.ledger.add(value)
        return value.detach()
    if piece:
        return piece.ledger.take()
    everything = value.detach().clone()
    dist.all_reduce(everything)
    return everything


def rehearsed(ledger: pieces.Ledger) -> None:
    """Sum over ranks what all pieces contributed."""
    for value in ledger.sums if count() > 1 else ():
        dist.all_reduce(value)
    ledger.complete = True


@torch.no_grad()
def average(value: torch.Tensor) -> torch.Tensor:
    """Average over ranks, without a gradient."""
    if parts() == 1:
        return value
    if pieces.current():
        raise pieces.PieceError("a ratio of gradients of all clips is not known in a piece of them")
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / parts()


@torch.no_grad()
def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Average gradients over ranks, in place."""
    if parts() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / parts())


def all_true(holds: bool | torch.Tensor) -> bool:
    """Whether it holds on every rank."""
    if count() == 1:
        return bool(holds)
    held = torch.as_tensor(holds, dtype=torch.int32, device=device()).clone()
    dist.all_reduce(held, dist.ReduceOp.MIN)
    return bool(held)


def part_of(work: Sequence[Item]) -> Sequence[Item]:
    """Return this rank's consecutive part of a list of work, of any length."""
    begin, end = (len(work) * number // count() for number in (rank(), rank() + 1))
    return work[begin:end]


def first(make: Callable[[], Made]) -> Made:
    """Return what `make` returns, called by rank 0 before the others: they find its files on disk."""
    if count() == 1 or rank() == 0:
        made = make()
        wait()
        return made
    wait()
    return make()


def wait() -> None:
    """Wait until all ranks arrive here."""
    from_first(None)


def from_first(value: Any) -> Any:
    """Return rank 0's value on every rank."""
    if count() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, device=torch.device(device()))
    return held[0]


def gathered(value: Any) -> list[Any]:
    """Return every rank's value, in rank order."""
    if count() == 1:
        return [value]
    held: list[Any] = [None] * count()
    dist.all_gather_object(held, value)
    return held


def check_alike(what: str, value: Any) -> None:
    """Raise RankError, on every rank, if `value` differs between ranks."""
    held = gathered(value)
    odd = [number for number, other in enumerate(held) if other != held[0]]
    if odd:
        raise RankError(f"ranks differ in {what}: rank 0 has {held[0]}, rank {odd[0]} {held[odd[0]]}")


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def device() -> str:
    """Return the device of tensors exchanged between ranks."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
