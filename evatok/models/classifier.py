"""A small classifier of clips by motion: a 2D network on each frame and its motion, then a convolution over time.

It serves one metric, the percentage of generated clips that show the requested class (a small version of VideoFlexTok's
alignment score). So it is small, sees clips at half their size, and classifies every step from frame to frame
separately: a clip's class is what it shows most of the time. Its inputs are each frame, its change, and the local
motion, estimated by least squares at three scales (Lucas and Kanade, 1981), because a few dozen clips of a rare class
are not enough for a network to learn to estimate it.

Legend: B clips, T frames, S = T - 1 steps from frame to frame, C classes, D width, h x w pixels after shrinking.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.models.dropout import Dropout
from evatok.storage import checkpoints

SCALES = (1, 2, 4)  # at which motion is estimated
_TEXTURELESS = 1e-4  # squared gradient in a window of noise
_GROUPS = 8  # of the norms; every width is a multiple


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of a classifier. `shrink`: factor by which frames are first reduced; `width`: of the first layer."""

    classes: int
    frames: int = 16
    size: int = 64
    shrink: int = 2
    width: int = 24
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.classes < 2 or self.frames < 2:
            raise ValueError(f"a classifier needs at least 2 classes and at least 2 frames, got {self}")
        if self.width % _GROUPS or self.size % (self.shrink * SCALES[-1]):
            raise ValueError(
                f"width must be a multiple of {_GROUPS}, size of {SCALES[-1]} times shrink for motion, got {self}"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierConfig:
        return checkpoints.shaped(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ClipClassifier(nn.Module):
    """Map clips (B, 3, T, H, W) in [0, 1] to log-probabilities of classes (B, C)."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.frames = nn.Sequential(
            *_convolution(6 + 4 * len(SCALES), w, kernel=5, stride=2),
            *_convolution(w, 2 * w, stride=2),
            *_convolution(2 * w, 3 * w),
            *_convolution(3 * w, 4 * w, stride=2),
        )
        self.times = nn.Conv1d(8 * w, 4 * w, kernel_size=3, padding=1)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(4 * w, config.classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.of_clip(self.step_logits(clips))

    @staticmethod
    def of_clip(logits_BSC: torch.Tensor) -> torch.Tensor:
        """(B, C) log-probabilities of clips: the mean of their steps' probabilities."""
        return logits_BSC.log_softmax(-1).logsumexp(1) - math.log(logits_BSC.shape[1])

    @staticmethod
    def voted(logits_BSC: torch.Tensor) -> torch.Tensor:
        """(B,) majority class over steps; ties go to the class that is more likely for the clip."""
        votes = F.one_hot(logits_BSC.argmax(-1), logits_BSC.shape[-1]).sum(1)
        return (votes + ClipClassifier.of_clip(logits_BSC).exp() / 2).argmax(1)

    def step_logits(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, S, C) logits of every step from one frame to the next.

        Raises:
            ValueError: the clips do not have the classifier's shape.
        """
        x = self.frames(self.see(clips))
        both = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        along = rearrange(both, "(b s) d -> b d s", b=len(clips))
        return self.head(self.dropout(rearrange(F.silu(self.times(along)), "b d s -> b s d")))

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        """(B S, 6 + 4 scales, h, w): each frame but the last, reduced, with its change to the next and its motion."""
        shape, config = tuple(clips.shape[1:]), self.config
        expected = (3, config.frames, config.size, config.size)
        if shape != expected:
            raise ValueError(f"clips must be (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
        small = F.avg_pool3d(clips, (1, config.shrink, config.shrink))
        change = 4 * (small[:, :, 1:] - small[:, :, :-1])  # changes are small compared with the picture
        seen = rearrange(torch.cat([small[:, :, :-1] - 0.5, change], dim=1), "b c s h w -> (b s) c h w")
        return torch.cat([seen, motion_pyramid(small.mean(1))], dim=1)


def motion_pyramid(grey_BThw: torch.Tensor) -> torch.Tensor:
    """(B S, 4 scales, h, w): `motion` at full, half and quarter size (for fast motion), each enlarged to (h, w)."""
    size, maps = grey_BThw.shape[-2:], []
    for scale in SCALES:
        now = F.avg_pool2d(grey_BThw, scale)
        maps.append(F.interpolate(motion(now[:, :-1].flatten(0, 1), now[:, 1:].flatten(0, 1)), size, mode="nearest"))
    return torch.cat(maps, dim=1)


def motion(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(N, 4, h, w) for two grey pictures (N, h, w): motion right and down in pixels, change, texture.

    In each window of 5 x 5 pixels the motion v minimises sum (I_x v_x + I_y v_y + I_t)^2 + eps v^2. It is 0 without
    texture, and clipped to 2 pixels, beyond which gradients carry no information.
    """
    middle = F.pad((before + after)[:, None] / 2, (1, 1, 1, 1), mode="replicate")
    along_x = (middle[..., 1:-1, 2:] - middle[..., 1:-1, :-2]) / 2
    along_y = (middle[..., 2:, 1:-1] - middle[..., :-2, 1:-1]) / 2
    change = (after - before)[:, None]
    products = (along_x**2, along_y**2, along_x * along_y, along_x * change, along_y * change, change**2)
    xx, yy, xy, xt, yt, tt = F.avg_pool2d(torch.cat(products, 1), 5, 1, 2).split(1, dim=1)
    xx, yy = xx + _TEXTURELESS, yy + _TEXTURELESS
    determinant = xx * yy - xy**2
    right, down = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    return torch.cat([right.clamp(-2, 2), down.clamp(-2, 2), 8 * tt.sqrt(), 8 * (xx + yy).sqrt()], dim=1)


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(_GROUPS, outputs), nn.SiLU()]
