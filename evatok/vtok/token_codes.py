"""Product-quantised codes of raw tokens, and the tokens reconstructed from them.

The paper's tokens are continuous (Eq. 1), yet a softmax over "a unified vocabulary" writes them (Eqs. 5, 10). Here a
token is four symbols of 256 each, so that both are literally true: an MLP leads to four groups of eight numbers, each
the nearest of a codebook on the unit sphere, and another MLP back to what the projector reads. One coder serves all
strategies; it is trained with the video decoder and frozen afterwards.

Legend: N tokens, I numbers of a raw token, G groups, V symbols of a group, Z numbers of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from evatok.errors import EvatokError
from evatok.models.quantisers import Codebook
from evatok.vtok.features import SIDE
from evatok.vtok.strategies import OMNI_FRAMES, Strategy
from evatok.vtok.tokens import FIELD, RawTokens

GROUPS, SYMBOLS, DIMENSION = 4, 256, 8
LATENT = GROUPS * DIMENSION  # Z
SPATIAL = "cell"
_COMMITMENT = 0.25


class TokenCodeError(EvatokError, ValueError):
    """Tokens without a coder, or codes out of range."""


@dataclass(frozen=True)
class Coded:
    """Tokens after quantisation.

    Attributes:
        codes: (N, G) int64.
        values: (N, Z) entries of the codebooks, with straight-through gradients.
        latents: (N, Z) before quantisation; each group of unit length.
        loss: () codebook and commitment terms.
    """

    codes: torch.Tensor
    values: torch.Tensor
    latents: torch.Tensor
    loss: torch.Tensor


class Coder(nn.Module):
    """One kind of raw token (N, I) to codes and back."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, LATENT))
        self.books = nn.ModuleList(Codebook(SYMBOLS, DIMENSION, _COMMITMENT) for _ in range(GROUPS))
        self.back = nn.Sequential(nn.Linear(LATENT, hidden), nn.GELU(), nn.Linear(hidden, inputs))

    def latents(self, raw: torch.Tensor) -> torch.Tensor:
        """(..., Z) of raw tokens (..., I): each group of unit length."""
        return self.on_spheres(self.into(raw))

    def on_spheres(self, latents: torch.Tensor) -> torch.Tensor:
        """(..., Z) with each group scaled to unit length."""
        return F.normalize(latents.unflatten(-1, (GROUPS, DIMENSION)), dim=-1).flatten(-2)

    def quantise(self, latents: torch.Tensor) -> Coded:
        """Codes of latents (N, Z)."""
        if not len(latents):  # the mean over no tokens would be NaN
            return Coded(latents.new_zeros(0, GROUPS, dtype=torch.int64), latents, latents, latents.sum())
        found = [book(part) for book, part in zip(self.books, latents.split(DIMENSION, -1), strict=True)]
        values, codes, losses = zip(*found, strict=True)
        return Coded(torch.stack(codes, -1), torch.cat(values, -1), latents, torch.stack(losses).mean())

    def nearest(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, Z) entries of the codebooks nearest to latents (B, Z)."""
        return self.values_of(self.quantise(latents).codes)

    def codebooks(self) -> list[Codebook]:
        """One codebook per group."""
        return list(self.books)  # type: ignore[arg-type]

    def values_of(self, codes: torch.Tensor) -> torch.Tensor:
        """(..., Z) of codes (..., G). Raises TokenCodeError for codes out of range."""
        if codes.shape[-1] != GROUPS or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < SYMBOLS):
            raise TokenCodeError(f"codes must be (..., {GROUPS}) in [0, {SYMBOLS}), got {tuple(codes.shape)}")
        parts = [book.indices_to_codes(codes[..., group]) for group, book in enumerate(self.codebooks())]
        return torch.cat(parts, -1)


class TokenCoder(nn.Module):
    """Coders of all kinds of raw tokens: cells of frames, residuals, tubes of frames, a motion field's cells.

    Args:
        channels: C of the image encoder's features.
        hidden: width of the MLPs.
    """

    def __init__(self, channels: int, hidden: int = 256) -> None:
        super().__init__()
        self.coders = nn.ModuleDict({kind: Coder(width, hidden) for kind, width in widths(channels).items()})

    def of(self, kind: str) -> Coder:
        """Return the coder of a kind (`SPATIAL`, or `motion_kind` of a strategy)."""
        found: Coder = self.coders[kind]  # type: ignore[assignment]
        return found

    def coded(self, raw: RawTokens, strategy: Strategy) -> tuple[Coded, Coded]:
        """Return codes of the spatial tokens and of the motion tokens, all clips' tokens concatenated."""
        spatial, motion = self.of(SPATIAL), self.of(motion_kind(strategy))
        return (
            spatial.quantise(spatial.latents(raw.spatial.flatten(0, 1))),
            motion.quantise(motion.latents(raw.motion.flatten(0, 1))),
        )

    def codes(self, raw: RawTokens, strategy: Strategy) -> torch.Tensor:
        """(B, L, G) of the tokens in order."""
        parts = self.coded(raw, strategy)
        counts = (raw.spatial.shape[1], raw.motion.shape[1])
        shaped = [
            part.codes.reshape(len(raw.spatial), count, GROUPS) for part, count in zip(parts, counts, strict=True)
        ]
        return torch.cat(shaped, 1)

    def latents(self, raw: RawTokens, strategy: Strategy) -> torch.Tensor:
        """(B, L, Z) of the tokens in order, before quantisation."""
        spatial, motion = self.of(SPATIAL), self.of(motion_kind(strategy))
        return torch.cat([spatial.latents(raw.spatial), motion.latents(raw.motion)], 1)

    def raw(self, values: torch.Tensor, strategy: Strategy, frames: int) -> RawTokens:
        """Raw tokens of values (B, L, Z), the codebooks' entries; L may end early, as while tokens are written.

        Args:
            frames: per clip of these tokens.
        """
        count = spatial_tokens(strategy)
        spatial = self.of(SPATIAL).back(values[:, :count])
        return RawTokens(spatial, self.of(motion_kind(strategy)).back(values[:, count:]), frames)

    def values_of(self, codes: torch.Tensor, strategy: Strategy) -> torch.Tensor:
        """(B, L, Z) of codes (B, L, G). Raises TokenCodeError for codes out of range."""
        count = spatial_tokens(strategy)
        spatial = self.of(SPATIAL).values_of(codes[:, :count])
        return torch.cat([spatial, self.of(motion_kind(strategy)).values_of(codes[:, count:])], 1)


def widths(channels: int) -> dict[str, int]:
    """I of each kind of raw token."""
    residual = SIDE * SIDE * channels
    return {SPATIAL: channels, "residual": residual, "tube": OMNI_FRAMES * channels, "field": FIELD}


def motion_kind(strategy: Strategy) -> str:
    """Return the kind of a strategy's motion tokens; `SPATIAL` if it has none.

    Raises:
        TokenCodeError: a control whose motion tokens are not residuals (Eq. 14): they have no coder.
    """
    if strategy.kind == "vtok" and strategy.residual != "grid":
        raise TokenCodeError(f"tokens of {strategy.name} have no codes: only residual=grid (Eq. 14) is generated")
    return {"vtok": "residual", "omni": "tube", "lavit": "field"}.get(strategy.kind, SPATIAL)


def spatial_tokens(strategy: Strategy) -> int:
    """Return how many of a strategy's tokens are cells of frames; they come first."""
    if strategy.kind in ("none", "frames"):
        return strategy.length()
    return strategy.key
