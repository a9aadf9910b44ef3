"""F: the frozen image encoder of key frames and residuals, trained on single frames and their captions.

It plays CLIP's role in the paper: supervised by language, on images only. Each cell of its grid predicts logits of word
pairs (colour and shape, colour and fill, colour and size); a pair counts as seen if any cell sees it, by logsumexp over
the cells. A second head reconstructs each cell's patch from its feature, so that positions within a cell are preserved.

Legend: N frames, P pairs of words, h x w cells, D width.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.data.embedded.scenes import COLOURS, SHAPES, SIZES
from evatok.errors import EvatokError
from evatok.models.trained import Trained
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint

FILLS = ("solid", "hollow")
PAIRS: tuple[tuple[str, str], ...] = tuple(
    (colour, word) for words in (SHAPES, FILLS, tuple(SIZES)) for colour in COLOURS for word in words
)
"""The P pairs: every colour with every shape, every fill and every size."""
CELL = 8  # pixels per side
_GROUPS = 8
_POSITIVE = 4.0  # weight of a positive pair: most are negative


class ImageEncoderError(EvatokError, ValueError):
    """Frames or captions the image encoder does not support."""


@dataclass(frozen=True)
class ImageEncoderConfig:
    """`size`: side of a frame in pixels, a multiple of 8; `width`: D; `channels` of the second layer."""

    size: int = 64
    width: int = 64
    channels: int = 48

    def __post_init__(self) -> None:
        if self.size % CELL or self.channels % _GROUPS or min(self.size, self.width, self.channels) < 1:
            raise ImageEncoderError(f"size must be a multiple of {CELL} and channels of {_GROUPS}, got {self}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ImageEncoder(Trained, nn.Module):
    """Frames (N, 3, H, W) in [0, 1] to a grid of features (N, h, w, D), standardised over training frames.

    The first layer has no norm: normalised over the frame, a colour would depend on all others.
    """

    KIND = "image_encoder"
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.layers = nn.Sequential(
            nn.Conv2d(3, c // 2, 5, 2, 2),
            nn.SiLU(),
            nn.Conv2d(c // 2, c, 3, 2, 1),
            nn.GroupNorm(_GROUPS, c),
            nn.SiLU(),
            nn.Conv2d(c, 2 * c, 3, 2, 1),
            nn.GroupNorm(_GROUPS, 2 * c),
            nn.SiLU(),
            nn.Conv2d(2 * c, 2 * c, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(2 * c, config.width, 1),
        )
        self.words = nn.Conv2d(config.width, len(PAIRS), 1)
        self.patches = nn.Conv2d(config.width, 3 * CELL * CELL, 1)
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("deviation", torch.ones(config.width))

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        encoder = cls(checkpoints.shaped(ImageEncoderConfig, checkpoint.config), **parts)
        encoder.checkpoint = checkpoint
        return encoder

    @property
    def width(self) -> int:
        """D."""
        return self.config.width

    @property
    def identity(self) -> str:
        """sha256 of its checkpoint."""
        return self.checkpoint.sha256

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        grid = rearrange(self.raw(frames), "n d h w -> n h w d")
        return (grid - self.mean) / self.deviation

    def raw(self, frames: torch.Tensor) -> torch.Tensor:
        """(N, D, h, w) before standardising. Raises ImageEncoderError for frames of another shape."""
        expected = (3, self.config.size, self.config.size)
        if tuple(frames.shape[1:]) != expected:
            raise ImageEncoderError(f"frames must be (N, {expected}), got {tuple(frames.shape)}")
        return self.layers(frames - 0.5)

    def losses(self, frames: torch.Tensor, said_NP: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the training losses: `words`, cross-entropy of the pairs; `patches`, L1 of the reconstruction."""
        grid = self.raw(frames)
        weight = torch.full((said_NP.shape[1],), _POSITIVE, device=said_NP.device)
        words = F.binary_cross_entropy_with_logits(self.seen(grid), said_NP.float(), pos_weight=weight)
        drawn = F.pixel_shuffle(self.patches(grid), CELL)
        return {"words": words, "patches": (drawn - frames).abs().mean()}

    def seen(self, grid_NDhw: torch.Tensor) -> torch.Tensor:
        """Compute logits (N, P) of the word pairs: the soft maximum over the cells."""
        cells = self.words(grid_NDhw).flatten(2)
        return cells.logsumexp(-1) - math.log(cells.shape[-1])

    @torch.no_grad()
    def standardise(self, frames: torch.Tensor) -> None:
        """Set mean and deviation from the features of these frames."""
        values = self.raw(frames).transpose(0, 1).flatten(1)
        self.mean.copy_(values.mean(1))
        self.deviation.copy_(values.std(1).clamp_min(1e-6))


def said(captions: list[str]) -> np.ndarray:
    """Return (N, P) booleans: which word pairs the captions of stills use for some object.

    Raises:
        ImageEncoderError: a caption that names no object as the set's captions do.
    """
    found = np.zeros((len(captions), len(PAIRS)), dtype=bool)
    place = {pair: number for number, pair in enumerate(PAIRS)}
    for row, caption in enumerate(captions):
        words = caption.partition(" . ")[0].split()
        objects = [words[at + 1 : at + 5] for at, word in enumerate(words) if word == "a"]
        if not objects or any(len(names) < 4 or (names[2], names[3]) not in place for names in objects):
            raise ImageEncoderError(f"caption {row}, {caption[:60]!r}, does not begin with 'a SIZE FILL COLOUR SHAPE'")
        for size, fill, colour, shape in objects:
            for word in (shape, fill, size):
                found[row, place[colour, word]] = True
    return found
