"""Quantisers behind one interface: VQ (the paper's), FSQ, and SimVQ and LFQ from vector-quantize-pytorch.

Legend: M tokens, gathered from a batch of unequal lengths so that no padding is ever quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import nn

CODES = {"vq": 16384, "fsq": 15360, "simvq": 16384, "lfq": 16384}
"""Kinds of quantiser and their default number of codes, about 14 bits."""

FSQ_LEVELS = {
    64000: (8, 8, 8, 5, 5, 5),  # VideoFlexTok's
    15360: (8, 8, 8, 6, 5),
    4375: (7, 5, 5, 5, 5),
    1000: (8, 5, 5, 5),
    240: (8, 6, 5),
}


@dataclass(frozen=True)
class Quantised:
    """Quantised tokens.

    Attributes:
        values: (M, decoder width).
        codes: (M,) int64.
        loss: (), zero for quantisers without one.
        latents: (M, dimension) float32, whose distances to the codebook determine the codes.
    """

    values: torch.Tensor
    codes: torch.Tensor
    loss: torch.Tensor
    latents: torch.Tensor


class Codebook(nn.Module):
    """A learned codebook on the unit sphere: nearest neighbour, straight-through gradients (VQGAN, GigaTok).

    The loss is mean |sg(z) - e|^2 + commitment * mean |z - sg(e)|^2 with latents z and codes e of unit length. Codes
    get gradients from its first term and from the entropy term (`evatok.training.losses.entropy`), which keeps unused
    ones in use: its weight in the paper is 0.02 (main eq. 2).
    """

    def __init__(self, codes: int, dimension: int, commitment: float) -> None:
        super().__init__()
        self.commitment = commitment
        self.weight = nn.Parameter(F.normalize(torch.randn(codes, dimension), dim=-1))

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantise (1, M, dimension) of unit length to values of the same shape, codes (1, M), and the loss ()."""
        codebook = self.unit()
        codes = (latents @ codebook.T).argmax(-1)
        values = codebook[codes]
        loss = F.mse_loss(values, latents.detach()) + self.commitment * F.mse_loss(latents, values.detach())
        return latents + (values - latents).detach(), codes, loss

    def unit(self) -> torch.Tensor:
        """(codes, dimension), each of unit length."""
        return F.normalize(self.weight, dim=-1)

    def indices_to_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Look up codes (...): values (..., dimension)."""
        return self.unit()[codes]


class Grid(nn.Module):
    """Finite scalar quantisation (Mentzer et al., 2309.15505): each dimension is bounded and rounded to its levels.

    Equal to FSQ of vector-quantize-pytorch, whose import takes longer than the rest of a command's start.

    Args:
        levels: number of levels of each dimension; values lie in [-1, 1].
    """

    levels: torch.Tensor
    basis: torch.Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.int32), persistent=False)
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), dim=0, dtype=torch.int32)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantise (..., dimensions) float32 to values with straight-through gradients, and codes (...)."""
        half = self.levels // 2
        reach = (self.levels - 1) * (1 + 1e-3) / 2  # slightly too wide, or tanh would never round to the outer levels
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        bounded = torch.tanh(latents + torch.atanh(offset / reach)) * reach - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        codes = ((rounded.detach() + half) * self.basis).sum(-1).round().long()
        return rounded / half, codes

    def indices_to_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Look up codes (...): values (..., dimensions)."""
        half = self.levels // 2
        return ((codes[..., None] // self.basis) % self.levels - half) / half


class Quantiser(nn.Module):
    """Project to the codebook's dimension, quantise, project to the decoder's width.

    Args:
        kind: "vq" (`Codebook`), "fsq", "simvq" or "lfq".
        codebook_size: number of codes; for FSQ one of FSQ_LEVELS, for LFQ a power of two.
        dimension: of a code; used by "vq" and "simvq" (GigaTok: 8).
        commitment: weight of the commitment term of "vq" (GigaTok: 0.25).
    """

    def __init__(
        self,
        kind: str,
        codebook_size: int,
        *,
        encoder_width: int,
        decoder_width: int,
        dimension: int = 8,
        commitment: float = 0.25,
    ) -> None:
        super().__init__()
        self.kind, self.codebook_size = kind, codebook_size
        self.quantiser, dimension = _build(kind, codebook_size, dimension, commitment)
        self.project_in = nn.Linear(encoder_width, dimension)
        self.project_out = nn.Linear(dimension, decoder_width)

    def forward(self, x_MD: torch.Tensor) -> Quantised:
        """Quantise in float32 under any autocast: codes must not depend on its rounding."""
        projected = self.project_in(x_MD)
        latents = projected.float()
        if self.kind == "vq":
            latents = F.normalize(latents, dim=-1)
        with torch.autocast(latents.device.type, enabled=False):
            values, codes, *rest = self.quantiser(latents[None])
        loss = rest[0].sum() if rest else values.new_zeros(())
        return Quantised(self.project_out(values[0].to(projected.dtype)), codes[0].long(), loss, latents)

    @property
    def codebook(self) -> torch.Tensor | None:
        """(codes, dimension), in the space of `Quantised.latents`; None if codes form a grid (FSQ, LFQ)."""
        if self.kind not in ("vq", "simvq"):
            return None
        codes = torch.arange(self.codebook_size, device=self.project_in.weight.device)
        return self._codes_to_values(codes)[0]

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Look up codes (...): decoder inputs (..., decoder width).

        Raises:
            ValueError: a code outside the codebook.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(f"codes must lie in [0, {self.codebook_size}), got {codes.min()}..{codes.max()}")
        return self.project_out(self._codes_to_values(codes).float()).reshape(*codes.shape, -1)

    def _codes_to_values(self, codes: torch.Tensor) -> torch.Tensor:
        """Look up codes (...) in the quantiser: values (1, M, dimension)."""
        look_up: Callable[[torch.Tensor], torch.Tensor] = self.quantiser.indices_to_codes  # type: ignore[assignment]
        return look_up(codes.reshape(1, -1))


def _build(kind: str, codebook_size: int, dimension: int, commitment: float) -> tuple[nn.Module, int]:
    """Build the quantiser; returns it with the dimension of its inputs and outputs."""
    check_codes(kind, codebook_size)
    if kind == "vq":
        return Codebook(codebook_size, dimension, commitment), dimension
    if kind == "fsq":
        levels = FSQ_LEVELS[codebook_size]
        assert prod(levels) == codebook_size
        return Grid(levels), len(levels)
    from vector_quantize_pytorch import LFQ, SimVQ  # here: it imports torch's compiler, which takes seconds

    if kind == "simvq":
        return SimVQ(dimension, codebook_size, rotation_trick=False), dimension
    bits = codebook_size.bit_length() - 1
    return LFQ(dim=bits, codebook_size=codebook_size), bits


def check_codes(kind: str, codebook_size: int) -> None:
    """Raise ValueError for an unknown kind of quantiser, or a number of codes that it does not support."""
    if kind not in CODES:
        raise ValueError(f"unknown quantiser {kind!r}; choose one of {', '.join(CODES)}")
    if codebook_size < 2:
        raise ValueError(f"a codebook needs at least 2 codes, got {codebook_size}")
    if kind == "fsq" and codebook_size not in FSQ_LEVELS:
        raise ValueError(f"no FSQ levels for {codebook_size} codes; choose one of {sorted(FSQ_LEVELS)}")
    if kind == "lfq" and codebook_size.bit_count() != 1:
        raise ValueError(f"LFQ needs a power of two as codebook size, got {codebook_size}")
