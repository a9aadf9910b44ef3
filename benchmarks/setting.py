"""What every measurement is given: a device, networks of one size, and how long to look.

Weights are random unless a measurement says otherwise: they cost what trained ones cost. Lengths are those a router
gives: the best assignments of the shipped candidate table at the weight which saves what the paper's router saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from evatok.assignments import reward
from evatok.assignments.candidates import CandidateSet
from evatok.data.clips import ClipSource, stream, to_network
from evatok.data.sets import source
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.models.precision import autocast
from evatok.routing.networks import ROUTER_SIZES, RouterConfig
from evatok.search import candidate_table
from evatok.storage.environment import REPOSITORY
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig

TABLE = REPOSITORY / "results" / "tables" / "candidates" / "freedoom-validation.parquet"
SAVED = 721 / 1024
"""Tokens of the paper's router over those of its uniform row (main Table 1)."""


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        size: of the networks, by name; the record's status.
        generator: fields of GeneratorConfig beside what the grammar decides.
        source: embedded clips, for those measurements that need real ones.
        batch: clips a pass of the tokenizer.
        network_clips: clips a pass of the large frozen networks (I3D, LPIPS).
        samples: sequences that are sampled side by side.
        repeats: turns of each measurement.
        at_least: seconds a turn lasts.
        bf16: autocast, except where precisions are compared.
        compiled: measure torch.compile as well, which takes minutes.
    """

    device: str = "cpu"
    size: str = "toy"
    tokenizer: TokenizerConfig = TOKENIZER_SIZES["toy"]
    router: RouterConfig = ROUTER_SIZES["toy"]
    generator: dict[str, int] = field(default_factory=lambda: dict(GENERATOR_SIZES["toy"]))
    source: ClipSource = field(default_factory=lambda: source("freedoom"))
    batch: int = 64
    network_clips: int = 4
    samples: int = 32
    repeats: int = 3
    at_least: float = 0.05
    bf16: bool = True
    compiled: bool = False

    @classmethod
    def of(cls, device: str, size: str, *, bf16: bool = True, compiled: bool = False, repeats: int = 3) -> Setting:
        """The setting of a named size. Raises ValueError for another name."""
        if size not in TOKENIZER_SIZES:
            raise ValueError(f"unknown size {size!r}: {', '.join(TOKENIZER_SIZES)}")
        generator = GENERATOR_SIZES["L" if size == "paper" else size]
        return cls(
            device=device,
            size=size,
            tokenizer=TOKENIZER_SIZES[size],
            router=ROUTER_SIZES[size],
            generator=dict(generator),
            batch=64 if device == "cuda" or size == "toy" else 4,
            network_clips=32 if device == "cuda" else 4,
            samples=64 if device == "cuda" else 32,
            repeats=repeats,
            bf16=bf16,
            compiled=compiled,
        )

    def autocast(self, enabled: bool | None = None) -> torch.autocast:
        """bfloat16 where this setting has it, or where `enabled`."""
        return autocast(self.device, self.bf16 if enabled is None else enabled)

    def within(self, work: Callable[[], object], *, bf16: bool | None = None) -> Callable[[], object]:
        """`work` without gradients, in this setting's precision."""

        def run() -> object:
            with torch.no_grad(), self.autocast(bf16):
                return work()

        return run

    @property
    def uniform(self) -> tuple[int, ...]:
        """The row to which the router's lengths are compared: the fixed-length baseline."""
        return (self.tokenizer.candidates.baseline,) * self.tokenizer.candidates.blocks

    @property
    def groups(self) -> int:
        """Groups of like length a batch is run in: as many as the trainings' default, fewer for a small batch."""
        return max(2, min(4, self.batch // 8))

    def with_tokenizer(self, **changes: object) -> Setting:
        """The same with another shape of tokenizer."""
        return replace(self, tokenizer=replace(self.tokenizer, **changes))  # type: ignore[arg-type]


def tokenizer_of(setting: Setting) -> AdaptiveTokenizer:
    """An untrained tokenizer, the same at every call, frozen."""
    torch.manual_seed(0)
    return AdaptiveTokenizer(setting.tokenizer).eval().requires_grad_(False).to(setting.device)


def noise(setting: Setting, clips: int | None = None) -> torch.Tensor:
    """Clips (B, 3, T, H, W) in [0, 1] without content, which costs the same."""
    shape = setting.tokenizer
    made = torch.rand(
        clips or setting.batch, 3, shape.frames, shape.size, shape.size, generator=torch.Generator().manual_seed(0)
    )
    return made.to(setting.device)


def real_clips(setting: Setting, count: int) -> torch.Tensor:
    """(count, 3, T, H, W) embedded clips, at most one reel."""
    pixels, _ = _reel(setting.source.reel, setting.tokenizer.size, setting.tokenizer.frames)
    return to_network(pixels[:count], setting.device)


@cache
def _reel(make: Callable[..., tuple[np.ndarray, object]], size: int, frames: int) -> tuple[np.ndarray, object]:
    return make(stream("validation", 0), 0, size, frames)


def uniform_lengths(setting: Setting) -> torch.Tensor:
    """(B, K) the uniform row for a batch."""
    return expand_assignment(setting.uniform, setting.batch).to(setting.device)


def router_lengths(setting: Setting) -> torch.Tensor:
    """(B, K) lengths for a batch, evenly spread over the distribution, in an order drawn once."""
    rows = _distribution(setting.tokenizer, SAVED * sum(setting.uniform))
    spread = np.linspace(0, len(rows) - 1, setting.batch).round().astype(int)
    order = np.random.default_rng(0).permutation(setting.batch)
    return torch.from_numpy(rows[spread[order]]).to(setting.device)


@cache
def _distribution(config: TokenizerConfig, tokens: float) -> np.ndarray:
    """(N, K) the best assignments of the table's clips that average about `tokens`, from the fewest to the most.

    Levels are matched by their number. Another number of levels or blocks than the table's is cut or repeated.
    """
    table = candidate_table.read(TABLE)
    theirs, mine = table.candidates, config.candidates
    levels = np.array(mine.levels)[np.minimum(np.arange(len(theirs.levels)), len(mine.levels) - 1)]
    quality = table.quality("l1")
    weight = _weight(quality, theirs, levels, tokens * theirs.blocks / mine.blocks)
    chosen = theirs.row(reward.best(weight))
    digits = np.searchsorted(theirs.levels, np.resize(chosen.T, (mine.blocks, len(chosen))).T)
    rows = levels[digits]
    return rows[rows.sum(1).argsort(kind="stable")]


def _weight(quality: np.ndarray, candidates: CandidateSet, levels: np.ndarray, tokens: float) -> np.ndarray:
    """The proxy reward (N, A) under which the best assignments average about `tokens` of these levels."""
    scale = reward.Scale.of(quality, candidates)
    totals = levels[np.searchsorted(candidates.levels, candidates.rows)].sum(1)
    rewards = [reward.proxy_reward(quality, candidates, scale, w_q) for w_q in np.linspace(0.1, 1.9, 37)]
    return min(rewards, key=lambda table: abs(float(totals[reward.best(table)].mean()) - tokens))
