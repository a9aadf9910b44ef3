"""The autoregressive generator: the gain of its KV cache, and whether fewer tokens take proportionally less time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.ratios import Ratio, interleaved, seconds_of
from benchmarks.setting import Setting, router_lengths
from evatok.generation.grammar import Grammar
from evatok.generation.sampling import Sampling, sample
from evatok.generation.transformer import Condition, Generator, GeneratorConfig
from evatok.tokenizers.codes import Codes

CLASSES = 10


def sampling(setting: Setting) -> list[Ratio]:
    """Seconds per token without a KV cache against with one, under the uniform assignment."""
    grammar = Grammar.of(setting.tokenizer)
    module = generator_of(setting, grammar)
    plain, ours = interleaved(
        sampling_of(setting, module, grammar, fixed=True, cached=False),
        sampling_of(setting, module, grammar, fixed=True),
        device=setting.device,
        repeats=min(3, setting.repeats),
        at_least=0,
    )
    tokens = sum(setting.uniform) * setting.samples
    note = f"without a cache, against with one; {setting.samples} samples side by side, {tokens / ours:,.0f} tokens/s"
    return [Ratio("generator_cache", "wall_seconds_per_token", plain / tokens, ours / tokens, note)]


def few_at_once(setting: Setting) -> list[Ratio]:
    """Samples of uniform length against samples whose lengths are distributed as a router's.

    As in an evaluation, there are many more samples than run at once, so that waiting ones are admitted as others
    finish. A decoding step has a cost that does not depend on the batch, so few and many at once are measured.
    """
    return _adaptive(setting, "generator_adaptive_few", 2 * setting.samples)


def many_at_once(setting: Setting) -> list[Ratio]:
    """The same with four times as many at once."""
    return _adaptive(setting, "generator_adaptive_many", 8 * setting.samples)


def _adaptive(setting: Setting, row: str, batch: int) -> list[Ratio]:
    setting = replace(setting, samples=(8 if setting.device == "cpu" else 3) * batch)
    grammar = Grammar.of(setting.tokenizer)
    module = generator_of(setting, grammar)
    works = [sampling_of(setting, module, grammar, fixed=fixed, batch=batch) for fixed in (True, False)]
    seconds = seconds_of(works, device=setting.device, repeats=min(3, setting.repeats), at_least=0)
    tokens = [sum(setting.uniform) * setting.samples, int(works[1]().lengths.sum())]
    note = f"the uniform row, against lengths drawn as a router gives them; {setting.samples} samples, {batch} at once"
    return [
        Ratio.of(row, "wall_seconds", seconds, note),
        Ratio.of(row, "tokens", tokens, note),
        Ratio(row, "wall_seconds_per_token", seconds[0] / tokens[0], seconds[1] / tokens[1], note),
    ]


def generator_of(setting: Setting, grammar: Grammar) -> Generator:
    """An untrained, frozen generator whose length symbols are as frequent as a router's levels."""
    torch.manual_seed(0)
    shape = {"vocabulary": grammar.vocabulary, "levels": grammar.levels, "longest": grammar.longest}
    module = Generator(GeneratorConfig.from_dict({**shape, **setting.generator, "classes": CLASSES}))
    module.norm = _WithOne(module.norm)  # type: ignore[assignment]
    head = module.head.weight.data
    head[grammar.codebook_size :] = head[:, 0] = 0
    drawn = router_lengths(replace(setting, batch=256)).cpu()
    for number, level in enumerate(setting.tokenizer.levels):
        share = float((drawn == level).float().mean())
        head[grammar.codebook_size + number, 0] = math.log(max(share, 1e-6))
    return module.eval().requires_grad_(False).to(setting.device)


class _WithOne(nn.Module):
    """Features whose first is 1, so that a head without biases can have biases."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        return torch.cat((torch.ones_like(normed[..., :1]), normed[..., 1:]), -1)


def sampling_of(
    setting: Setting, module: Generator, grammar: Grammar, *, fixed: bool, cached: bool = True, batch: int = 64
) -> Callable[[], Codes]:
    classes = torch.arange(setting.samples) % CLASSES
    lengths = torch.tensor(setting.uniform) if fixed else None
    seeds = list(range(setting.samples))
    how: dict[str, Any] = {"batch": batch, "prefix_lengths": lengths, "cached": cached}

    def work() -> Codes:
        # As in evaluations: under autocast, a CPU would cast all weights at every step.
        with setting.autocast(setting.bf16 and setting.device != "cpu"):
            return sample(module, grammar, Condition(classes), seeds, Sampling(), **how)

    return work
