"""Quantisers behind one call: VQ (the paper's), FSQ, SimVQ and LFQ, all from vector-quantize-pytorch.

Legend: M tokens, gathered from a batch of unequal lengths so that no padding is ever quantised.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import nn
from vector_quantize_pytorch import FSQ, LFQ, SimVQ, VectorQuantize

FSQ_LEVELS = {15360: (8, 8, 8, 6, 5), 4375: (7, 5, 5, 5, 5), 1000: (8, 5, 5, 5), 240: (8, 6, 5)}


@dataclass(frozen=True)
class Quantised:
    """values (M, decoder width), codes (M,) int64, loss () - zero for quantisers without one.

    latents (M, dimension) are what the codebook's distances are taken of, float32.
    """

    values: torch.Tensor
    codes: torch.Tensor
    loss: torch.Tensor
    latents: torch.Tensor


class Quantiser(nn.Module):
    """Project to the codebook's dimension, quantise, project to the decoder's width.

    Args:
        kind: "vq" (l2-normalised, nearest neighbour, straight-through), "fsq", "simvq" or "lfq".
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
        """Quantise in float32 whatever the surrounding autocast: codes must not depend on its rounding."""
        projected = self.project_in(x_MD)
        latents = projected.float()
        with torch.autocast(latents.device.type, enabled=False):
            values, codes, *rest = self.quantiser(latents[None])
        loss = rest[0].sum() if rest else values.new_zeros(())
        if self.kind == "vq":
            latents = F.normalize(latents, dim=-1)
        return Quantised(self.project_out(values[0].to(projected.dtype)), codes[0].long(), loss, latents)

    @property
    def codebook(self) -> torch.Tensor | None:
        """(codes, dimension), in the space of `Quantised.latents`; None where codes are a grid (FSQ, LFQ)."""
        if self.kind not in ("vq", "simvq"):
            return None
        codes = torch.arange(self.codebook_size, device=self.project_in.weight.device)
        return self._codes_to_values(codes)[0]

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (...) -> decoder inputs (..., decoder width).

        Raises:
            ValueError: a code outside the codebook.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(f"codes must lie in [0, {self.codebook_size}), got {codes.min()}..{codes.max()}")
        return self.project_out(self._codes_to_values(codes).float()).reshape(*codes.shape, -1)

    def _codes_to_values(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (...) to the quantiser's own values (1, M, dimension)."""
        of_indices = "get_codes_from_indices" if self.kind == "vq" else "indices_to_codes"
        values: torch.Tensor = getattr(self.quantiser, of_indices)(codes.reshape(1, -1))
        return values


def _build(kind: str, codebook_size: int, dimension: int, commitment: float) -> tuple[nn.Module, int]:
    """The quantiser and the dimension of what it takes and gives."""
    if kind == "vq":
        vq = VectorQuantize(
            dimension,
            codebook_size,
            use_cosine_sim=True,
            commitment_weight=commitment,
            rotation_trick=False,
        )
        return vq, dimension
    if kind == "simvq":
        return SimVQ(dimension, codebook_size, rotation_trick=False), dimension
    if kind == "fsq":
        if codebook_size not in FSQ_LEVELS:
            raise ValueError(f"no FSQ levels for {codebook_size} codes: one of {sorted(FSQ_LEVELS)}")
        levels = FSQ_LEVELS[codebook_size]
        assert prod(levels) == codebook_size
        return FSQ(list(levels)), len(levels)
    if kind == "lfq":
        bits = codebook_size.bit_length() - 1
        if 2**bits != codebook_size:
            raise ValueError(f"LFQ needs a power of two as codebook size, got {codebook_size}")
        return LFQ(dim=bits, codebook_size=codebook_size), bits
    raise ValueError(f"unknown quantiser {kind!r}: vq, fsq, simvq or lfq")
