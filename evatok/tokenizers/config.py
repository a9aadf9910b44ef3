"""Shapes of the tokenizer, named sizes, and how clips are cut into patches.

Legend: B clips, K temporal blocks, k any number of them, P patches per block, T frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from einops import rearrange

from evatok.assignments.candidates import CandidateSet
from evatok.models.convolutions import ConvolutionShape
from evatok.storage import checkpoints

FRONTS = ("linear", "cnn")


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of a tokenizer; the defaults are the paper's 145M "S-B" model (facts: GigaTok small and base layers).

    `patch` is (frames, height, width); a temporal block is one patch deep in time. `front` is what lies between pixels
    and patch features: "linear", the paper's for videos, or "cnn", its for images (supplement H), whose shape the last
    fields give (`evatok.models.convolutions.ConvolutionShape`). `shortcut`, which the paper lacks, adds the linear
    front to the convolutions, so that a small network starts as the linear one.
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
    front: str = "linear"
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    convolution_blocks: int = 2
    map_channels: int = 256
    shortcut: bool = False

    def __post_init__(self) -> None:
        if self.frames % self.patch[0] or self.size % self.patch[1] or self.size % self.patch[2]:
            raise ValueError(f"patches {self.patch} do not tile {self.frames}x{self.size}x{self.size} clips")
        if self.front not in FRONTS:
            raise ValueError(f"unknown front {self.front!r}; choose one of {', '.join(FRONTS)}")
        if self.front == "cnn":
            self._check_convolutions()
        elif self.shortcut:
            raise ValueError(f"a shortcut passes the convolutions of front cnn, front {self.front} has none")

    def _check_convolutions(self) -> None:
        """Raise ValueError for an invalid convolutional front: it sees all of a clip's pixels, including later ones."""
        stride = self.convolutions.stride
        if self.frames != 1:
            raise ValueError(f"front cnn codes images of 1 frame, not clips of {self.frames}: choose front linear")
        if self.patch != (1, stride, stride):
            raise ValueError(f"multipliers {self.multipliers} make patches {(1, stride, stride)}, not {self.patch}")
        if self.channels % 4 or any(width > 32 * 4 and width % 32 for width in self.convolutions.widths):
            raise ValueError(f"{self.channels} channels cannot be normalised in groups: choose a multiple of 32")

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
    def convolutions(self) -> ConvolutionShape:
        """Shape of the "cnn" front."""
        return ConvolutionShape(self.channels, self.multipliers, self.convolution_blocks, self.map_channels)

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

IMAGE_LEVELS = (32, 64, 96, 128, 192, 256, 384, 512)
"""The paper's image tokenizers (supplement H), on a map of 16 x 16."""

IMAGE_SIZES: dict[str, TokenizerConfig] = {
    # CPU, an hour or two: 64x64 images, whose 8x8 map is a quarter of the paper's, and so are the levels.
    "toy": replace(
        TOKENIZER_SIZES["toy"],
        levels=tuple(level // 4 for level in IMAGE_LEVELS),
        frames=1,
        patch=(1, 8, 8),
        front="cnn",
        channels=16,
        multipliers=(1, 2, 4, 8),
        convolution_blocks=1,
        map_channels=128,
        shortcut=True,
    ),
    # One GPU: the paper's map and levels.
    "small": replace(
        TOKENIZER_SIZES["small"],
        levels=IMAGE_LEVELS,
        frames=1,
        size=256,
        patch=(1, 16, 16),
        front="cnn",
        channels=64,
        convolution_blocks=1,
    ),
    # GigaTok-S-B: 232M including its alignment head.
    "paper": TokenizerConfig(levels=IMAGE_LEVELS, frames=1, size=256, patch=(1, 16, 16), front="cnn"),
}
"""Image tokenizers, for videos of one frame and one block (supplement H)."""

MODALITIES: dict[str, dict[str, TokenizerConfig]] = {"video": TOKENIZER_SIZES, "image": IMAGE_SIZES}


def patchify(clips: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """Cut clips (B, 3, T, H, W) into patches (B, K, P, values per patch).

    Raises:
        ValueError: the clips do not have the tokenizer's shape.
    """
    t, h, w = config.patch
    return rearrange(checked(clips, config), "b c (k t) (y h) (x w) -> b k (y x) (c t h w)", t=t, h=h, w=w)


def unpatchify(patches: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """Assemble patches (B, k, P, values per patch) into frames (B, 3, k * frames per block, H, W)."""
    (t, h, w), (y, x) = config.patch, config.grid
    return rearrange(patches, "b k (y x) (c t h w) -> b c (k t) (y h) (x w)", c=3, t=t, h=h, w=w, y=y, x=x)


def checked(clips: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """Return the clips. Raises ValueError if they do not have the tokenizer's shape."""
    expected = (3, config.frames, config.size, config.size)
    if tuple(clips.shape[1:]) != expected:
        raise ValueError(f"clips must be (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
    return clips
