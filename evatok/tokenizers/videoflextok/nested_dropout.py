"""Nested dropout (arXiv 1402.0915): how many tokens a training step keeps of each latent frame.

Legend: B clips, T latent frames, K tokens per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evatok.tokenizers.videoflextok.config import FlexTokError

DRAWS = ("powers", "uniform", "rounded", "all")
"""powers: one of 1, 2, 4, ..., K (released configuration); uniform: 1..K (Sec. 3.1); rounded: uniform, then up to a
power of two (K at most); all: K, no dropout."""
PER = ("batch", "clip", "frame")


@dataclass(frozen=True)
class NestedDropout:
    """How kept lengths are drawn, and whether per batch, per clip or per latent frame."""

    tokens: int
    frames: int
    draw: str = "powers"
    per: str = "batch"

    def __post_init__(self) -> None:
        for key, value, known in (("draw", self.draw, DRAWS), ("per", self.per, PER)):
            if value not in known:
                raise FlexTokError(f"nested dropout: {key} {value!r} is not one of {', '.join(known)}")

    def lengths(self, clips: int, generator: torch.Generator) -> torch.Tensor:
        """(B, T) tokens kept per frame."""
        count = {"batch": 1, "clip": clips, "frame": clips * self.frames}[self.per]
        drawn = self._drawn(count, generator)
        if self.per == "frame":
            return drawn.reshape(clips, self.frames)
        return drawn[:, None].expand(clips, self.frames).clone()

    def _drawn(self, count: int, generator: torch.Generator) -> torch.Tensor:
        if self.draw == "all":
            return torch.full((count,), self.tokens)
        if self.draw == "powers":
            levels = torch.tensor(sorted({*(2**n for n in range(self.tokens.bit_length())), self.tokens}))
            return levels[torch.randint(len(levels), (count,), generator=generator)]
        uniform = torch.randint(1, self.tokens + 1, (count,), generator=generator)
        if self.draw == "uniform":
            return uniform
        return (2 ** uniform.double().log2().ceil().long()).clamp_max(self.tokens)
