"""Sampling from a generator: a key/value cache, guidance, temperature, top-k, top-p, and legal symbols only.

Every sample has its own seed, from which all its random numbers come, so that they depend neither on the batch nor on
its size. (Logits do in their last bits, as matrix products are summed in another order for another number of rows.)
A sample that is whole leaves at once and a waiting one takes its room, so nobody computes until the longest has ended,
and the time follows the number of symbols.

Legend: B samples, n those that grow now, V vocabulary, v a part of it, D width, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from evatok.errors import EvatokError
from evatok.generation.grammar import Grammar, Progress, Sequences
from evatok.generation.kv_cache import Cache
from evatok.generation.transformer import FILLED, Condition, Generator
from evatok.tokenizers.codes import Codes


class SamplingError(EvatokError, ValueError):
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
    rows: int = 64,
    prefix_lengths: torch.Tensor | None = None,
    cached: bool = True,
    tick: Callable[[int], Any] | None = None,
    whole: Callable[[list[int], Codes], Any] | None = None,
) -> Codes:
    """Codes of one sample a seed, on the module's device.

    Args:
        condition: of B samples.
        seeds: (B,) not negative.
        rows: samples that grow at once; the others wait for their room.
        prefix_lengths: (k,) token counts of the first k blocks, where they are not drawn.
        cached: keep keys and values; without, everything is computed again for every symbol.
        tick: called with the number of samples that have become whole.
        whole: called with the numbers of these samples and their codes.

    Raises:
        SamplingError: not one seed a condition, less than one row, guidance without classes, a module made for another
            grammar, more forced lengths than blocks, or logits that are not finite.
        GrammarError: a forced length is no level.
        ValueError: a condition that `Generator.prefix` refuses.
    """
    _check(module, grammar, condition, seeds, how)
    if rows < 1:
        raise SamplingError(f"rows must be at least 1, got {rows}")
    was_training = module.training
    module.eval()
    try:
        device = module.head.weight.device
        model = _model(module, condition.to(device), how.guidance, rows, cached)
        forced = _forced(grammar, prefix_lengths).to(device)
        growth = _Growth(grammar, how, model, seeds, forced, rows)
        for done in growth.run():
            if tick is not None:
                tick(len(done))
            if whole is not None:
                whole(done, grammar.parse(growth.sequences(done)))
        return grammar.parse(growth.sequences(slice(None)))
    finally:
        module.train(was_training)


class _Growth:
    """Samples that grow by one symbol at a time, each at its own place; those that are whole make room for the next.

    Attributes:
        rows: samples that grow at once, at most.
        started: samples that have begun; the others wait, in their order.
        growing: (n,) numbers of the samples that are not whole yet.
        places: (n,) symbols of each of them so far.
        uniform: (n, longest) their random numbers, one per symbol.
        finite: whether all logits so far were finite; a tensor, so that a GPU is not waited for at every symbol.
    """

    def __init__(
        self, grammar: Grammar, how: Sampling, model: _Model, seeds: Sequence[int], forced: torch.Tensor, rows: int
    ) -> None:
        self.grammar, self.how, self.model, self.forced = grammar, how, model, forced
        self.seeds, self.rows, self.started, self.device = seeds, rows, 0, forced.device
        self.symbols = torch.zeros(len(seeds), grammar.longest, dtype=torch.int64, device=self.device)
        self.counts, self.growing, self.places = (self.symbols.new_zeros(n) for n in (len(seeds), 0, 0))
        self.uniform = torch.zeros(0, grammar.longest, dtype=torch.float64, device=self.device)
        self.progress = grammar.start(0, self.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)

    def run(self) -> Iterator[list[int]]:
        """Numbers of samples, as they become whole. While everybody is within a block nothing has to be looked at."""
        self._begin(self._room())
        said, quiet = self.growing[:0], 0
        while len(self.growing):
            features = self.model.step(said)
            said = self._say_codes(features) if quiet > 0 else self._say_any(features)
            quiet -= 1
            if quiet > 0:
                continue
            stay, done = self._let_go()
            if done:
                said = said[stay]
                yield done
            self._begin(self._room())
            quiet = int(self.progress.codes_left.min()) if len(self.growing) else 0

    def sequences(self, numbers: list[int] | slice) -> Sequences:
        """Samples `numbers`, which are whole."""
        return Sequences(self.symbols[numbers], self.counts[numbers])

    def _room(self) -> int:
        """How many samples begin now: none until there is room for several, who then are a group."""
        waiting = len(self.seeds) - self.started
        room = min(self.rows - len(self.growing), waiting)
        return room if room >= min(self.model.together(self.rows), waiting) else 0

    def _begin(self, count: int) -> None:
        """The samples that have waited longest become the last rows."""
        if not count:
            return
        own = range(self.started, self.started + count)
        numbers = np.stack([np.random.default_rng(self.seeds[number]).random(self.grammar.longest) for number in own])
        new = torch.tensor(own, device=self.device)
        self.growing = torch.cat((self.growing, new))
        self.places = torch.cat((self.places, torch.zeros_like(new)))
        self.uniform = torch.cat((self.uniform, torch.from_numpy(numbers).to(self.device)))
        self.progress = _joined(self.progress, self.grammar.start(count, self.device))
        self.started += count
        self.model.begin(slice(own.start, own.stop))

    def _say_codes(self, features: torch.Tensor) -> torch.Tensor:
        said = self._draw(features, slice(0, self.grammar.codebook_size), self._next_uniform())
        self.progress = self.progress.coded(1)
        return self._written(said)

    def _say_any(self, features: torch.Tensor) -> torch.Tensor:
        """Codes or length symbols, as each sample needs: no logit is computed that could not be drawn."""
        grammar, wants_length, uniform = self.grammar, self.progress.wants_length, self._next_uniform()
        codes, lengths = slice(0, grammar.codebook_size), slice(grammar.codebook_size, grammar.vocabulary)
        said = torch.zeros_like(self.growing)
        for wanting, symbols in ((~wants_length, codes), (wants_length, lengths)):
            rows = wanting.nonzero()[:, 0]
            if len(rows):
                said[rows] = self._draw(features[rows], symbols, uniform[rows])
        self._refuse_infinite()
        wanted = self.forced[grammar.candidates.blocks - self.progress.blocks_left]
        said = torch.where(wants_length & (wanted >= 0), wanted, said)
        self.progress = grammar.advance(self.progress, said)
        return self._written(said)

    def _next_uniform(self) -> torch.Tensor:
        return self.uniform.gather(1, self.places[:, None])

    def _written(self, said: torch.Tensor) -> torch.Tensor:
        self.symbols[self.growing, self.places] = said
        self.places = self.places + 1
        return said

    def _draw(self, features: torch.Tensor, symbols: slice, uniform: torch.Tensor) -> torch.Tensor:
        """(n,) drawn of `symbols`, behind features (n, copies, D), with random numbers (n, 1)."""
        count = len(features)
        if self.device.type == "cpu":
            features, uniform = (_filled_up(rows) for rows in (features, uniform))
        weights = _weights(self.model.logits(features, symbols).float(), self.how)
        drawn, total = _inverse(weights, uniform)
        self.finite = self.finite & total.isfinite().all()
        return symbols.start + drawn[:count]

    def _let_go(self) -> tuple[torch.Tensor, list[int]]:
        """Part with whole samples: (n,) the rows that stay, in their new order, and the numbers of those samples."""
        self._refuse_infinite()
        done = self.progress.done
        gone = self.growing[done]
        if not len(gone):
            return torch.arange(len(done), device=self.device), []
        self.counts[gone] = self.places[done]
        stay = torch.tensor(self.model.keep((~done).tolist()), dtype=torch.int64, device=self.device)
        self.growing, self.places = self.growing[stay], self.places[stay]
        self.uniform, self.progress = self.uniform[stay], self.progress.keep(stay)
        return stay, gone.tolist()

    def _refuse_infinite(self) -> None:
        if not self.finite:
            place = int(self.places.max())
            raise SamplingError(f"logits are not finite at symbol {place} or before: are the weights sound?")


def _weights(logits: torch.Tensor, how: Sampling) -> torch.Tensor:
    """Logits (n, V) to what probabilities are proportional to, by temperature, then top-k, then top-p.

    The logits are overwritten: for a large codebook fresh memory costs as much as the exponentials.
    """
    if how.temperature != 1:
        logits.div_(how.temperature)
    if 0 < how.top_k < logits.shape[1]:
        least = logits.topk(how.top_k).values[:, -1:]
        logits.masked_fill_(logits < least, -torch.inf)
    weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    if how.top_p == 1:
        return weights
    ordered, order = weights.sort(-1, descending=True)
    together = ordered.cumsum(-1, dtype=torch.float64)
    kept = together - ordered < how.top_p * together[:, -1:]
    return torch.zeros_like(weights).scatter(-1, order, ordered * kept)


def _filled_up(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, ...) with zeros behind them, up to a multiple of FILLED."""
    spare = -len(rows) % FILLED
    return torch.cat((rows, rows.new_zeros(spare, *rows.shape[1:]))) if spare else rows


