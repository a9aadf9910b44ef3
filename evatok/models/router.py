"""Routers: from a clip to logits over all candidate assignments, in one pass (EVATok Sec. 3.3).

`ViTRouter` is the paper's: a linear patch embedding, a CLS token, a transformer, one logit a candidate.
`FeatureRouter` is a control: a small MLP on hand-made statistics of the clip.

Legend: B clips, K temporal blocks, P patches a block, N = 1 + K*P tokens, D width, A = m^K candidates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from torch import nn

from evatok.assignments import CandidateSet
from evatok.models.attention import Attention


@dataclass(frozen=True)
class RouterConfig:
    """Shape of a router; the defaults are the paper's 19.9M one (facts: 6 layers of width 512).

    Attributes:
        kind: "vit", or "features" for the control.
        head: "joint" (one logit a candidate, the paper's) or "per_block" (m logits a block, summed).
        patch: (frames, height, width) of a patch.
        dropout: of residual branches while training.
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
        """From JSON, where tuples have become lists."""
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def blocks(self) -> int:
        return self.frames // self.patch[0]

    @property
    def candidates(self) -> CandidateSet:
        return CandidateSet(self.levels, self.blocks)


ROUTER_SIZES: dict[str, RouterConfig] = {
    # Coarser patches than the tokenizer's: 64 tokens a clip, which a CPU trains in minutes.
    "toy": RouterConfig(
        levels=(4, 8, 16, 32, 64), size=64, patch=(4, 16, 16), width=128, layers=4, heads=4, dropout=0.1
    ),
    "small": RouterConfig(width=256, layers=6, heads=4),
    "paper": RouterConfig(),
}


def build_router(config: RouterConfig) -> ViTRouter | FeatureRouter:
    """The router a configuration names."""
    if config.kind == "vit":
        return ViTRouter(config)
    if config.kind == "features":
        return FeatureRouter(config)
    raise ValueError(f"unknown router {config.kind!r}: vit or features")


class CandidateHead(nn.Module):
    """Features (B, D) to logits (B, A): a linear map, or one of m logits a block whose sums are the joint ones."""

    def __init__(self, config: RouterConfig, width: int) -> None:
        super().__init__()
        if config.head not in ("joint", "per_block"):
            raise ValueError(f"unknown router head {config.head!r}: joint or per_block")
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


class ViTRouter(nn.Module):
    """The paper's router: clips (B, 3, T, H, W) in [0, 1] to logits (B, A) from a CLS token."""

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

    def patches(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, K*P, values a patch), centred.

        Raises:
            ValueError: clips of another shape than the router's.
        """
        expected = (3, self.config.frames, self.config.size, self.config.size)
        if tuple(clips.shape[1:]) != expected:
            raise ValueError(f"the router takes clips (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
        t, h, w = self.config.patch
        return rearrange(clips - 0.5, "b c (k t) (y h) (x w) -> b (k y x) (c t h w)", t=t, h=h, w=w)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        patches_BND = self.patch_embedding(self.patches(clips))
        cls_B1D = repeat(self.cls, "1 1 d -> b 1 d", b=len(clips)).to(patches_BND.dtype)
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
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        normed = self.attention_norm(x_BND)
        x_BND = x_BND + self.dropout(self.attention(normed, self.attention.remember(normed)))
        return x_BND + self.dropout(self.mlp(self.mlp_norm(x_BND)))


class FeatureRouter(nn.Module):
    """A control: an MLP on statistics anyone can compute, standardised by those of the training clips."""

    WIDTH = 256

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        self.config = config
        count = 2 * (5 * config.blocks + 2)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.mlp = nn.Sequential(nn.Linear(count, self.WIDTH), nn.GELU(), nn.Dropout(config.dropout))
        self.head = CandidateHead(config, self.WIDTH)

    @torch.no_grad()
    def standardise(self, clips: torch.Tensor) -> None:
        """Take mean and deviation of the statistics from training clips; a constant statistic is left unscaled."""
        statistics = clip_statistics(clips, self.config.blocks)
        deviation = statistics.std(0)
        self.mean.copy_(statistics.mean(0))
        self.deviation.copy_(torch.where(deviation > 1e-4, deviation, torch.ones_like(deviation)))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        statistics = (clip_statistics(clips, self.config.blocks) - self.mean) / self.deviation
        return self.head(self.mlp(statistics)).float()


def clip_statistics(clips: torch.Tensor, blocks: int) -> torch.Tensor:
    """(B, 2 * (5K + 2)) statistics of clips (B, 3, T, H, W), and their logarithms.

    A block's mean, spread, spatial gradient, change from frame to frame and change from the block before (zero
    for the first), and the clip's mean and spread.
    """
    x = rearrange(clips, "b c (k t) h w -> b k (c t) h w", k=blocks)
    frames = rearrange(clips, "b c (k t) h w -> b k c t h w", k=blocks)
    per_block = [
        x.mean((2, 3, 4)),
        x.flatten(2).std(2),
        (x.diff(dim=3).abs().mean((2, 3, 4)) + x.diff(dim=4).abs().mean((2, 3, 4))) / 2,
        frames.diff(dim=3).abs().flatten(2).mean(2),
        nn.functional.pad((frames[:, 1:] - frames[:, :-1]).abs().flatten(2).mean(2), (1, 0)),
    ]
    whole = torch.stack((clips.flatten(1).mean(1), clips.flatten(1).std(1)), dim=1)
    statistics = torch.cat((*per_block, whole), dim=1)
    return torch.cat((statistics, (statistics + 1e-4).log()), dim=1)
