"""Shapes of the tokenizer, named sizes, and how clips are cut into patches.

Legend: B clips, K temporal blocks, k any number of them, P patches per block, T frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange

from evatok.assignments.candidates import CandidateSet
from evatok.storage import checkpoints


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of a tokenizer; the defaults are the paper's 145M "S-B" model (facts: GigaTok small and base layers).

    `patch` is (frames, height, width); a temporal block is one patch deep in time.
    """

    levels: tuple[int, ...] = (32, 64, 128, 256, 512)
    frames: int = 16
    size: int = 128
    patch: tuple[int, int, int] = (4, 8, 8)
    encoder_width: int = 512
    encoder_layers: int = 6
    encoder_heads: int = 8
    decoder_width: int = 768
    decoder_layers: int = 12
    decoder_heads: int = 12
    quantiser: str = "vq"
    codebook_size: int = 16384
    codebook_dimension: int = 8

    def __post_init__(self) -> None:
        if self.frames % self.patch[0] or self.size % self.patch[1] or self.size % self.patch[2]:
            raise ValueError(f"patches {self.patch} do not tile {self.frames}x{self.size}x{self.size} clips")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenizerConfig:
        """Build from JSON values, in which tuples are lists."""
        return checkpoints.shaped(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def candidates(self) -> CandidateSet:
        return CandidateSet(self.levels, self.frames // self.patch[0])

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of a block, (rows, columns)."""
        return self.size // self.patch[1], self.size // self.patch[2]

    @property
    def patches(self) -> int:
        """P, patches per block."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_values(self) -> int:
        """Values of one RGB patch."""
        return 3 * self.patch[0] * self.patch[1] * self.patch[2]


TOKENIZER_SIZES: dict[str, TokenizerConfig] = {
    # CPU, minutes to hours. A block has 64 patches, a quarter of the paper's, so the levels are a quarter too: the same
    # tokens per patch, and at the highest level the pyramid still gives every patch its own slot.
    "toy": TokenizerConfig(
        levels=(8, 16, 32, 64, 128),
        size=64,
        encoder_width=160,
        encoder_layers=2,
        encoder_heads=5,
        decoder_width=160,
        decoder_layers=3,
        decoder_heads=5,
        quantiser="fsq",
        codebook_size=15360,
    ),
    # One GPU, half an hour: the paper's grid and levels.
    "small": TokenizerConfig(
        encoder_width=256,
        encoder_layers=4,
        encoder_heads=4,
        decoder_width=384,
        decoder_layers=6,
        decoder_heads=6,
    ),
    "paper": TokenizerConfig(),
}


def patchify(clips: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """Cut clips (B, 3, T, H, W) into patches (B, K, P, values per patch).

    Raises:
        ValueError: the clips do not have the tokenizer's shape.
    """
    expected = (3, config.frames, config.size, config.size)
    if tuple(clips.shape[1:]) != expected:
        raise ValueError(f"clips must be (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
    t, h, w = config.patch
    return rearrange(clips, "b c (k t) (y h) (x w) -> b k (y x) (c t h w)", t=t, h=h, w=w)


def unpatchify(patches: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """Assemble patches (B, k, P, values per patch) into frames (B, 3, k * frames per block, H, W)."""
    (t, h, w), (y, x) = config.patch, config.grid
    return rearrange(patches, "b k (y x) (c t h w) -> b c (k t) (y h) (x w)", c=3, t=t, h=h, w=w, y=y, x=x)