_STRETCH = 128
"""Columns that `_inverse` sums up before it looks more closely."""


def _inverse(weights: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns (n,) by the inverse of the cumulative distribution, and what the weights add up to (n, 1), in float64.

    First the stretch of columns is found, then the column within it: only the stretches' sums and one stretch have to
    be added up one after the other, where a large codebook has thousands of columns.

    Args:
        weights: (n, V) from 0 up.
        uniform: (n, 1) from 0 to below 1, float64.
    """
    spare = -weights.shape[1] % _STRETCH
    padded = F.pad(weights, (0, spare)) if spare else weights
    stretches = padded.unflatten(1, (-1, _STRETCH))
    ends = stretches.sum(2).cumsum(1, dtype=torch.float64)
    total = ends[:, -1:]
    target = uniform * total
    stretch = _first_above(ends, target)
    before = torch.where(stretch > 0, ends.gather(1, (stretch - 1).clamp_min(0)), 0)
    within = stretches[torch.arange(len(weights), device=weights.device), stretch[:, 0]].cumsum(1, dtype=torch.float64)
    found = stretch * _STRETCH + _first_above(within, target - before)
    return found[:, 0].clamp_max(weights.shape[1] - 1), total


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(n, 1) first column whose sum (n, m) exceeds the target (n, 1): one that adds to it.

    Where the sums are not positive and finite it is any column; such logits are refused later.
    """
    last = cumulative[:, -1:]
    # Rounding must not lead behind the last column that has a weight at all.
    target = target.minimum(last.nextafter(torch.zeros_like(last)))
    return torch.searchsorted(cumulative, target, right=True).clamp_max(cumulative.shape[1] - 1)


def _joined(one: Progress, other: Progress) -> Progress:
    """One behind the other."""
    left = (one.blocks_left, other.blocks_left), (one.codes_left, other.codes_left)
    return Progress(*(torch.cat(pair) for pair in left))


def _closed_up(stay: list[bool]) -> list[int]:
    """(n,) rows that stay, where the last ones fill the gaps of those that go: little of a cache has to move."""
    count = sum(stay)
    later = (row for row in range(count, len(stay)) if stay[row])
    return [row if stay[row] else next(later) for row in range(count)]


class _Model:
    """Features of the next symbol, and logits of these.

    With guidance, every sample has a second row, of the null class, behind its own.

    Samples that began together, and so stand at one place, are a group.

    Attributes:
        prefixes: (B, copies, P) rows of the embedding table in front of the samples.
        sizes: samples in each group.
        entering: last rows of the prefixes of the samples that begin with the next step. So far only what is before
            them was read: classes alone need no pass of their own.
    """

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        self.module, self.guidance = module, guidance
        self.copies = 1 if guidance == 1 else 2
        everyone = torch.ones(len(condition), dtype=torch.bool, device=module.head.weight.device)
        prefixes = [module.prefix(condition), module.prefix(condition, drop=everyone)][: self.copies]
        self.prefixes = torch.stack(prefixes, 1)
        self.sizes: list[int] = []
        self.entering = self.prefixes[:0, 0, 0]

    def together(self, rows: int) -> int:
        """How many samples should begin at once, where `rows` grow."""
        return -(-rows // 4)

    def begin(self, samples: slice) -> None:
        """Further samples come behind the others."""
        rows = self.prefixes[samples].flatten(0, 1)
        self.sizes.append(samples.stop - samples.start)
        self._open(rows[:, :-1])
        self.entering = rows[:, -1]

    def step(self, said: torch.Tensor) -> torch.Tensor:
        """Features (n, copies, D) behind one more symbol of each sample but those that began since the last step."""
        rows = torch.cat((said.repeat_interleave(self.copies), self.entering))
        self.entering = self.entering[:0]
        return self._continued(rows).unflatten(0, (-1, self.copies))

    def logits(self, features: torch.Tensor, symbols: slice) -> torch.Tensor:
        """Logits (n, v) of `symbols` behind features (n, copies, D), guided where there are two copies."""
        logits = self.module.logits(features.flatten(0, 1), symbols)
        if self.copies == 1:
            return logits
        own, null = logits.float().unflatten(0, (-1, 2)).unbind(1)
        return null + self.guidance * (own - null)

    def keep(self, stay: list[bool]) -> list[int]:
        """Samples of the rows that `stay` go on; returned are these rows, in their new order."""
        kept, sizes, first = [], [], 0
        for group, size in enumerate(self.sizes):
            rows = _closed_up(stay[first : first + size])
            if len(rows) < size:
                self._shrink(group, [self.copies * row + copy for row in rows for copy in range(self.copies)])
            kept += [first + row for row in rows]
            sizes.append(len(rows))
            first += size
        self._drop([group for group, size in enumerate(sizes) if size])
        self.sizes = [size for size in sizes if size]
        return kept

    def _open(self, rows: torch.Tensor) -> None:
        """A new group of rows (b, P - 1), the prefixes but for their last place."""
        raise NotImplementedError

    def _continued(self, said: torch.Tensor) -> torch.Tensor:
        """Features behind one more row of the embedding table of all rows of all groups."""
        raise NotImplementedError

    def _shrink(self, group: int, rows: list[int]) -> None:
        """Rows `rows` of a group alone go on, in that order."""
        raise NotImplementedError

    def _drop(self, groups: list[int]) -> None:
        """Groups `groups` alone go on; the others have no rows left."""
        raise NotImplementedError


class _Grouped(_Model):
    """A cache a group."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.caches: list[Cache] = []

    def _open(self, rows: torch.Tensor) -> None:
        self.caches.append(self.module.cache(len(rows), even=True))
        self.module.fill(rows, self.caches[-1])

    def _continued(self, said: torch.Tensor) -> torch.Tensor:
        return self.module.step(said, *self.caches)

    def _shrink(self, group: int, rows: list[int]) -> None:
        self.caches[group].keep(rows)

    def _drop(self, groups: list[int]) -> None:
        self.caches = [self.caches[group] for group in groups]


class _Shared(_Model):
    """One cache for all, of whose places a mask shows each row its own: as few kernels as if all moved in step."""

    def __init__(self, module: Generator, condition: Condition, guidance: float, rows: int) -> None:
        super().__init__(module, condition, guidance)
        self.cache = module.cache(self.copies * min(rows, len(condition)))

    def together(self, rows: int) -> int:
        return -(-rows // 8)

    def begin(self, samples: slice) -> None:
        super().begin(samples)
        self.sizes = [sum(self.sizes)]

    def _open(self, rows: torch.Tensor) -> None:
        self.module.fill(rows, self.cache)

    def _continued(self, said: torch.Tensor) -> torch.Tensor:
        return self.module.step(said, self.cache)

    def _shrink(self, group: int, rows: list[int]) -> None:
        self.cache.keep(rows)

    def _drop(self, groups: list[int]) -> None:
        pass


class _Uncached(_Model):
    """The rows said so far of each group, all computed again at every step."""

    def __init__(self, module: Generator, condition: Condition, guidance: float) -> None:
        super().__init__(module, condition, guidance)
        self.said: list[torch.Tensor] = []

    def _open(self, rows: torch.Tensor) -> None:
        self.said.append(rows)

    def _continued(self, said: torch.Tensor) -> torch.Tensor:
        new = said[:, None].split([len(rows) for rows in self.said])
        self.said = [torch.cat(pair, 1) for pair in zip(self.said, new, strict=True)]
        return torch.cat([self.module.last(rows) for rows in self.said])

    def _shrink(self, group: int, rows: list[int]) -> None:
        self.said[group] = self.said[group][rows]

    def _drop(self, groups: list[int]) -> None:
        self.said = [self.said[group] for group in groups]


_GROUPED = {"cpu"}
"""Devices on which attention that reads no masked place is worth a call a group; elsewhere calls are what costs."""


def _model(module: Generator, condition: Condition, guidance: float, rows: int, cached: bool) -> _Model:
    if not cached:
        return _Uncached(module, condition, guidance)
    if module.head.weight.device.type in _GROUPED:
        return _Grouped(module, condition, guidance)
    return _Shared(module, condition, guidance, rows)


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
