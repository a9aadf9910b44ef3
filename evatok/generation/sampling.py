"""Sample sequences from a generator: KV cache, guidance, temperature, top-k, top-p, and only legal symbols.

Every sample draws its random numbers from its own seed, so they depend neither on the batch nor on its size. (The last
bits of logits do, as matrix products sum in another order for another number of rows.) Batching is continuous
(`evatok.generation.batching`), so time grows with the number of symbols, not with the longest sample.

Legend: B requests, K temporal blocks, k blocks of forced length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from evatok.generation.batching import ContinuousBatch
from evatok.generation.drawing import Sampling, SamplingError
from evatok.generation.engines import engine_for
from evatok.generation.grammar import Grammar
from evatok.generation.order import OrderedGrammar
from evatok.generation.transformer import Condition, Generator
from evatok.tokenizers.codes import Codes

__all__ = ["Sampling", "SamplingError", "sample"]


@torch.no_grad()
def sample(
    module: Generator,
    grammar: Grammar | OrderedGrammar,
    condition: Condition,
    seeds: Sequence[int],
    options: Sampling,
    *,
    batch: int = 64,
    prefix_lengths: torch.Tensor | None = None,
    cached: bool = True,
    tick: Callable[[int], Any] | None = None,
    finished: Callable[[list[int], Codes], Any] | None = None,
) -> Codes:
    """Sample one sequence per condition and seed; returns their codes on the module's device.

    Args:
        condition: of B requests.
        seeds: (B,), not negative.
        batch: requests that run at once; the others wait to be admitted.
        prefix_lengths: (k,) token counts forced on the first k blocks; the others are drawn.
        cached: use a KV cache; without it, all keys and values are recomputed for every symbol.
        tick: called with the number of requests that have just finished.
        finished: called with the indices of these requests and their codes.

    Raises:
        SamplingError: not one seed per condition, a batch below 1, guidance without classes, a generator made for
            another grammar, more forced lengths than blocks, or logits that are not finite.
        GrammarError: a forced length is not one of the levels.
        ValueError: a condition that `Generator.prefix` rejects.
    """
    _check(module, grammar, condition, seeds, options)
    if batch < 1:
        raise SamplingError(f"batch must be at least 1, got {batch}")
    was_training = module.training
    module.eval()
    try:
        with _precision(module):
            device = module.head.weight.device
            engine = engine_for(module, condition.to(device), options.guidance, cached)
            forced = _forced_symbols(grammar, prefix_lengths).to(device)
            requests = ContinuousBatch(grammar, options, engine, seeds, forced, batch)
            for indices in requests.run():
                if tick is not None:
                    tick(len(indices))
                if finished is not None:
                    finished(indices, grammar.parse(requests.sequences(indices)))
            return grammar.parse(requests.sequences(slice(None)))
    finally:
        module.train(was_training)


def _precision(module: Generator) -> AbstractContextManager[object]:
    """No autocast around weights in bfloat16: it would round a CPU's float32 cache at every step."""
    weight = module.head.weight
    return torch.autocast(weight.device.type, enabled=False) if weight.dtype == torch.bfloat16 else nullcontext()


def _forced_symbols(grammar: Grammar | OrderedGrammar, lengths: torch.Tensor | None) -> torch.Tensor:
    """(K + 1,) length symbol that each block must take, -1 where it is drawn."""
    forced = torch.full((grammar.headers + 1,), -1)
    if lengths is not None:
        if lengths.ndim != 1 or len(lengths) > grammar.headers:
            raise SamplingError(
                f"prefix_lengths must hold at most {grammar.headers} token counts, got {lengths.tolist()}"
            )
        forced[: len(lengths)] = grammar.length_symbols(lengths.cpu())
    return forced


def _check(
    module: Generator,
    grammar: Grammar | OrderedGrammar,
    condition: Condition,
    seeds: Sequence[int],
    options: Sampling,
) -> None:
    config = module.config
    made_for = (config.vocabulary, config.levels, config.longest)
    if made_for != (grammar.vocabulary, grammar.levels, grammar.longest):
        raise SamplingError(
            f"the generator was made for (vocabulary, levels, longest) {made_for}, the grammar has "
            f"{(grammar.vocabulary, grammar.levels, grammar.longest)}"
        )
    if len(seeds) != len(condition) or not len(seeds):
        raise SamplingError(f"one seed per condition is needed: got {len(seeds)} seeds for {len(condition)} conditions")
    if options.guidance != 1 and not config.classes and not config.text:
        raise SamplingError(f"guidance {options.guidance} needs a generator with classes; use guidance=1 without")
