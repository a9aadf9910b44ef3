"""Transformer blocks of VideoFlexTok, after FlexTok: pre-norm without gain, q/k norm, gated MLP, adaLN-zero.

A block of width w has 12 w^2 parameters, and separate modulation for tokens and latents another 2 * 6 w^2.

Legend: B clips, N elements, R of them tokens, D width, H heads, C = D / H.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.models.attention import attend


def norm(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm over the last axis in float32, without gain or bias, in the input's precision."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=1e-6).to(x.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention with normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BND: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        q, k, v = rearrange(self.query_key_value(x_BND), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        return self.out(rearrange(attend(norm(q), norm(k), v, mask), "b h n c -> b n (h c)"))


class GatedMLP(nn.Module):
    """SiLU-gated MLP with a hidden width of 8/3 the width, so that it has as many parameters as a plain 4x MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = hidden_width(width)
        self.gate_and_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def hidden_width(width: int) -> int:
    """Return the hidden width of a gated MLP: 8/3 of the width, rounded to a multiple of 8."""
    return 8 * round(width / 3)


class Block(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = SelfAttention(width, heads), GatedMLP(width)

    def forward(self, x_BND: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x_BND = x_BND + self.attention(norm(x_BND), mask)
        return x_BND + self.mlp(norm(x_BND))


class ModulatedBlock(Block):
    """adaLN-zero: the noise level shifts, scales and gates the norms, separately for tokens and latents."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.modulation = nn.Linear(width, 12 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(  # type: ignore[override]  # a block that needs a condition
        self, x_BND: torch.Tensor, mask: torch.Tensor | None, condition_BD: torch.Tensor, tokens: int
    ) -> torch.Tensor:
        """`tokens`: how many elements, counted from the first, are tokens."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self._modulations(condition_BD, x_BND.shape[1], tokens)
        attended = self.attention(norm(x_BND) * (1 + scale) + shift, mask)
        x_BND = x_BND + gate * attended
        return x_BND + gate_mlp * self.mlp(norm(x_BND) * (1 + scale_mlp) + shift_mlp)

    def _modulations(self, condition_BD: torch.Tensor, elements: int, tokens: int) -> tuple[torch.Tensor, ...]:
        """Six modulations (B, N, D): those of tokens for the first ones, those of latents for the rest."""
        both = rearrange(self.modulation(F.silu(condition_BD)), "b (kind six d) -> six kind b 1 d", kind=2, six=6)
        counts = (tokens, elements - tokens)
        return tuple(
            torch.cat([part.expand(-1, count, -1) for part, count in zip(pair, counts, strict=True)], dim=1)
            for pair in both
        )


class NoiseLevel(nn.Module):
    """Embed noise levels (B,) in [0, 1] as conditions (B, D): sines and cosines, then an MLP."""

    def __init__(self, width: int, waves: int = 256) -> None:
        super().__init__()
        self.waves = waves
        self.mlp = nn.Sequential(nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, sigma_B: torch.Tensor) -> torch.Tensor:
        half = self.waves // 2
        frequency = torch.exp(torch.arange(half, device=sigma_B.device) * (-math.log(10000.0) / half))
        angle = 1000.0 * sigma_B.float()[:, None] * frequency
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=-1))
