"""Common setting of all measurements: device, network size, batch sizes and repeats.

Weights are random unless a measurement says otherwise, as they cost the same as trained ones. Lengths are distributed
as a router's: the best assignments of the shipped candidate table, at the weight that saves what the paper's router
saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from benchmarks.ratios import seconds_of
from evatok.assignments import reward
from evatok.assignments.candidates import CandidateSet
from evatok.data.clips import to_network
from evatok.data.reels import ClipSource, stream
from evatok.data.sets import source
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.models.precision import autocast
from evatok.routing.networks import ROUTER_SIZES, RouterConfig
from evatok.search import candidate_table
from evatok.storage.environment import REPOSITORY
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, VideoFlexTokConfig

TABLE = REPOSITORY / "results" / "tables" / "candidates" / "freedoom-validation.parquet"
SAVED = 721 / 1024
"""Tokens of the paper's router over those of its uniform baseline (main Table 1)."""


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        size: name of the networks' size; the record's status.
        generator: fields of GeneratorConfig that the grammar does not determine.
        flexible: VideoFlexTok's network of that size; its clips and latents become those of `tokenizer`.
        source: embedded clips, for measurements that need real ones.
        batch: clips per pass of the tokenizer.
        network_clips: clips per pass of the large frozen networks (I3D, LPIPS).
        samples: sequences to sample.
        files: small videos of a training's listing.
        repeats: turns per measurement.
        at_least: minimum seconds per turn.
        bf16: bfloat16 autocast, except where precisions are compared.
        compiled: also measure torch.compile, which takes minutes.
    """

    device: str = "cpu"
    size: str = "toy"
    tokenizer: TokenizerConfig = TOKENIZER_SIZES["toy"]
    router: RouterConfig = ROUTER_SIZES["toy"]
    generator: dict[str, int] = field(default_factory=lambda: dict(GENERATOR_SIZES["toy"]))
    flexible: VideoFlexTokConfig = VIDEOFLEXTOK_SIZES["toy"]
    source: ClipSource = field(default_factory=lambda: source("freedoom"))
    batch: int = 64
    network_clips: int = 4
    samples: int = 32
    files: int = 10_000
    repeats: int = 3
    at_least: float = 0.05
    bf16: bool = True
    compiled: bool = False

    @classmethod
    def of(cls, device: str, size: str, *, bf16: bool = True, compiled: bool = False, repeats: int = 3) -> Setting:
        """Build the setting of a named size. Raises ValueError for an unknown name."""
        if size not in TOKENIZER_SIZES:
            raise ValueError(f"unknown size {size!r}: {', '.join(TOKENIZER_SIZES)}")
        generator = GENERATOR_SIZES["L" if size == "paper" else size]
        return cls(
            device=device,
            size=size,
            tokenizer=TOKENIZER_SIZES[size],
            router=ROUTER_SIZES[size],
            generator=dict(generator),
            flexible=VIDEOFLEXTOK_SIZES[size],
            batch=64 if device == "cuda" or size == "toy" else 4,
            network_clips=32 if device == "cuda" else 4,
            samples=64 if device == "cuda" else 32,
            repeats=repeats,
            bf16=bf16,
            compiled=compiled,
        )

    def autocast(self, enabled: bool | None = None) -> torch.autocast:
        """bfloat16 autocast if this setting has it, or as `enabled` says."""
        return autocast(self.device, self.bf16 if enabled is None else enabled)

    def within(self, work: Callable[[], object], *, bf16: bool | None = None) -> Callable[[], object]:
        """Wrap `work` to run without gradients in this setting's precision."""

        def run() -> object:
            with torch.no_grad(), self.autocast(bf16):
                return work()

        return run

    def seconds(self, *passes: Callable[[], object], bf16: bool | None = None) -> list[float]:
        """Median seconds of each pass, run alternately `within` this setting."""
        within = [self.within(each, bf16=bf16) for each in passes]
        return seconds_of(within, device=self.device, repeats=self.repeats, at_least=self.at_least)

    @property
    def uniform(self) -> tuple[int, ...]:
        """The uniform assignment that the router's lengths are compared with: the fixed-length baseline."""
        return (self.tokenizer.candidates.baseline,) * self.tokenizer.candidates.blocks

    @property
    def groups(self) -> int:
        """Number of groups of similar length per batch: the trainings' default, fewer for small batches."""
        return max(2, min(4, self.batch // 8))

    def with_tokenizer(self, **changes: object) -> Setting:
        """Change the tokenizer's shape."""
        return replace(self, tokenizer=replace(self.tokenizer, **changes))  # type: ignore[arg-type]


def tokenizer_of(setting: Setting) -> AdaptiveTokenizer:
    """An untrained, frozen tokenizer, the same in every call."""
    torch.manual_seed(0)
    return AdaptiveTokenizer(setting.tokenizer).eval().requires_grad_(False).to(setting.device)


def noise(setting: Setting, clips: int | None = None) -> torch.Tensor:
    """Noise clips (B, 3, T, H, W) in [0, 1], which cost the same as real ones."""
    shape = setting.tokenizer
    made = torch.rand(
        clips or setting.batch, 3, shape.frames, shape.size, shape.size, generator=torch.Generator().manual_seed(0)
    )
    return made.to(setting.device)


def real_clips(setting: Setting, count: int) -> torch.Tensor:
    """Embedded clips (count, 3, T, H, W), at most one reel."""
    pixels, _ = _reel(setting.source.reel, setting.tokenizer.size, setting.tokenizer.frames)
    return to_network(pixels[:count], setting.device)


@cache
def _reel(make: Callable[..., tuple[np.ndarray, object]], size: int, frames: int) -> tuple[np.ndarray, object]:
    return make(stream("validation", 0), 0, size, frames)


def uniform_lengths(setting: Setting) -> torch.Tensor:
    """The uniform assignment for a batch (B, K)."""
    return expand_assignment(setting.uniform, setting.batch).to(setting.device)


def router_lengths(setting: Setting) -> torch.Tensor:
    """Lengths for a batch (B, K), evenly spread over a router's distribution, in a fixed random order."""
    rows = _distribution(setting.tokenizer, SAVED * sum(setting.uniform))
    spread = np.linspace(0, len(rows) - 1, setting.batch).round().astype(int)
    order = np.random.default_rng(0).permutation(setting.batch)
    return torch.from_numpy(rows[spread[order]]).to(setting.device)


@cache
def _distribution(config: TokenizerConfig, tokens: float) -> np.ndarray:
    """Best assignments (N, K) of the table's clips that average about `tokens`, in ascending order.

    Levels are matched by index; a different number of levels or blocks is truncated or repeated.
    """
    table = candidate_table.read(TABLE)
    table_set, target_set = table.candidates, config.candidates
    levels = np.array(target_set.levels)[np.minimum(np.arange(len(table_set.levels)), len(target_set.levels) - 1)]
    quality = table.quality("l1")
    weight = _weight(quality, table_set, levels, tokens * table_set.blocks / target_set.blocks)
    chosen = table_set.row(reward.best(weight))
    digits = np.searchsorted(table_set.levels, np.resize(chosen.T, (target_set.blocks, len(chosen))).T)
    rows = levels[digits]
    return rows[rows.sum(1).argsort(kind="stable")]


def _weight(quality: np.ndarray, candidates: CandidateSet, levels: np.ndarray, tokens: float) -> np.ndarray:
    """Find the proxy reward (N, A) whose best assignments average about `tokens` of these levels."""
    scale = reward.Scale.of(quality, candidates)
    totals = levels[np.searchsorted(candidates.levels, candidates.rows)].sum(1)
    rewards = [reward.proxy_reward(quality, candidates, scale, w_q) for w_q in np.linspace(0.1, 1.98, 189)]
    return min(rewards, key=lambda table: abs(float(totals[reward.best(table)].mean()) - tokens))
