"""Engines that run a generator for a continuous batch: with a KV cache, or without one for comparison.

An engine admits requests, decodes one symbol of each, and evicts the finished ones. With guidance, every request has a
second sequence of the null class, right after its own.

Legend: B requests in all, b sequences admitted at once, n running requests, copies 1 or 2 (with guidance), P positions
of the prefix, V vocabulary, v a part of it, D width.
"""

from __future__ import annotations

import torch

from evatok.generation.kv_cache import KVCache
from evatok.generation.transformer import Condition, Generator

OPEN_FOR = {"cpu": 1 / 8}
"""Age, as a share of the context, up to which a cache admits others, by device type; elsewhere any.

On a CPU, columns that the mask hides cost time; on a GPU, one more call of the kernel per layer costs more.
"""


def engine_for(module: Generator, condition: Condition, guidance: float, cached: bool) -> Engine:
    """Build the engine; without `cached`, the one that keeps no KV cache."""
    return (CachedEngine if cached else UncachedEngine)(module, condition, guidance)


class Engine:
    """Features of the next symbol of each running request, and the logits they give.

    Attributes:
        prefixes: (B, copies, P) rows of the embedding table that precede each request's symbols.
        vectors: caption vectors, appended to the table; None without captions.
        entering: last prefix row of each sequence admitted since the last step. The rows before it are prefilled on
            admission; a class alone, a prefix of one row, needs no pass of its own.
    """

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        self.module, self.guidance = module, guidance
        self.copies = 1 if guidance == 1 else 2
        everyone = torch.ones(len(condition), dtype=torch.bool, device=module.head.weight.device)
        prefixes = [module.prefix(condition), module.prefix(condition, drop=everyone)][: self.copies]
        captions = [module.captioned(condition), module.captioned(condition, drop=everyone)][: self.copies]
        self.prefixes = torch.stack(prefixes, 1)
        self.vectors: torch.Tensor | None = None
        if captions[0] is not None:  # the null copies' vectors come after all others
            first, count = module.config.condition, module.config.text
            self.prefixes[:, 1:, first : first + count] += len(captions[0])
            self.vectors = torch.cat([vectors for vectors in captions if vectors is not None])
        self.entering = self.prefixes[:0, 0, 0]

    def admit(self, requests: slice) -> None:
        """Append requests to the running ones."""
        rows = self.prefixes[requests].flatten(0, 1)
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
        raise NotImplementedError

    def _prefill(self, rows: torch.Tensor) -> None:
        """Start sequences with their prefixes (b, P - 1), without the last row."""
        raise NotImplementedError

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        """Return features after one more row of the embedding table for every sequence."""
        raise NotImplementedError


class CachedEngine(Engine):
    """KV caches of requests of similar age: a new request joins the youngest, or a new one if that is too old."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.caches: list[KVCache] = []
        self.open_for = OPEN_FOR.get(module.head.weight.device.type, 1.0) * module.config.context

    def evict(self, finished: list[bool]) -> list[int]:
        remaining, first = [], 0
        for cache in self.caches:
            size = len(cache.starts) // self.copies
            kept = _close_gaps(finished[first : first + size])
            cache.keep([self.copies * row + copy for row in kept for copy in range(self.copies)])
            remaining += [first + row for row in kept]
            first += size
        self.caches = [cache for cache in self.caches if cache.starts]
        return remaining

    def _prefill(self, rows: torch.Tensor) -> None:
        if not self.caches or self.caches[-1].age > self.open_for:
            self.caches.append(self.module.cache(len(rows)))
        self.module.prefill(rows, self.caches[-1], self.vectors)

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        return self.module.decode(rows, *self.caches)


class UncachedEngine(Engine):
    """No KV cache: all rows of every sequence are recomputed at every step, as a reference."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.sequences: list[torch.Tensor] = []

    def evict(self, finished: list[bool]) -> list[int]:
        kept = _close_gaps(finished)
        self.sequences = [self.sequences[self.copies * row + copy] for row in kept for copy in range(self.copies)]
        return kept

    def _prefill(self, rows: torch.Tensor) -> None:
        self.sequences += rows.unbind()

    def _decode(self, rows: torch.Tensor) -> torch.Tensor:
        self.sequences = [torch.cat(pair) for pair in zip(self.sequences, rows[:, None], strict=True)]
        lengths = torch.tensor([len(sequence) for sequence in self.sequences])
        order, features = [], []
        for length in lengths.unique():
            alike = (lengths == length).nonzero()[:, 0].tolist()
            order += alike
            rows_BN = torch.stack([self.sequences[number] for number in alike])
            features.append(self.module.last_features(rows_BN, vectors=self.vectors))
        return torch.cat(features)[torch.tensor(order, device=rows.device).argsort()]


def _close_gaps(finished: list[bool]) -> list[int]:
    """Return remaining rows, the last ones moved into the gaps of finished ones, to copy little of a cache."""
    count = finished.count(False)
    later = (row for row in range(count, len(finished)) if not finished[row])
    return [next(later) if finished[row] else row for row in range(count)]
