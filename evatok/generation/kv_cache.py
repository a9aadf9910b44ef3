"""KV cache and attention for the generator: packed training, prefill, and decode of one position at a time.

All other layers process positions side by side, whatever sequence they belong to; each class here reshapes them for
attention, and back.

Legend: B sequences, b running ones, N positions of the longest, M positions in all, D width, H heads, C = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from evatok.models.attention import attend

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer index, queries, keys, values (M, H, C)) -> output of attention (M, D)."""


class KVCache:
    """Preallocated keys and values of the running sequences, its first rows, all written at one clock.

    Every sequence writes its next position into the same column, whatever its length: one slice instead of one index
    per sequence, and a sequence may start at any time. Attention reads the columns since the oldest one started, and a
    mask hides earlier columns from the others.

    Attributes:
        values: (layers, 2, B, H, columns, C); finite from the start, as a NaN in a hidden column would spoil a sum.
        clock: column of the next position.
        starts: (b,) first column of each running sequence.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values
        self.clock = 0
        self.starts: list[int] = []

    @property
    def lengths(self) -> list[int]:
        """Number of positions of each running sequence."""
        return [self.clock - start for start in self.starts]

    @property
    def age(self) -> int:
        """Number of positions of the oldest running sequence."""
        return self.clock - self._oldest

    def admit(self, count: int, length: int) -> slice:
        """Add `count` sequences whose first `length` positions end at the clock; returns their rows."""
        if not self.starts:
            self.clock = length
        rows = slice(len(self.starts), len(self.starts) + count)
        if rows.stop > self.values.shape[2]:
            self._grow(max(rows.stop, 2 * self.values.shape[2]))
        if self.clock < length:
            self._move(self._oldest + length - self.clock)
        self.starts += [self.clock - length] * count
        return rows

    def make_room(self) -> None:
        """Move all sequences to the first columns if the clock has reached the end."""
        if self.clock == self.values.shape[4]:
            self._move(0)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep sequences `rows` (b,) as the first b; only those whose row changes are copied."""
        moved = [row for row, source in enumerate(rows) if row != source]
        if moved:
            sources, columns = [rows[row] for row in moved], slice(self._oldest, self.clock)
            self.values[:, :, moved, :, columns] = self.values[:, :, sources, :, columns]
        self.starts = [self.starts[source] for source in rows]

    @property
    def _oldest(self) -> int:
        return min(self.starts)

    def _grow(self, sequences: int) -> None:
        rows, columns = len(self.starts), slice(self._oldest, self.clock) if self.starts else slice(0)
        larger = self.values.new_zeros(*self.values.shape[:2], sequences, *self.values.shape[3:])
        larger[:, :, :rows, :, columns] = self.values[:, :, :rows, :, columns]
        self.values = larger

    def _move(self, first: int) -> None:
        """Shift the running sequences so that the oldest starts in column `first`."""
        rows, oldest = slice(len(self.starts)), self._oldest
        length = self.clock - oldest
        for layer in self.values:  # one at a time: source and destination may overlap, and a copy takes memory
            layer[:, rows, :, first : first + length] = layer[:, rows, :, oldest : self.clock].clone()
        self.starts = [start - oldest + first for start in self.starts]
        self.clock = first + length


class PackedAttention:
    """Causal attention within each sequence, over positions packed without padding.

    Attributes:
        shape: B and N.
        index: (M,) which of the B * N padded positions are not padding.
    """

    def __init__(self, shape: tuple[int, int], index: torch.Tensor) -> None:
        self.shape, self.index = shape, index

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = _causal(self._padded(q), self._padded(k), self._padded(v))
        return out.transpose(1, 2).flatten(0, 1)[self.index].flatten(1)

    def _padded(self, x_MHC: torch.Tensor) -> torch.Tensor:
        """(M, H, C) -> (B, H, N, C), zero in the padding."""
        padded = x_MHC.new_zeros(self.shape[0] * self.shape[1], *x_MHC.shape[1:])
        return padded.index_copy(0, self.index, x_MHC).unflatten(0, self.shape).transpose(1, 2)


class Prefill:
    """Causal attention over sequences of equal length (B * N positions), which are added to a cache if there is one."""

    def __init__(self, batch: int, length: int, cache: KVCache | None) -> None:
        self.batch, self.cache = batch, cache
        if cache is not None:
            self.rows, self.columns = cache.admit(batch, length), slice(cache.clock - length, cache.clock)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.unflatten(0, (self.batch, -1)).transpose(1, 2) for x in (q, k, v))
        if self.cache is not None:
            self.cache.values[layer, 0, self.rows, :, self.columns] = k
            self.cache.values[layer, 1, self.rows, :, self.columns] = v
        return _causal(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)


class Decode:
    """Attention of one new position of each running sequence, which is added to the cache.

    The cache is sliced once for all layers: at toy size, slicing would cost more than attention.
    """

    def __init__(self, cache: KVCache) -> None:
        cache.make_room()
        values, first, clock = cache.values[:, :, : len(cache.starts)], min(cache.starts), cache.clock
        layers, shape = 2 * len(values), values.shape[2:4]
        self.new = values[:, :, :, :, clock].view(layers, *shape, -1).unbind()
        self.filled = values[:, :, :, :, first : clock + 1].view(layers, *shape, clock + 1 - first, -1).unbind()
        self.mask = None if max(cache.starts) == first else _since(cache, first)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.filled[2 * layer], self.filled[2 * layer + 1]
        self.new[2 * layer].copy_(k)
        self.new[2 * layer + 1].copy_(v)
        out = F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values, attn_mask=self.mask)
        return out.flatten(1).to(q.dtype)


def _since(cache: KVCache, first: int) -> torch.Tensor:
    """Return (b, 1, 1, columns from `first` to the clock), a bias for scores: -inf before a sequence starts, else 0.

    A bias, because every layer would convert a boolean mask.
    """
    starts = torch.tensor(cache.starts, device=cache.values.device)[:, None, None, None]
    columns = torch.arange(first, cache.clock + 1, device=starts.device)
    return torch.zeros_like(columns, dtype=cache.values.dtype).masked_fill(columns < starts, -torch.inf)


class GroupedDecode:
    """Decode the sequences of several caches, one cache after another: each reads only its own cache."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self.groups, self.sizes = [Decode(cache) for cache in caches], [len(cache.starts) for cache in caches]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        split = zip(self.groups, *(x.split(self.sizes) for x in (q, k, v)), strict=True)
        return torch.cat([group.attend(layer, *parts) for group, *parts in split])


def _causal(q_BHNC: torch.Tensor, k_BHNC: torch.Tensor, v_BHNC: torch.Tensor) -> torch.Tensor:
    """Attention of every position to itself and earlier ones; padding on the right is thus never seen."""
    if q_BHNC.device.type != "cpu" or q_BHNC.dtype == torch.float32:
        return F.scaled_dot_product_attention(q_BHNC, k_BHNC, v_BHNC, is_causal=True)
    # On a CPU in bfloat16, the fused kernel is two to four times slower than explicit products.
    positions = torch.arange(q_BHNC.shape[2], device=q_BHNC.device)
    return attend(q_BHNC, k_BHNC, v_BHNC, positions[:, None] >= positions)
