"""Continuous batching: finished samples are evicted and waiting ones admitted, so none waits for the longest.

Legend: B requests, n running ones, V vocabulary, D width, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from evatok.generation import drawing
from evatok.generation.drawing import Sampling, SamplingError
from evatok.generation.engines import Engine
from evatok.generation.grammar import Grammar, Progress, Sequences
from evatok.generation.order import OrderedGrammar

_VECTOR_ROWS = 8
"""A CPU computes logits at full speed for multiples of this many rows: 63 rows take 1.6 times as long as 64."""


class ContinuousBatch:
    """Requests decoded one symbol at a time, each at its own position.

    Attributes:
        capacity: maximum number of running requests.
        admitted: number of requests admitted so far; the others wait, in their order.
        running: (n,) indices of the running requests.
        positions: (n,) symbols that each of them has so far.
        uniform: (n, longest) their random numbers, one per symbol.
        finite: whether all logits so far were finite; a tensor, so that a GPU is not synchronised at every symbol.
    """

    def __init__(
        self,
        grammar: Grammar | OrderedGrammar,
        options: Sampling,
        engine: Engine,
        seeds: Sequence[int],
        forced: torch.Tensor,
        capacity: int,
    ) -> None:
        """`forced` (K + 1,): the length symbol that each block must take, -1 where it is drawn."""
        self.grammar, self.options, self.engine, self.forced = grammar, options, engine, forced
        self.seeds, self.capacity, self.admitted, self.device = seeds, capacity, 0, forced.device
        self.symbols = torch.zeros(len(seeds), grammar.longest, dtype=torch.int64, device=self.device)
        self.counts, self.running, self.positions = (self.symbols.new_zeros(n) for n in (len(seeds), 0, 0))
        self.uniform = torch.zeros(0, grammar.longest, dtype=torch.float64, device=self.device)
        self.progress = grammar.start(0, self.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)

    def run(self) -> Iterator[list[int]]:
        """Decode all requests; yields the indices of finished ones as they are evicted.

        While all requests are inside a block, nothing can finish and no state has to be read from the device.
        """
        self._admit(self._room())
        symbols, steps_inside_blocks = self.running[:0], 0
        while len(self.running):
            features = self.engine.step(symbols)
            symbols = self._draw_codes(features) if steps_inside_blocks > 0 else self._draw_any(features)
            steps_inside_blocks -= 1
            if steps_inside_blocks > 0:
                continue
            remaining, finished = self._evict()
            if finished:
                symbols = symbols[remaining]
                yield finished
            self._admit(self._room())
            steps_inside_blocks = int(self.progress.codes_left.min()) if len(self.running) else 0

    def sequences(self, requests: list[int] | slice) -> Sequences:
        """Return the sequences of finished requests."""
        return Sequences(self.symbols[requests], self.counts[requests])

    def _room(self) -> int:
        """Return the number of waiting requests that can be admitted."""
        return min(self.capacity - len(self.running), len(self.seeds) - self.admitted)

    def _admit(self, count: int) -> None:
        """Admit the `count` requests that have waited longest, after the running ones."""
        if not count:
            return
        requests = range(self.admitted, self.admitted + count)
        uniform = np.stack([np.random.default_rng(self.seeds[i]).random(self.grammar.longest) for i in requests])
        new = torch.tensor(requests, device=self.device)
        self.running = torch.cat((self.running, new))
        self.positions = torch.cat((self.positions, torch.zeros_like(new)))
        self.uniform = torch.cat((self.uniform, torch.from_numpy(uniform).to(self.device)))
        self.progress = Progress.joined(self.progress, self.grammar.start(count, self.device))
        self.admitted += count
        self.engine.admit(slice(requests.start, requests.stop))

    def _draw_codes(self, features: torch.Tensor) -> torch.Tensor:
        """Draw a code for every request; features (n, copies, D), symbols (n,)."""
        symbols = self._draw(features, slice(0, self.grammar.codebook_size), self._next_uniform())
        self.progress = self.progress.coded(1)
        return self._append(symbols)

    def _draw_any(self, features: torch.Tensor) -> torch.Tensor:
        """Draw a code or a length symbol, as each request needs: no logit is computed that cannot be drawn."""
        grammar, wants_length, uniform = self.grammar, self.progress.wants_length, self._next_uniform()
        codes, lengths = slice(0, grammar.codebook_size), slice(grammar.codebook_size, grammar.vocabulary)
        symbols = torch.zeros_like(self.running)
        for mask, alphabet in ((~wants_length, codes), (wants_length, lengths)):
            rows = mask.nonzero()[:, 0]
            if len(rows):
                symbols[rows] = self._draw(features[rows], alphabet, uniform[rows])
        self._check_finite()
        forced = self.forced[grammar.headers - self.progress.blocks_left]
        symbols = torch.where(wants_length & (forced >= 0), forced, symbols)
        self.progress = grammar.advance(self.progress, symbols)
        return self._append(symbols)

    def _next_uniform(self) -> torch.Tensor:
        return self.uniform.gather(1, self.positions[:, None])

    def _append(self, symbols: torch.Tensor) -> torch.Tensor:
        self.symbols[self.running, self.positions] = symbols
        self.positions = self.positions + 1
        return symbols

    def _draw(self, features: torch.Tensor, alphabet: slice, uniform: torch.Tensor) -> torch.Tensor:
        """Draw symbols (n,) of `alphabet` from features (n, copies, D) with random numbers (n, 1)."""
        count = len(features)
        if self.device.type == "cpu":
            features, uniform = _fill_vector(features), _fill_vector(uniform)
        weights = drawing.probabilities(self.engine.logits(features, alphabet).float(), self.options)
        columns, total = drawing.draw(weights, uniform)
        self.finite = self.finite & total.isfinite().all()
        return alphabet.start + columns[:count]

    def _evict(self) -> tuple[torch.Tensor, list[int]]:
        """Evict finished requests; returns the rows that remain, in their new order, and the finished indices."""
        self._check_finite()
        done = self.progress.done
        finished = self.running[done]
        if not len(finished):
            return torch.arange(len(done), device=self.device), []
        self.counts[finished] = self.positions[done]
        remaining = torch.tensor(self.engine.evict(done.tolist()), dtype=torch.int64, device=self.device)
        self.running, self.positions = self.running[remaining], self.positions[remaining]
        self.uniform, self.progress = self.uniform[remaining], self.progress.keep(remaining)
        return remaining, finished.tolist()

    def _check_finite(self) -> None:
        if not self.finite:
            position = int(self.positions.max())
            raise SamplingError(
                f"logits are not finite at or before position {position}: the generator's weights may be damaged"
            )


def _fill_vector(rows: torch.Tensor) -> torch.Tensor:
    """Pad rows (n, ...) with zeros to a multiple of _VECTOR_ROWS."""
    spare = -len(rows) % _VECTOR_ROWS
    return torch.cat((rows, rows.new_zeros(spare, *rows.shape[1:]))) if spare else rows
