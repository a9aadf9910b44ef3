"""Engines that run a generator for a continuous batch: a KV cache per group, one shared KV cache, or none.

An engine admits requests, decodes one symbol of each, and evicts the finished ones. With guidance, every request has a
second sequence of the null class, right after its own.

Legend: B requests in all, b sequences of a group, n running requests, copies 1 or 2 (with guidance), P positions of
the prefix, V vocabulary, v a part of it, D width.
"""

from __future__ import annotations

import torch

from evatok.generation.kv_cache import KVCache
from evatok.generation.transformer import Condition, Generator

GROUPED_DEVICES = {"cpu"}
"""Devices on which attention without masked positions pays for one call per group; on others, calls dominate."""


def engine_for(module: Generator, condition: Condition, guidance: float, capacity: int, cached: bool) -> Engine:
    """Choose the fastest engine for the module's device; without `cached`, the one that keeps no KV cache."""
    if not cached:
        return UncachedEngine(module, condition, guidance)
    if module.head.weight.device.type in GROUPED_DEVICES:
        return GroupedEngine(module, condition, guidance)
    return SharedEngine(module, condition, guidance, capacity)


class Engine:
    """Features of the next symbol of each running request, and the logits they give.

    Requests admitted together form a group and stay at the same position.

    Attributes:
        prefixes: (B, copies, P) rows of the embedding table that precede each request's symbols.
        sizes: running requests of each group.
        entering: last prefix row of each sequence admitted since the last step. The rows before it are prefilled on
            admission; a class alone, a prefix of one row, needs no pass of its own.
    """

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        self.module, self.guidance = module, guidance
        self.copies = 1 if guidance == 1 else 2
        everyone = torch.ones(len(condition), dtype=torch.bool, device=module.head.weight.device)
        prefixes = [module.prefix(condition), module.prefix(condition, drop=everyone)][: self.copies]
        self.prefixes = torch.stack(prefixes, 1)
        self.sizes: list[int] = []
        self.entering = self.prefixes[:0, 0, 0]

    def group_size(self, capacity: int) -> int:
        """Return how many requests to admit together at least, when `capacity` can run."""
        return -(-capacity // 4)

    def admit(self, requests: slice) -> None:
        """Append requests to the running ones, as a new group."""
        rows = self.prefixes[requests].flatten(0, 1)
        self.sizes.append(requests.stop - requests.start)
        self._prefill(rows[:, :-1])
        self.entering = rows[:, -1]

    def step(self, symbols: torch.Tensor) -> torch.Tensor:
        """Decode one symbol of each request; those admitted since the last step have none yet.

        Returns:
            Features (n, copies, D) that predict the next symbols.
        """
        rows = torch.cat((symbols.repeat_interleave(self.copies), self.entering))
        self.entering = self.entering[:0]
        return self._decode(rows).unflatten(0, (-1, self.copies))

    def logits(self, features: torch.Tensor, symbols: slice) -> torch.Tensor:
        """Logits (n, v) of `symbols` from features (n, copies, D), guided where there are two copies."""
        logits = self.module.logits(features.flatten(0, 1), symbols)
        if self.copies == 1:
            return logits
        conditional, null = logits.float().unflatten(0, (-1, 2)).unbind(1)
        return null + self.guidance * (conditional - null)

    def evict(self, finished: list[bool]) -> list[int]:
        """Evict finished requests (n,); returns the indices of those that remain, in their new order."""
        remaining, sizes, first = [], [], 0
        for group, size in enumerate(self.sizes):
            kept = _close_gaps(finished[first : first + size])
            if len(kept) < size:
                self._keep(group, [self.copies * row + copy for row in kept for copy in range(self.copies)])
            remaining += [first + row for row in kept]
            sizes.append(len(kept))
            first += size
        self._keep_groups([group for group, size in enumerate(sizes) if size])
        self.sizes = [size for size in sizes if size]
        return remaining

    def _prefill(self, rows: torch.Tensor) -> None:
        """Start a new group with its prefixes (b, P - 1), without their last row."""
        raise NotImplementedError

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        """Features after one more row of the embedding table for every sequence of every group."""
        raise NotImplementedError

    def _keep(self, group: int, sequences: list[int]) -> None:
        """Keep only `sequences` of a group, in that order."""
        raise NotImplementedError

    def _keep_groups(self, groups: list[int]) -> None:
        """Keep only `groups`; the others are empty."""
        raise NotImplementedError


class GroupedEngine(Engine):
    """One KV cache per group: no attention to masked positions."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.caches: list[KVCache] = []

    def _prefill(self, rows: torch.Tensor) -> None:
        self.caches.append(self.module.cache(len(rows), aligned=True))
        self.module.prefill(rows, self.caches[-1])

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        return self.module.decode(rows, *self.caches)

    def _keep(self, group: int, sequences: list[int]) -> None:
        self.caches[group].keep(sequences)

    def _keep_groups(self, groups: list[int]) -> None:
        self.caches = [self.caches[group] for group in groups]


class SharedEngine(Engine):
    """One KV cache for all requests; a mask hides the positions a shorter one lacks, so kernels are as few as if all
    requests were at one position."""

    def __init__(self, module: Generator, condition: Condition, guidance: float, capacity: int) -> None:
        super().__init__(module, condition, guidance)
        self.cache = module.cache(self.copies * min(capacity, len(condition)))

    def group_size(self, capacity: int) -> int:
        return -(-capacity // 8)

    def admit(self, requests: slice) -> None:
        super().admit(requests)
        self.sizes = [sum(self.sizes)]

    def _prefill(self, rows: torch.Tensor) -> None:
        self.module.prefill(rows, self.cache)

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        return self.module.decode(rows, self.cache)

    def _keep(self, group: int, sequences: list[int]) -> None:
        self.cache.keep(sequences)

    def _keep_groups(self, groups: list[int]) -> None:
        pass


class UncachedEngine(Engine):
    """No KV cache: all rows of every sequence are recomputed at every step, as a reference."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.sequences: list[torch.Tensor] = []

    def _prefill(self, rows: torch.Tensor) -> None:
        self.sequences.append(rows)

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        new = rows[:, None].split([len(group) for group in self.sequences])
        self.sequences = [torch.cat(pair, 1) for pair in zip(self.sequences, new, strict=True)]
        return torch.cat([self.module.last_features(group) for group in self.sequences])

    def _keep(self, group: int, sequences: list[int]) -> None:
        self.sequences[group] = self.sequences[group][sequences]

    def _keep_groups(self, groups: list[int]) -> None:
        self.sequences = [self.sequences[group] for group in groups]


def _close_gaps(finished: list[bool]) -> list[int]:
    """Rows that remain, the last ones moved into the gaps of finished ones, so that little of a cache is copied."""
    count = finished.count(False)
    later = (row for row in range(count, len(finished)) if not finished[row])
    return [next(later) if finished[row] else row for row in range(count)]
