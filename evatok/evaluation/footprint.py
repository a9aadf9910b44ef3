"""Count what a training step keeps for its backward pass, and its operations, without the device or the memory.

Networks and clips are fake tensors: they have a shape, a dtype and the device of the training, but no values. A
paper-size step is thus counted on a laptop in seconds. Attention counts what a fused kernel keeps: queries, keys,
values, the output and one sum per query, not the scores.

Legend: B clips, H heads, N queries, M keys, C width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Footprint:
    """Bytes kept independent of the number of clips (weights in low precision), bytes per clip, operations per clip."""

    fixed: float
    per_clip: float
    operations: float

    def bytes(self, clips: int) -> float:
        return self.fixed + self.per_clip * clips


@contextmanager
def imagined(device: str, low: torch.dtype | None) -> Iterator[None]:
    """Make tensors fake and on `device`, which need not exist, under autocast to `low` (None: none)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    kind = torch.device(device).type
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    fused = mock.patch.object(nn.functional, "scaled_dot_product_attention", _attention)
    with FakeTensorMode(), torch.device(kind), fused:
        # Not torch.autocast, which is disabled for a device that does not exist.
        torch.set_autocast_enabled(kind, low is not None)
        torch.set_autocast_dtype(kind, low or before[1])
        try:
            yield
        finally:
            torch.set_autocast_enabled(kind, before[0])
            torch.set_autocast_dtype(kind, before[1])
            torch.clear_autocast_cache()


def footprint(step: Callable[[int], Any], parameters: Iterable[torch.Tensor]) -> Footprint:
    """Return the footprint of `step`, a function of a number of clips, within `imagined`, excluding `parameters`.

    Operations are those of the forward pass.
    """
    own = {_storage(parameter) for parameter in parameters}
    one, two = (_kept(step, clips, own) for clips in (1, 2))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), _Counting() as attention:
        step(1)
    return Footprint(2 * one - two, two - one, counter.get_total_flops() + attention.operations)


def _kept(step: Callable[[int], Any], clips: int, own: set[int]) -> int:
    """Sum the bytes of the storages saved for the backward pass."""
    sizes: dict[int, int] = {}
    alive = []  # otherwise another storage could reuse the address of a counted one

    def keep(x: torch.Tensor) -> torch.Tensor:
        alive.append(x)
        sizes[_storage(x)] = x.untyped_storage().nbytes()
        return x

    torch.clear_autocast_cache()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        alive.append(step(clips))
    return sum(size for storage, size in sizes.items() if storage not in own)


def _storage(x: torch.Tensor) -> int:
    return int(x.untyped_storage()._cdata)


class _Counting:
    """Counts the operations of fused attention inside the context."""

    current: _Counting | None = None

    def __init__(self) -> None:
        self.operations = 0

    def __enter__(self) -> _Counting:
        _Counting.current = self
        return self

    def __exit__(self, *_: object) -> None:
        _Counting.current = None


class _Fused(torch.autograd.Function):
    """Attention of the right shape that keeps what a fused kernel keeps."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums, mask)
        if _Counting.current:
            _Counting.current.operations += 4 * q.numel() * k.shape[-2]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *_ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, **_: Any
) -> torch.Tensor:
    made: torch.Tensor = _Fused.apply(query, key, value, attn_mask)
    return made
