"""How a generator's places look back: packed in training, whole or one new place at a time over a cache in sampling.

All layers but attention see places side by side, whosever they are; each class here brings them into the shape in
which attention is computed, and back.

Legend: B sequences, b those in use, N places of the longest, M places in all, D width, H heads, C = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from evatok.models.attention import attend

Look = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, queries, keys, values (M, H, C)) -> what attention finds (M, D)."""


class Cache:
    """Keys and values of sequences, preallocated; the sequences in use are its first rows.

    Attributes:
        values: (layers, 2, B, H, places, C).
        filled: of each sequence in use, how many places hold something.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values
        self.filled: list[int] = []

    @property
    def even(self) -> bool:
        """Whether all sequences stand at one place."""
        return min(self.filled) == max(self.filled)

    def keep(self, rows: Sequence[int]) -> None:
        """Sequences `rows` (b,) go on as the first b; only those whose row changes are copied."""
        moved = [row for row, source in enumerate(rows) if row != source]
        if moved:
            sources = [rows[row] for row in moved]
            longest = max(self.filled[source] for source in sources)
            self.values[:, :, moved, :, :longest] = self.values[:, :, sources, :, :longest]
        self.filled = [self.filled[source] for source in rows]


class Packing:
    """Attention of packed places: each sequence looks back on itself.

    Attributes:
        index: (M,) which of the B * N padded places are none of the padding.
        places: (M,) the place of each in its sequence.
    """

    def __init__(self, counts: torch.Tensor, longest: int) -> None:
        self.shape = (len(counts), longest)
        valid = torch.arange(longest, device=counts.device) < counts[:, None]
        self.index = valid.flatten().nonzero()[:, 0]
        self.places = self.index % longest

    def look(self, number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        found = _causal(self._padded(q), self._padded(k), self._padded(v))
        return found.transpose(1, 2).flatten(0, 1)[self.index].flatten(1)

    def _padded(self, x_MHC: torch.Tensor) -> torch.Tensor:
        """(M, H, C) -> (B, H, N, C), zero in the padding."""
        padded = x_MHC.new_zeros(self.shape[0] * self.shape[1], *x_MHC.shape[1:])
        return padded.index_copy(0, self.index, x_MHC).unflatten(0, self.shape).transpose(1, 2)


class Filling:
    """Attention of whole sequences (B * N places, no padding) which leaves keys and values in a cache."""

    def __init__(self, batch: int, cache: Cache | None) -> None:
        self.batch, self.cache = batch, cache
        self.first = len(cache.filled) if cache is not None else 0

    def look(self, number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.unflatten(0, (self.batch, -1)).transpose(1, 2) for x in (q, k, v))
        if self.cache is not None:
            rows = slice(self.first, self.first + self.batch)
            self.cache.values[number, 0, rows, :, : k.shape[2]] = k
            self.cache.values[number, 1, rows, :, : v.shape[2]] = v
        found = _causal(q, k, v)
        return found.transpose(1, 2).flatten(2).flatten(0, 1)


class Stepping:
    """Attention of one new place of each sequence over the places in a cache.

    Attributes:
        values: (layers, 2, b, H, places, C).
        places: (1,) the new place of all sequences, or (b,) that of each.
        read, mask: as of `Generator.step_at`.
    """

    def __init__(self, values: torch.Tensor, places: torch.Tensor, read: int, mask: torch.Tensor | None) -> None:
        self.values, self.places, self.read, self.mask = values, places, read, mask

    @classmethod
    def of(cls, cache: Cache) -> Stepping:
        """At the next place of each sequence in use."""
        device, values, read = cache.values.device, cache.values[:, :, : len(cache.filled)], max(cache.filled) + 1
        places = torch.tensor(cache.filled, device=device)
        return cls(values, places, read, torch.arange(read, device=device) <= places[:, None, None, None])

    def look(self, number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.values[number].unbind(0)
        self._write(keys, k.to(keys.dtype))
        self._write(values, v.to(values.dtype))
        keys, values = keys[:, :, : self.read], values[:, :, : self.read]
        found = F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values, attn_mask=self.mask)
        return found.flatten(1)

    def _write(self, held: torch.Tensor, new: torch.Tensor) -> None:
        if len(self.places) == 1:
            held.index_copy_(2, self.places, new[:, :, None])
        else:
            held[torch.arange(len(new), device=new.device), :, self.places] = new


class InStep:
    """The same where all sequences stand at one place, known as a number.

    Every layer's part of the cache is sliced once per step: with many small caches slicing would cost more than the
    attention.
    """

    def __init__(self, cache: Cache) -> None:
        values, place = cache.values[:, :, : len(cache.filled)], cache.filled[0]
        layers = 2 * len(values)
        self.new = values[:, :, :, :, place].view(layers, *values.shape[2:4], -1).unbind()
        self.held = values[:, :, :, :, : place + 1].view(layers, *values.shape[2:4], place + 1, -1).unbind()

    def look(self, number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.held[2 * number], self.held[2 * number + 1]
        self.new[2 * number].copy_(k)
        self.new[2 * number + 1].copy_(v)
        return F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values).flatten(1)


def stepping(cache: Cache) -> Stepping | InStep:
    """At the next place of each sequence in use; without a mask while these are all alike."""
    return InStep(cache) if cache.even else Stepping.of(cache)


class SideBySide:
    """Attention of the sequences of several caches, one cache after the other: each reads no further than its own."""

    def __init__(self, parts: Sequence[Stepping | InStep], sizes: list[int]) -> None:
        self.parts, self.sizes = parts, sizes

    def look(self, number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        split = zip(self.parts, *(x.split(self.sizes) for x in (q, k, v)), strict=True)
        return torch.cat([part.look(number, *own) for part, *own in split])


def _causal(q_BHNC: torch.Tensor, k_BHNC: torch.Tensor, v_BHNC: torch.Tensor) -> torch.Tensor:
    """Attention of every place to itself and to those before it; padding at the right is thus out of sight."""
    if q_BHNC.device.type != "cpu" or q_BHNC.dtype == torch.float32:
        return F.scaled_dot_product_attention(q_BHNC, k_BHNC, v_BHNC, is_causal=True)
    # On the CPU the fused kernel is two to four times slower in bfloat16 than the written-out products.
    places = torch.arange(q_BHNC.shape[2], device=q_BHNC.device)
    return attend(q_BHNC, k_BHNC, v_BHNC, places[:, None] >= places)
