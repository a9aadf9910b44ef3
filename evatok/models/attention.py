"""Attention and the Q-Former layer, with keys and values that can be cached between calls.

Legend: B batch, N queries, M keys, D width, H heads, C = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

if TYPE_CHECKING:  # imported on use: it pulls in symbolic shapes, which would add seconds to every start
    from torch.nn.attention.flex_attention import BlockMask

KeysValues = tuple[torch.Tensor, torch.Tensor]
Mask: TypeAlias = "torch.Tensor | BlockMask"
"""Boolean, broadcastable to (B, H, N, M), True where a query may attend; or its sparse form."""


def attend(q_BHNC: torch.Tensor, k_BHMC: torch.Tensor, v_BHMC: torch.Tensor, mask: Mask | None) -> torch.Tensor:
    """Softmax attention under `mask`; on a CPU, a sparse mask has no backward pass.

    On a CPU the fused kernel is faster in float32 but slower in bfloat16 with a mask, where explicit products are used.
    """
    if mask is not None and not isinstance(mask, torch.Tensor):
        return _sparse_attention(q_BHNC.device.type)(q_BHNC, k_BHMC, v_BHMC, block_mask=mask)
    if q_BHNC.device.type != "cpu" or q_BHNC.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q_BHNC, k_BHMC, v_BHMC, attn_mask=mask)
    scores_BHNM = (q_BHNC * q_BHNC.shape[-1] ** -0.5) @ k_BHMC.transpose(-2, -1)
    if mask is not None:
        # Added, not filled: the addition needs no backward pass of its own.
        floor = torch.zeros(mask.shape, dtype=scores_BHNM.dtype, device=mask.device)
        scores_BHNM = scores_BHNM + floor.masked_fill_(~mask, torch.finfo(floor.dtype).min / 2)
    return scores_BHNM.softmax(-1).to(v_BHMC.dtype) @ v_BHMC


@cache
def _sparse_attention(device: str) -> Callable[..., torch.Tensor]:
    """Compiled, as only then it skips what the mask hides; uncompiled on a CPU, to compare results."""
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., torch.Tensor] = flex_attention
    return torch.compile(kernel, dynamic=True) if device == "cuda" else kernel


class Attention(nn.Module):
    """Multi-head attention whose keys and values are computed by `keys_values` and used by `forward`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, x_BMD: torch.Tensor) -> KeysValues:
        """Keys and values (B, H, M, C) of a sequence."""
        keys, values = rearrange(self.key_value(x_BMD), "b m (two h c) -> two b h m c", two=2, h=self.heads)
        return keys, values

    def forward(self, x_BND: torch.Tensor, memory: KeysValues, mask: Mask | None = None) -> torch.Tensor:
        q_BHNC = rearrange(self.query(x_BND), "b n (h c) -> b h n c", h=self.heads)
        return self.out(rearrange(attend(q_BHNC, *memory, mask), "b h n c -> b n (h c)"))


class QFormerLayer(nn.Module):
    """Self-attention over the queries, cross-attention to the references, MLP; pre-norm (supplement F)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.self_norm, self.self_attention = nn.LayerNorm(width), Attention(width, heads)
        self.cross_norm, self.cross_attention = nn.LayerNorm(width), Attention(width, heads)
        self.reference_norm = nn.LayerNorm(width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def reference_keys_values(self, references_BMD: torch.Tensor) -> KeysValues:
        """Keys and values of the references, computed once for any number of queries."""
        return self.cross_attention.keys_values(self.reference_norm(references_BMD))

    def forward(
        self,
        x_BND: torch.Tensor,
        references: KeysValues,
        self_mask: Mask | None = None,
        cross_mask: Mask | None = None,
        past: KeysValues | None = None,
    ) -> tuple[torch.Tensor, KeysValues]:
        """Return the queries after this layer, and the keys and values of all queries so far (`past` first)."""
        normed = self.self_norm(x_BND)
        memory = self.self_attention.keys_values(normed)
        if past is not None:
            memory = append(past, memory)
        x_BND = x_BND + self.self_attention(normed, memory, self_mask)
        x_BND = x_BND + self.cross_attention(self.cross_norm(x_BND), references, cross_mask)
        return x_BND + self.mlp(self.mlp_norm(x_BND)), memory


class QFormer(nn.ModuleList):
    """A stack of Q-Former layers."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__(QFormerLayer(width, heads) for _ in range(depth))

    def __iter__(self) -> Iterator[QFormerLayer]:
        return super().__iter__()  # type: ignore[return-value]


def append(past: KeysValues, new: KeysValues) -> KeysValues:
    """Concatenate keys and values along the sequence."""
    return torch.cat((past[0], new[0]), dim=2), torch.cat((past[1], new[1]), dim=2)
