"""Routers: map a clip to logits over all candidate assignments in one pass (EVATok Sec. 3.3).

`ViTRouter` is the paper's: a linear patch embedding, a CLS token, a transformer, one logit per candidate.
`PyramidRouter` sees no pixels, only how much of each block pooling would lose, for training sets too small to learn
that. `FeatureRouter` is a control: a small MLP on obvious statistics.

Legend: B clips, K temporal blocks, P patches per block, N = 1 + K*P tokens, D width, A = m^K candidates.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from einops import rearrange, repeat
from torch import nn

from evatok.assignments.candidates import CandidateSet
from evatok.models.attention import Attention
from evatok.models.dropout import Dropout
from evatok.routing.statistics import CLIP_STATISTICS, PYRAMID_STATISTICS, clip_statistics, pyramid_statistics
from evatok.storage import checkpoints, ranks
from evatok.tokenizers.config import IMAGE_LEVELS


@dataclass(frozen=True)
class RouterConfig:
    """Shape of a router; the defaults are the paper's 19.9M one (facts: 6 layers of width 512).

    Attributes:
        kind: "vit", "pyramid", or "features" for the control.
        head: "joint" (one logit per candidate, the paper's) or "per_block" (m logits per block, summed).
        patch: (frames, height, width).
        dropout: of residual branches, or of an MLP's layers, while training.
    """

    kind: str = "vit"
    levels: tuple[int, ...] = (32, 64, 128, 256, 512)
    frames: int = 16
    size: int = 128
    patch: tuple[int, int, int] = (4, 8, 8)
    width: int = 512
    layers: int = 6
    heads: int = 8
    head: str = "joint"
    dropout: float = 0.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RouterConfig:
        """Build from JSON values, in which tuples are lists."""
        return checkpoints.shaped(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def blocks(self) -> int:
        return self.frames // self.patch[0]

    @property
    def candidates(self) -> CandidateSet:
        return CandidateSet(self.levels, self.blocks)


ROUTER_SIZES: dict[str, RouterConfig] = {
    # Coarser patches than the tokenizer's: 64 tokens per clip, which a CPU trains in minutes.
    "toy": RouterConfig(
        levels=(8, 16, 32, 64, 128), size=64, patch=(4, 16, 16), width=128, layers=4, heads=4, dropout=0.1
    ),
    "small": RouterConfig(width=256, layers=6, heads=4),
    "paper": RouterConfig(),
}

IMAGE_ROUTER_SIZES: dict[str, RouterConfig] = {
    "toy": replace(ROUTER_SIZES["toy"], levels=tuple(level // 4 for level in IMAGE_LEVELS), frames=1, patch=(1, 8, 8)),
    "small": replace(ROUTER_SIZES["small"], levels=IMAGE_LEVELS, frames=1, size=256, patch=(1, 16, 16)),
    "paper": RouterConfig(levels=IMAGE_LEVELS, frames=1, size=256, patch=(1, 16, 16)),
}
"""Routers of images, one of eight levels (supplement H)."""

MODALITIES: dict[str, dict[str, RouterConfig]] = {"video": ROUTER_SIZES, "image": IMAGE_ROUTER_SIZES}


def build_router(config: RouterConfig) -> AnyRouter:
    """Build the router that a configuration names."""
    if config.kind not in _KINDS:
        raise ValueError(f"unknown router {config.kind!r}; choose one of {', '.join(_KINDS)}")
    return _KINDS[config.kind](config)


class CandidateHead(nn.Module):
    """Map features (B, D) to logits (B, A) linearly: directly, or as sums of m logits per block."""

    def __init__(self, config: RouterConfig, width: int) -> None:
        super().__init__()
        if config.head not in ("joint", "per_block"):
            raise ValueError(f"unknown router head {config.head!r}; choose joint or per_block")
        self.per_block = config.head == "per_block"
        self.levels, self.blocks = len(config.levels), config.blocks
        self.linear = nn.Linear(width, self.levels * self.blocks if self.per_block else len(config.candidates))

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        logits = self.linear(x_BD)
        if not self.per_block:
            return logits
        joint = logits.new_zeros(len(logits), 1)
        for block in rearrange(logits, "b (k m) -> k b m", m=self.levels):
            joint = (joint[:, :, None] + block.log_softmax(-1)[:, None, :]).flatten(1)
        return joint


class Router(nn.Module):
    """Base class: maps clips (B, 3, T, H, W) in [0, 1] to logits (B, A).

    `see` extracts inputs without trained parameters, `decide` maps them to logits. If `see` is the same for a clip and
    its mirror image (`MIRROR_BLIND`), a training may compute it once per clip.
    """

    MIRROR_BLIND = False
    config: RouterConfig

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def decide(self, seen: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.decide(self.see(self.checked(clips)))

    def checked(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the clips. Raises ValueError for another shape than the router takes."""
        expected = (3, self.config.frames, self.config.size, self.config.size)
        if tuple(clips.shape[1:]) != expected:
            raise ValueError(f"the router takes clips (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
        return clips


class ViTRouter(Router):
    """The paper's router: a linear embedding of each patch's pixels, a CLS token, a transformer."""

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        self.config = config
        t, h, w = config.patch
        patches = (config.frames // t) * (config.size // h) * (config.size // w)
        self.patch_embedding = nn.Linear(3 * t * h * w, config.width)
        self.cls = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, patches + 1, config.width) * 0.02)
        self.layers = nn.ModuleList(
            RouterLayer(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = CandidateHead(config, config.width)

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        """Cut clips (B, 3, T, H, W) into centred patches (B, K*P, values per patch)."""
        t, h, w = self.config.patch
        return rearrange(clips - 0.5, "b c (k t) (y h) (x w) -> b (k y x) (c t h w)", t=t, h=h, w=w)

    def decide(self, seen: torch.Tensor) -> torch.Tensor:
        patches_BND = self.patch_embedding(seen)
        cls_B1D = repeat(self.cls, "1 1 d -> b 1 d", b=len(seen)).to(patches_BND.dtype)
        x_BND = torch.cat((cls_B1D, patches_BND), dim=1) + self.position
        for layer in self.layers:
            x_BND = layer(x_BND)
        return self.head(self.norm(x_BND[:, 0])).float()


class RouterLayer(nn.Module):
    """Self-attention and MLP, pre-norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = Dropout(dropout)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        normed = self.attention_norm(x_BND)
        x_BND = x_BND + self.dropout(self.attention(normed, self.attention.keys_values(normed)))
        return x_BND + self.dropout(self.mlp(self.mlp_norm(x_BND)))


class StatisticsRouter(Router):
    """An MLP on statistics of the clip, standardised with the training set's.

    The statistics of a clip and its mirror image are equal.

    Args:
        count: number of statistics per clip.
        width, depth: of the MLP's hidden layers.
        noise: standard deviation of the noise on standardised statistics while training.
    """

    MIRROR_BLIND = True

    def __init__(self, config: RouterConfig, count: int, width: int, depth: int, noise: float = 0.0) -> None:
        super().__init__()
        self.config, self.noise = config, noise
        self.standard = Standard(count)
        widths = [count, *[width] * depth]
        layers = [(nn.Linear(a, b), nn.GELU(), Dropout(config.dropout)) for a, b in itertools.pairwise(widths)]
        self.mlp = nn.Sequential(*itertools.chain.from_iterable(layers))
        self.head = CandidateHead(config, width)

    def decide(self, seen: torch.Tensor) -> torch.Tensor:
        x_BS = self.standard(seen)
        if self.training:
            like_BS = x_BS.new_empty(ranks.whole(len(x_BS)), x_BS.shape[1])
            x_BS = x_BS + self.noise * ranks.share(torch.randn_like(like_BS))
        return self.head(self.mlp(x_BS)).float()


class PyramidRouter(StatisticsRouter):
    """An MLP on what pooling would lose of each block, at each length that it could get."""

    def __init__(self, config: RouterConfig) -> None:
        count = config.blocks * (CLIP_STATISTICS + PYRAMID_STATISTICS) + 4
        super().__init__(config, count, width=512, depth=3, noise=0.1)

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        blocks = self.config.blocks
        return torch.cat((clip_statistics(clips, blocks), pyramid_statistics(clips, blocks)), dim=1)


class FeatureRouter(StatisticsRouter):
    """A control: a small MLP on a clip's means, gradients and changes."""

    def __init__(self, config: RouterConfig) -> None:
        super().__init__(config, config.blocks * CLIP_STATISTICS + 4, width=256, depth=1)

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        return clip_statistics(clips, self.config.blocks)


class Standard(nn.Module):
    """Standardise statistics (..., S) with training-set mean and deviation, then clip to [-4, 4]."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    @torch.no_grad()
    def fit(self, statistics: torch.Tensor) -> None:
        """Store mean and deviation of (..., S); constant statistics are not scaled."""
        flat = statistics.flatten(0, -2)
        deviation = flat.std(0)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(torch.where(deviation > 1e-4, deviation, torch.ones_like(deviation)))

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        # Clips of another kind lie far outside the training distribution, where the MLP must not extrapolate.
        return ((statistics - self.mean) / self.deviation).clamp(-4, 4)


AnyRouter = ViTRouter | PyramidRouter | FeatureRouter
_KINDS: dict[str, type[AnyRouter]] = {
    "vit": ViTRouter,
    "pyramid": PyramidRouter,
    "features": FeatureRouter,
}
