"""A convolutional encoder and decoder of images around a map of features, in the shape of GigaTok's (arXiv 2504.08736).

Each level has residual blocks of group norm and SiLU, then halves the side; the decoder mirrors it, doubles sides by
moving channels to pixels, and scales each level by statistics of the map it decodes, as MAGVIT-v2 does (arXiv
2310.05737). Neither has attention: the transformer in between does. With 128 channels and multipliers 1, 1, 2, 2, 4
both have 76M parameters.

Legend: B images, H x W pixels, h x w positions of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

GROUPS = 32
"""Maximum number of groups of a group norm; never fewer than four channels per group."""


@dataclass(frozen=True)
class ConvolutionShape:
    """Shape of both networks.

    Attributes:
        channels: of the finest level, a multiple of 4.
        multipliers: channels of each level from the finest, in multiples of `channels`.
        blocks: residual blocks per level of the encoder; the decoder has one more.
        map_channels: of the map between them.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    map_channels: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, from the finest."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def stride(self) -> int:
        """Pixels per position of the map, along a side."""
        return 2 ** (len(self.multipliers) - 1)


class ResidualBlock(nn.Module):
    """Two convolutions, each after group norm and SiLU, added to their input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first_norm, self.first = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second_norm, self.second = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        inner = self.first(F.silu(self.first_norm(x_BCHW)))
        return self.shortcut(x_BCHW) + self.second(F.silu(self.second_norm(inner)))


class ImageEncoder(nn.Module):
    """Map images (B, 3, H, W) in [-1, 1] to a map (B, map channels, h, w)."""

    def __init__(self, shape: ConvolutionShape) -> None:
        super().__init__()
        widths = shape.widths
        self.enter = nn.Conv2d(3, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(_level(a, b, shape.blocks) for a, b in pairwise((widths[0], *widths)))
        self.halves = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2) for width in widths[:-1])
        self.middle = _level(widths[-1], widths[-1], 2)
        self.norm = group_norm(widths[-1])
        self.leave = nn.Conv2d(widths[-1], shape.map_channels, 3, padding=1)

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        x = self.enter(images_B3HW)
        for level, half in zip(self.levels, (*self.halves, None), strict=True):
            x = level(x)
            if half is not None:
                x = half(F.pad(x, (0, 1, 0, 1)))
        return self.leave(F.silu(self.norm(self.middle(x))))


class ImageDecoder(nn.Module):
    """Map a map (B, map channels, h, w) to images (B, 3, H, W), about in [-1, 1]."""

    def __init__(self, shape: ConvolutionShape) -> None:
        super().__init__()
        widths = shape.widths[::-1]
        self.enter = nn.Conv2d(shape.map_channels, widths[0], 3, padding=1)
        self.middle = _level(widths[0], widths[0], 2)
        steps = list(pairwise((widths[0], *widths)))
        self.styles = nn.ModuleList(StyledNorm(shape.map_channels, inputs) for inputs, _ in steps)
        self.levels = nn.ModuleList(_level(inputs, outputs, shape.blocks + 1) for inputs, outputs in steps)
        self.doubles = nn.ModuleList(nn.Conv2d(width, 4 * width, 3, padding=1) for width in widths[:-1])
        self.norm = group_norm(widths[-1])
        self.leave = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, map_BChw: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.enter(map_BChw))
        for style, level, double in zip(self.styles, self.levels, (*self.doubles, None), strict=True):
            x = level(style(x, map_BChw))
            if double is not None:
                x = F.pixel_shuffle(double(x), 2)
        return self.leave(F.silu(self.norm(x)))


class StyledNorm(nn.Module):
    """Group norm whose scale and shift are linear in the deviation and mean of each channel of a map."""

    def __init__(self, map_channels: int, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.scale, self.shift = nn.Linear(map_channels, channels), nn.Linear(map_channels, channels)

    def forward(self, x_BCHW: torch.Tensor, map_BChw: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(map_BChw.float(), dim=(2, 3), correction=0)
        scale, shift = self.scale((variance + 1e-6).sqrt()), self.shift(mean)
        return self.norm(x_BCHW) * scale[:, :, None, None] + shift[:, :, None, None]


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    return nn.GroupNorm(min(GROUPS, channels // 4), channels, eps=1e-6, affine=affine)


def _level(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(inputs, outputs), *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1)))
