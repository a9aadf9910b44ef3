"""Sampling from a generator: a key/value cache, guidance, temperature, top-k, top-p, and legal symbols only.

Every sample has its own seed, from which all its random numbers come, so that they depend neither on the batch nor on
its size. (Logits do in their last bits, as matrix products are summed in another order for another number of rows.)
Samples that are whole leave the batch at once, so nobody computes until the longest has ended.

Legend: B samples, n those still growing, V vocabulary, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evatok.grammar import Grammar, Sequences
from evatok.models.generator import Condition, Generator
from evatok.models.tokenizer import Codes


class SamplingError(ValueError):
    """A generator, a condition or a way to sample that no sample can come from."""


@dataclass(frozen=True)
class Sampling:
    """How symbols are drawn.

    Attributes:
        guidance: g of unconditional + g * (conditional - unconditional) logits; 1 is none, and costs nothing.
        temperature: logits are divided by it.
        top_k: only so many most probable symbols; 0 is no limit.
        top_p: only the most probable symbols that together reach this probability; 1 is no limit.
    """

    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.guidance) or self.guidance < 0:
            raise SamplingError(f"guidance must be a number from 0 up, got {self.guidance}")
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise SamplingError(f"temperature must be above 0, got {self.temperature}; top_k=1 is the greedy choice")
        if self.top_k < 0:
            raise SamplingError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p must be above 0 and at most 1, got {self.top_p}")


@torch.no_grad()
def sample(
    module: Generator,
    grammar: Grammar,
    condition: Condition,
    seeds: Sequence[int],
    how: Sampling,
    *,
    prefix_lengths: torch.Tensor | None = None,
    cached: bool = True,
    tick: Callable[[int], Any] | None = None,
) -> Codes:
    """Codes of one sample a seed, on the module's device.

    Args:
        condition: of B samples.
        seeds: (B,) not negative.
        prefix_lengths: (k,) token counts of the first k blocks, where they are not drawn.
        cached: keep keys and values; without, everything is computed again for every symbol.
        tick: called with the number of samples that have become whole.

    Raises:
        SamplingError: not one seed a condition, guidance without classes, a module made for another grammar, more
            forced lengths than blocks, or logits that are not finite.
        GrammarError: a forced length is no level.
        ValueError: a condition that `Generator.prefix` refuses.
    """
    _check(module, grammar, condition, seeds, how)
    was_training = module.training
    module.eval()
    try:
        device = module.head.weight.device
        model = (_Cached if cached else _Uncached)(module, condition.to(device), how.guidance)
        forced = _forced(grammar, prefix_lengths).to(device)
        return grammar.parse(_Growth(grammar, how, model, seeds, forced).run(tick))
    finally:
        module.train(was_training)


class _Growth:
    """Samples that grow by one symbol at a time, all at the same place; those that are whole drop out.

    Attributes:
        growing: (n,) numbers of the samples that are not whole yet.
        uniform: (B, longest) the random numbers, one a symbol.
        finite: whether all logits so far were finite; a tensor, so that a GPU is not waited for at every symbol.
    """

    def __init__(
        self, grammar: Grammar, how: Sampling, model: _Model, seeds: Sequence[int], forced: torch.Tensor
    ) -> None:
        self.grammar, self.how, self.model, self.forced = grammar, how, model, forced
        device, shape = forced.device, (len(seeds), grammar.longest)
        numbers = np.stack([np.random.default_rng(seed).random(grammar.longest) for seed in seeds])
        self.uniform = torch.from_numpy(numbers).to(device)
        self.symbols = torch.zeros(shape, dtype=torch.int64, device=device)
        self.counts = torch.zeros(len(seeds), dtype=torch.int64, device=device)
        self.growing = torch.arange(len(seeds), device=device)
        self.progress = grammar.start(len(seeds), device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.place = 0

    def run(self, tick: Callable[[int], Any] | None) -> Sequences:
        """All samples, whole. While everybody is within a block nothing has to be looked at from outside."""
        logits, quiet = self.model.begin(), 0
        while True:
            said = self._say_codes(logits) if quiet else self._say_any(logits)
            quiet -= 1
            if quiet <= 0:
                said = said[self._let_go(tick)]
                if not len(said):
                    return Sequences(self.symbols, self.counts)
                quiet = int(self.progress.codes_left.min())
            logits = self.model.step(said)

    def _say_codes(self, logits: torch.Tensor) -> torch.Tensor:
        said = self._draw(logits[:, : self.grammar.codebook_size])
        self.progress = self.progress.coded(1)
        return self._written(said)

    def _say_any(self, logits: torch.Tensor) -> torch.Tensor:
        """Codes or length symbols, as each sample needs."""
        said = self._draw(logits.masked_fill(~self.grammar.legal(self.progress), -torch.inf))
        self._refuse_infinite()
        wanted = self.forced[self.grammar.candidates.blocks - self.progress.blocks_left]
        said = torch.where(self.progress.wants_length & (wanted >= 0), wanted, said)
        self.progress = self.grammar.advance(self.progress, said)
        return self._written(said)

    def _written(self, said: torch.Tensor) -> torch.Tensor:
        self.symbols[self.growing, self.place] = said
        self.place += 1
        return said

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        """(n,) symbols, by the inverse of the cumulative distribution."""
        cumulative = _weights(logits.float(), self.how).cumsum(-1, dtype=torch.float64)
        total = cumulative[:, -1:]
        self.finite = self.finite & total.isfinite().all()
        target = self.uniform[self.growing, self.place, None] * total
        # Rounding must not lead behind the last symbol that has a probability at all.
        target = target.minimum(total.nextafter(torch.zeros_like(total)))
        found = torch.searchsorted(cumulative, target, right=True)[:, 0]
        return found.clamp_max(logits.shape[1] - 1)

    def _let_go(self, tick: Callable[[int], Any] | None) -> torch.Tensor:
        """Part with whole samples; (n,) the rows that stay, in their new order."""
        self._refuse_infinite()
        done = self.progress.done
        rows = _closed_up(~done)
        if len(rows) < len(done):
            self.counts[self.growing[done]] = self.place
            self.growing, self.progress = self.growing[rows], self.progress.keep(rows)
            self.model.keep(rows)
            if tick is not None:
                tick(len(done) - len(rows))
        return rows

    def _refuse_infinite(self) -> None:
        if not self.finite:
            raise SamplingError(f"logits are not finite at symbol {self.place} or before: are the weights sound?")


def _weights(logits: torch.Tensor, how: Sampling) -> torch.Tensor:
    """Logits (n, V) to what probabilities are proportional to, by temperature, then top-k, then top-p."""
    if how.temperature != 1:
        logits = logits / how.temperature
    if 0 < how.top_k < logits.shape[1]:
        least = logits.topk(how.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    if how.top_p == 1:
        return weights
    ordered, order = weights.sort(-1, descending=True)
    together = ordered.cumsum(-1, dtype=torch.float64)
    kept = together - ordered < how.top_p * together[:, -1:]
    return torch.zeros_like(weights).scatter(-1, order, ordered * kept)


def _closed_up(stay: torch.Tensor) -> torch.Tensor:
    """(n,) rows that stay, where the last ones fill the gaps of those that go: little of a cache has to move."""
    count = int(stay.sum())
    rows = torch.arange(count, device=stay.device)
    rows[~stay[:count]] = count + stay[count:].nonzero()[:, 0]
    return rows


class _Model:
    """Logits of the next symbol; with guidance, every sample has a second row, of the null class, behind its own."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        self.module, self.guidance = module, guidance
        self.copies = 1 if guidance == 1 else 2
        everyone = torch.ones(len(condition), dtype=torch.bool, device=module.head.weight.device)
        prefixes = [module.prefix(condition), module.prefix(condition, drop=everyone)][: self.copies]
        self.rows = torch.stack(prefixes, 1).flatten(0, 1)

    def begin(self) -> torch.Tensor:
        """Logits (n, V) of the first symbol."""
        raise NotImplementedError

    def step(self, said: torch.Tensor) -> torch.Tensor:
        """Logits (n, V) behind one more symbol (n,) of each sample."""
        raise NotImplementedError

    def keep(self, rows: torch.Tensor) -> None:
        """Samples `rows` (n,) alone go on, in that order."""
        raise NotImplementedError

    def _spread(self, rows: torch.Tensor) -> torch.Tensor:
        return (self.copies * rows[:, None] + torch.arange(self.copies, device=rows.device)).flatten()

    def _guided(self, logits: torch.Tensor) -> torch.Tensor:
        if self.copies == 1:
            return logits
        own, null = logits.float().unflatten(0, (-1, 2)).unbind(1)
        return null + self.guidance * (own - null)


