"""A small causal language model that reads visual tokens and answers questions about them.

All questions about a clip are packed after one visual prefix: each sees the prefix and its own words but no other
question, so that the answers equal those of asking one question at a time (`visual_first`; the paper prints the text
first, Eq. 6, which would need a prefix for each). An answer is one symbol, the likeliest at a question's last word.

Legend: B clips, L visual tokens, Q questions, W words of all questions together, V symbols, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from evatok.data.embedded.scene_text import vocabulary
from evatok.errors import EvatokError
from evatok.models.attention import Attention
from evatok.models.trained import Trained
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.vtok.features import Features
from evatok.vtok.strategies import Strategy
from evatok.vtok.tokens import VideoTokens

LONGEST = 8  # words of a question


class LanguageModelError(EvatokError, ValueError):
    """An unknown question, word or strategy."""


@dataclass(frozen=True)
class LanguageModelConfig:
    """Model shape: `channels` of the features it reads, `width` D, `layers`, `heads`."""

    channels: int = 64
    width: int = 64
    layers: int = 3
    heads: int = 4

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Layer(nn.Module):
    """Causal self-attention and MLP, pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BND: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normed = self.attention_norm(x_BND)
        x_BND = x_BND + self.attention(normed, self.attention.keys_values(normed), mask)
        return x_BND + self.mlp(self.mlp_norm(x_BND))


class VideoLanguageModel(Trained, nn.Module):
    """Features of clips and packed questions to logits of the answers."""

    KIND = "video_language_model"

    def __init__(self, config: LanguageModelConfig, strategy: Strategy) -> None:
        super().__init__()
        self.config, self.strategy = config, strategy
        self.words = vocabulary()
        self.visual = VideoTokens(strategy, config.channels, config.width)
        self.start = nn.Parameter(0.02 * torch.randn(config.width))
        self.embedding = nn.Embedding(len(self.words), config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(LONGEST, config.width))
        self.layers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, len(self.words))
        nn.init.normal_(self.embedding.weight, std=0.5)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        """See `Trained.of_checkpoint`. Raises LanguageModelError for a checkpoint of another vocabulary."""
        if checkpoint.facts.get("vocabulary") != list(vocabulary()):
            raise LanguageModelError(f"{path}: its vocabulary is not the current one of moving-shapes; train it again")
        shape = checkpoints.shaped(LanguageModelConfig, checkpoint.config["model"])
        model = cls(shape, Strategy.from_dict(checkpoint.config["strategy"]), **parts)
        model.checkpoint = checkpoint
        return model

    def start_from(self, other: VideoLanguageModel) -> list[str]:
        """Copy the weights of `other`, whatever its strategy; return the parameters that start fresh."""
        own, theirs = self.state_dict(), other.state_dict()
        fresh = self.visual.start_from(other.visual)
        text = {name: value for name, value in theirs.items() if not name.startswith("visual.")}
        odd = [name for name, value in text.items() if own[name].shape != value.shape]
        if odd:
            raise LanguageModelError(f"cannot start from a model of another size: {odd[0]} does not fit")
        self.load_state_dict({**self.state_dict(), **text})
        return [f"visual.{name}" for name in fresh]

    def forward(self, features: Features, words_BW: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """(B, Q, V) logits of the symbol that follows each question.

        Args:
            words_BW: word indices of all questions, concatenated.
            lengths: words of each question, the same for every clip.
        """
        visual = self.visual(features)
        places = torch.cat([torch.arange(length) for length in lengths])
        text = self.embedding(words_BW) + self.positions[places]
        start = self.start.expand(len(visual), 1, -1)
        x = torch.cat([start, visual, text], dim=1)
        mask = packed_mask(1 + visual.shape[1], tuple(lengths)).to(x.device)
        for layer in self.layers:
            x = layer(x, mask)
        ends = 1 + visual.shape[1] + torch.tensor(lengths).cumsum(0) - 1
        return self.head(self.norm(x[:, ends]))


@lru_cache(maxsize=64)
def packed_mask(prefix: int, lengths: tuple[int, ...]) -> torch.Tensor:
    """Return (prefix + W, prefix + W), True where a row may look: causal, and never into another question."""
    total = prefix + sum(lengths)
    segment = torch.cat([torch.zeros(prefix), *(torch.full((n,), at + 1.0) for at, n in enumerate(lengths))])
    same = (segment[:, None] == segment[None]) | (segment[None] == 0)
    return same & torch.ones(total, total, dtype=torch.bool).tril()
