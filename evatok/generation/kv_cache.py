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
    """Preallocated keys and values; the running sequences are its first rows.

    Attributes:
        values: (layers, 2, B, H, positions, C).
        lengths: number of filled positions of each running sequence.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values
        self.lengths: list[int] = []

    @property
    def aligned(self) -> bool:
        """Whether all sequences are at the same position."""
        return min(self.lengths) == max(self.lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep sequences `rows` (b,) as the first b; only those whose row changes are copied."""
        moved = [row for row, source in enumerate(rows) if row != source]
        if moved:
            sources = [rows[row] for row in moved]
            longest = max(self.lengths[source] for source in sources)
            self.values[:, :, moved, :, :longest] = self.values[:, :, sources, :, :longest]
        self.lengths = [self.lengths[source] for source in rows]


class PackedAttention:
    """Causal attention within each sequence, over positions packed without padding.

    Attributes:
        index: (M,) which of the B * N padded positions are not padding.
        positions: (M,) position of each in its sequence.
    """

    def __init__(self, counts: torch.Tensor, longest: int) -> None:
        self.shape = (len(counts), longest)
        valid = torch.arange(longest, device=counts.device) < counts[:, None]
        self.index = valid.flatten().nonzero()[:, 0]
        self.positions = self.index % longest

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = _causal(self._padded(q), self._padded(k), self._padded(v))
        return out.transpose(1, 2).flatten(0, 1)[self.index].flatten(1)

    def _padded(self, x_MHC: torch.Tensor) -> torch.Tensor:
        """(M, H, C) -> (B, H, N, C), zero in the padding."""
        padded = x_MHC.new_zeros(self.shape[0] * self.shape[1], *x_MHC.shape[1:])
        return padded.index_copy(0, self.index, x_MHC).unflatten(0, self.shape).transpose(1, 2)


class Prefill:
    """Causal attention over sequences of equal length (B * N positions); keys and values are written to a cache."""

    def __init__(self, batch: int, cache: KVCache | None) -> None:
        self.batch, self.cache = batch, cache
        self.first = len(cache.lengths) if cache is not None else 0

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.unflatten(0, (self.batch, -1)).transpose(1, 2) for x in (q, k, v))
        if self.cache is not None:
            rows = slice(self.first, self.first + self.batch)
            self.cache.values[layer, 0, rows, :, : k.shape[2]] = k
            self.cache.values[layer, 1, rows, :, : v.shape[2]] = v
        return _causal(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)


class Decode:
    """Attention of one new position per sequence over the positions in a cache.

    Attributes:
        values: (layers, 2, b, H, positions, C).
        positions: (1,) new position of all sequences, or (b,) of each.
        read, mask: see `Generator.decode_at`.
    """

    def __init__(self, values: torch.Tensor, positions: torch.Tensor, read: int, mask: torch.Tensor | None) -> None:
        self.values, self.positions, self.read, self.mask = values, positions, read, mask

    @classmethod
    def of(cls, cache: KVCache) -> Decode:
        """Decode the next position of each running sequence."""
        device, values, read = cache.values.device, cache.values[:, :, : len(cache.lengths)], max(cache.lengths) + 1
        positions = torch.tensor(cache.lengths, device=device)
        return cls(values, positions, read, torch.arange(read, device=device) <= positions[:, None, None, None])

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.values[layer].unbind(0)
        self._write(keys, k.to(keys.dtype))
        self._write(values, v.to(values.dtype))
        keys, values = keys[:, :, : self.read], values[:, :, : self.read]
        out = F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values, attn_mask=self.mask)
        return out.flatten(1)

    def _write(self, cached: torch.Tensor, new: torch.Tensor) -> None:
        if len(self.positions) == 1:
            cached.index_copy_(2, self.positions, new[:, :, None])
        else:
            cached[torch.arange(len(new), device=new.device), :, self.positions] = new


class AlignedDecode:
    """`Decode` for sequences that are all at the same position, known as a Python integer.

    The cache is sliced for all layers once per step: with many small caches, slicing would cost more than attention.
    """

    def __init__(self, cache: KVCache) -> None:
        values, position = cache.values[:, :, : len(cache.lengths)], cache.lengths[0]
        layers = 2 * len(values)
        self.new = values[:, :, :, :, position].view(layers, *values.shape[2:4], -1).unbind()
        self.filled = values[:, :, :, :, : position + 1].view(layers, *values.shape[2:4], position + 1, -1).unbind()

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.filled[2 * layer], self.filled[2 * layer + 1]
        self.new[2 * layer].copy_(k)
        self.new[2 * layer + 1].copy_(v)
        return F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values).flatten(1)


def decode_of(cache: KVCache) -> Decode | AlignedDecode:
    """Decode the next position of each running sequence; without a mask while all are at the same position."""
    return AlignedDecode(cache) if cache.aligned else Decode.of(cache)


class GroupedDecode:
    """Decode of the sequences of several caches, cache after cache: each reads only its own cache."""

    def __init__(self, groups: Sequence[Decode | AlignedDecode], sizes: list[int]) -> None:
        self.groups, self.sizes = groups, sizes

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