class _Cached(_Model):
    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.cache = module.cache(len(self.rows))

    def begin(self) -> torch.Tensor:
        return self._guided(self.module.last(self.rows, self.cache))

    def step(self, said: torch.Tensor) -> torch.Tensor:
        return self._guided(self.module.step(said.repeat_interleave(self.copies), self.cache))

    def keep(self, rows: torch.Tensor) -> None:
        self.cache.keep(self._spread(rows))


class _Uncached(_Model):
    def begin(self) -> torch.Tensor:
        return self._guided(self.module.last(self.rows))

    def step(self, said: torch.Tensor) -> torch.Tensor:
        self.rows = torch.cat((self.rows, said.repeat_interleave(self.copies)[:, None]), 1)
        return self.begin()

    def keep(self, rows: torch.Tensor) -> None:
        self.rows = self.rows[self._spread(rows)]


def _forced(grammar: Grammar, lengths: torch.Tensor | None) -> torch.Tensor:
    """(K + 1,) the length symbol of each block that has to be taken, -1 where any may be drawn."""
    forced = torch.full((grammar.candidates.blocks + 1,), -1)
    if lengths is not None:
        if lengths.ndim != 1 or len(lengths) > grammar.candidates.blocks:
            raise SamplingError(
                f"forced lengths must be at most ({grammar.candidates.blocks},), got {lengths.tolist()}"
            )
        forced[: len(lengths)] = grammar.length_symbols(lengths.cpu())
    return forced


def _check(module: Generator, grammar: Grammar, condition: Condition, seeds: Sequence[int], how: Sampling) -> None:
    config = module.config
    made_for = (config.vocabulary, config.levels, config.longest)
    if made_for != (grammar.vocabulary, grammar.levels, grammar.longest):
        raise SamplingError(
            f"the generator was made for (vocabulary, levels, longest) {made_for}, the grammar has "
            f"{(grammar.vocabulary, grammar.levels, grammar.longest)}"
        )
    if len(seeds) != len(condition) or not len(seeds):
        raise SamplingError(f"one seed a condition is needed: {len(seeds)} seeds for {len(condition)} conditions")
    if how.guidance != 1 and not config.classes:
        raise SamplingError(f"guidance {how.guidance} needs a generator with classes; without them it must be 1")
