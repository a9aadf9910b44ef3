"""Text conditions of a generator: captions to a prefix of a fixed number of vectors, called slots.

Slots query the caption (a Perceiver resampler), so that the prefix has a fixed length whatever the caption's, and a KV
cache stores it like any other prefix. Captions come as word indices of a closed vocabulary, read by a small encoder
trained with the generator, or as features of a frozen language model (`models.text_encoders`).

Legend: B captions, W words of the longest, E channels of features, S slots, D width.
"""

from __future__ import annotations

import torch
from torch import nn

from evatok.generation.config import GeneratorConfig
from evatok.models.attention import QFormerLayer
from evatok.vtok.captions import PADDING
from evatok.vtok.language_model import Layer


class TextEncoder(nn.Module):
    """Captions to slots (B, S, D); a hidden caption yields the learned slots of no caption."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width, heads, self.config = config.width, config.heads, config
        self.words = nn.Embedding(config.text_words, width) if config.text_words else None
        self.features = nn.Linear(config.text_channels, width) if config.text_channels else None
        self.positions = nn.Parameter(torch.empty(config.text_longest, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(config.text_layers))
        self.slots = nn.Parameter(torch.empty(config.text, width))
        self.nothing = nn.Parameter(torch.empty(config.text, width))
        self.pool = QFormerLayer(width, heads)

    def forward(self, text: torch.Tensor, drop: torch.Tensor | None = None) -> torch.Tensor:
        """Return slots (B, S, D) of words (B, W) with PADDING after the last, or of features (B, W, E) with zeros.

        Args:
            drop: (B,) True where the caption is hidden.

        Raises:
            ValueError: captions of a kind or length the generator does not read.
        """
        said = self._said(text)
        x_BWD = self.positions[: text.shape[1]] + self._embedded(text)
        for layer in self.layers:
            x_BWD = layer(x_BWD, said[:, None, None])
        memory = self.pool.reference_keys_values(x_BWD)
        pooled, _ = self.pool(self.slots.expand(len(text), -1, -1), memory, cross_mask=said[:, None, None])
        if drop is None:
            return pooled
        return torch.where(drop[:, None, None], self.nothing.to(pooled.dtype), pooled)

    def _said(self, text: torch.Tensor) -> torch.Tensor:
        """Return (B, W): which positions hold a word."""
        config, words = self.config, self.words is not None
        fits = text.ndim == (2 if words else 3) and 1 <= text.shape[1] <= config.text_longest
        if not fits or (not words and text.shape[2] != config.text_channels):
            kind = "words (B, W)" if words else f"features (B, W, {config.text_channels})"
            raise ValueError(
                f"captions {tuple(text.shape)}: the generator reads {kind} of at most {config.text_longest}"
            )
        said = text != PADDING if words else (text != 0).any(-1)
        if not bool(said.any(1).all()):
            raise ValueError("a caption without a word: hide it with `drop`")
        return said

    def _embedded(self, text: torch.Tensor) -> torch.Tensor:
        if self.words is not None:
            if int(text.max()) >= self.config.text_words:
                raise ValueError(f"word {int(text.max())}: the generator knows words 0 to {self.config.text_words - 1}")
            embedded: torch.Tensor = self.words(text.clamp_min(0))
            return embedded
        assert self.features is not None
        projected: torch.Tensor = self.features(text.to(self.features.weight.dtype))
        return projected
