"""The autoregressive generator: the gain of its KV cache, and whether fewer tokens take proportionally less time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.ratios import Ratio, once, seconds_of
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
    works = [sampling_of(setting, module, grammar, fixed=True, cached=cached) for cached in (False, True)]
    plain, ours = timed(setting, works)
    tokens = sum(setting.uniform) * setting.samples
    note = f"without a cache, against with one; {setting.samples} samples side by side, {tokens / ours:,.0f} tokens/s"
    ratios = [Ratio("generator_cache", "wall_seconds_per_token", plain / tokens, ours / tokens, note)]
    return ratios + _bandwidth(setting, module, ours)


BANDWIDTHS = {"H100 PCIe": 2.0e12, "H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12, "V100": 0.9e12}
"""Bytes per second from a GPU's memory, by a part of its name."""


def _bandwidth(setting: Setting, module: Generator, seconds: float) -> list[Ratio]:
    """Share of the memory's bandwidth: a step reads all weights, and the keys and values of all sequences."""
    name = torch.cuda.get_device_name() if setting.device == "cuda" else ""
    bandwidth = next((each for part, each in BANDWIDTHS.items() if part in name), None)
    if bandwidth is None:
        return []
    note = "bandwidth used: seconds the weights, keys and values take from the memory, against those of the sampling"
    least = bytes_read(module, setting.samples) / bandwidth
    return [Ratio("generator_cache", "seconds_at_bandwidth", least, seconds, note)]


def bytes_read(module: Generator, samples: int) -> int:
    """Bytes that decoding of `samples` sequences of full length at once must read, weights once per step."""
    config, size = module.config, module.head.weight.element_size()
    weights = size * sum(weight.numel() for name, weight in module.named_parameters() if name != "embedding.weight")
    position = 2 * config.layers * config.width * size
    steps = config.longest
    return steps * weights + samples * position * steps * (steps + 1) // 2


def timed(setting: Setting, works: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each; on a GPU, where one takes up to a minute, once and not warmed up."""
    if setting.device != "cpu":
        return [once(work, setting.device) for work in works]
    return seconds_of(works, device=setting.device, repeats=min(3, setting.repeats), at_least=0)


def precision(setting: Setting) -> list[Ratio]:
    """Seconds at a router's lengths with weights in float32, against bfloat16."""
    setting = replace(setting, samples=2 * setting.samples)
    grammar = Grammar.of(setting.tokenizer)
    exact, rounded = (generator_of(setting, grammar, dtype) for dtype in (torch.float32, torch.bfloat16))
    works = [sampling_of(setting, module, grammar, fixed=False) for module in (exact, rounded)]
    made = [Counted(work) for work in works]
    seconds = timed(setting, made)
    note = f"weights in float32, against bfloat16 (attention on a CPU in float32); {setting.samples} samples at once"
    per_token = [each / work.tokens for each, work in zip(seconds, made, strict=True)]
    return [Ratio.of("generator_bf16", "wall_seconds_per_token", per_token, note)]


def refills(setting: Setting, waves: int = 4) -> list[Ratio]:
    """Seconds at a router's lengths in batches that each wait for their longest, against refills at once."""
    batch, grammar = setting.samples, Grammar.of(setting.tokenizer)
    setting = replace(setting, samples=waves * batch)
    module = generator_of(setting, grammar)
    ours = sampling_of(setting, module, grammar, fixed=False, batch=batch)

    def one_after_the_other() -> None:
        for first in range(0, setting.samples, batch):
            sampling_of(setting, module, grammar, fixed=False, batch=batch, rows=range(first, first + batch))()

    seconds = timed(setting, [one_after_the_other, ours])
    note = f"batches that wait for their longest, against refills; {setting.samples} samples, {batch} at once"
    return [Ratio.of("generator_refills", "wall_seconds", seconds, note)]


def batches(setting: Setting) -> list[Ratio]:
    """Seconds per token at a router's lengths with 64 at once, the default, against fewer and more."""
    default = 2 * setting.samples
    others = [max(1, default // 4), max(1, default // 2), 2 * default]
    setting = replace(setting, samples=4 * default)
    grammar = Grammar.of(setting.tokenizer)
    module = generator_of(setting, grammar)
    works = [sampling_of(setting, module, grammar, fixed=False, batch=batch) for batch in (default, *others)]
    made = [Counted(work) for work in works]
    usual, *its = (each / work.tokens for each, work in zip(timed(setting, made), made, strict=True))
    note = f"{default} at once, against {{}}; {setting.samples} samples"
    return [
        Ratio("generator_batch", f"wall_seconds_per_token_{batch}", usual, seconds, note.format(batch))
        for batch, seconds in zip(others, its, strict=True)
    ]


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
    setting = replace(setting, samples=(8 if setting.device == "cpu" else 2) * batch)
    grammar = Grammar.of(setting.tokenizer)
    module = generator_of(setting, grammar)
    works = [Counted(sampling_of(setting, module, grammar, fixed=fixed, batch=batch)) for fixed in (True, False)]
    seconds = timed(setting, works)
    tokens = [work.tokens for work in works]
    note = f"the uniform row, against lengths drawn as a router gives them; {setting.samples} samples, {batch} at once"
    ratios = [
        Ratio.of(row, "wall_seconds", seconds, note),
        Ratio.of(row, "tokens", tokens, note),
        Ratio(row, "wall_seconds_per_token", seconds[0] / tokens[0], seconds[1] / tokens[1], note),
    ]
    saved = [1 - ours / uniform for uniform, ours in (seconds, tokens)]
    if min(saved) > 0:
        shares = f"share of the time saved, against share of the tokens saved: 1 is in proportion; {note}"
        ratios.append(Ratio.of(row, "share_saved", saved, shares))
    return ratios


class Counted:
    """A sampling run that counts its tokens."""

    def __init__(self, work: Callable[[], Codes]) -> None:
        self.work, self.tokens = work, 0

    def __call__(self) -> None:
        self.tokens = int(self.work().lengths.sum())


def generator_of(setting: Setting, grammar: Grammar, dtype: torch.dtype | None = None) -> Generator:
    """An untrained, frozen generator whose length symbols are as frequent as a router's levels.

    Weights are in the precision of evaluations, float32 on a CPU, unless `dtype` says otherwise.
    """
    if dtype is None:
        dtype = torch.bfloat16 if setting.bf16 and setting.device != "cpu" else torch.float32
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
    return module.eval().requires_grad_(False).to(setting.device, dtype)


class _WithOne(nn.Module):
    """Features whose first is 1, so that a head without biases can have biases."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        return torch.cat((torch.ones_like(normed[..., :1]), normed[..., 1:]), -1)


def sampling_of(
    setting: Setting,
    module: Generator,
    grammar: Grammar,
    *,
    fixed: bool,
    cached: bool = True,
    batch: int = 64,
    rows: Sequence[int] | None = None,
) -> Callable[[], Codes]:
    """Sampling of `rows`, by default all of the setting's: uniform lengths if `fixed`, else drawn."""
    seeds = list(range(setting.samples) if rows is None else rows)
    classes = torch.tensor(seeds) % CLASSES
    lengths = torch.tensor(setting.uniform) if fixed else None
    how: dict[str, Any] = {"batch": batch, "prefix_lengths": lengths, "cached": cached}
    return lambda: sample(module, grammar, Condition(classes), seeds, Sampling(), **how)
