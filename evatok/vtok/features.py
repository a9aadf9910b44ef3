"""Features that strategies read: the frozen image encoder's, plus a motion field for Video-LaViT's.

Complete grids of all frames are half a megabyte per clip, and no strategy needs them: stored are the first frame's grid
and 4 x 4 cells of every frame, in float16, in the feature cache, shard by shard.

Legend: B clips, T frames, S steps of motion, h x w cells of a frame, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from tqdm import tqdm

from evatok.data.clips import ClipSet, pixels_sha256, to_network
from evatok.models.classifier import SCALES, motion_pyramid
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, ranges
from evatok.vtok.strategies import LAVIT_FRAMES, StrategyError

CELLS, SIDE = 8, 4  # cells along each axis: of the first frame, and stored for every frame
MOTION_SIDE, MOTION_CHANNELS = 8, 4 * len(SCALES)
_SHARD = 50  # clips
_VERSION = "1"  # of what is stored; a change recomputes all features
_SHRINK = 2  # motion is estimated at half size, where fast motion is slower


class Encoder(Protocol):
    """F: frames (N, 3, H, W) in [0, 1] to a grid of features (N, 8, 8, D), frozen.

    Attributes:
        width: D.
        identity: unique to this encoder, for caches and records.
    """

    @property
    def width(self) -> int: ...

    @property
    def identity(self) -> str: ...

    def __call__(self, frames: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Features:
    """Features of B clips.

    Attributes:
        first: (B, 8, 8, D) of the first frame.
        frames: (B, T, 4, 4, D) of every frame, pooled.
        motion: (B, S, 8, 8, M) of steps between 16 frames; None if the clips have fewer.
    """

    first: torch.Tensor
    frames: torch.Tensor
    motion: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.first)

    def only(self, rows: np.ndarray) -> Features:
        """Select clips, as stored."""
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        motion = None if self.motion is None else self.motion[index]
        return Features(self.first[index], self.frames[index], motion)

    def take(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Features:
        """Select clips, in float32."""
        held = self.only(rows)
        motion = None if held.motion is None else held.motion.to(device).float()
        return Features(held.first.to(device).float(), held.frames.to(device).float(), motion)


def features_of(
    encoder: Encoder, clips: ClipSet, *, device: torch.device | str = "cpu", store: ShardStore | None = None
) -> Features:
    """Compute features of all clips (N, T, H, W, 3) in float16, reading those in the cache.

    A killed computation resumes.
    """

    def key(piece: np.ndarray) -> dict[str, Any]:
        return {"vtok": _VERSION, "encoder": encoder.identity, "pixels": pixels_sha256(piece)}

    def make(piece: np.ndarray, tick: Tick) -> Arrays:
        arrays = _computed(encoder, piece, device)
        tick(len(piece))
        return arrays

    pieces = (np.array(clips.clips[start:stop]) for start, stop in ranges(len(clips), _SHARD))
    with tqdm(total=len(clips), desc="features", unit="clip", disable=None) as bar:
        found = computed(store or ShardStore.of_features(), pieces, key, make, tick=bar.update).joined()
    joined = {name: torch.from_numpy(values) for name, values in found.items()}
    return Features(joined["first"], joined["frames"], joined.get("motion"))


@torch.no_grad()
def _computed(encoder: Encoder, pixels: np.ndarray, device: torch.device | str) -> dict[str, np.ndarray]:
    first, frames = [], []
    for clip in pixels:
        grid = encoder(to_network(clip[:, None], device)[:, :, 0])
        first.append(grid[0].half().cpu().numpy())
        frames.append(pooled(grid, SIDE).half().cpu().numpy())
    found = {"first": np.stack(first), "frames": np.stack(frames)}
    if pixels.shape[1] >= LAVIT_FRAMES:
        found["motion"] = _motion(pixels, device).half().cpu().numpy()
    return found


def pooled(grid: torch.Tensor, side: int) -> torch.Tensor:
    """(..., side, side, D) of a grid (..., h, w, D), by adaptive average pooling."""
    flat = rearrange(grid.flatten(0, -4), "n h w d -> n d h w")
    return rearrange(F.adaptive_avg_pool2d(flat, side), "n d h w -> n h w d").unflatten(0, grid.shape[:-3])


def _motion(pixels: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """(B, S, 8, 8, M) of uint8 clips (B, T, H, W, 3)."""
    picks = np.rint(np.linspace(0, pixels.shape[1] - 1, LAVIT_FRAMES)).astype(int)
    grey = to_network(pixels[:, picks], device).mean(1)
    maps = motion_pyramid(F.avg_pool2d(grey, _SHRINK))
    small = F.adaptive_avg_pool2d(maps, MOTION_SIDE)
    return rearrange(small, "(b s) m h w -> b s h w m", b=len(pixels))


def check(features: Features) -> None:
    """Raise StrategyError for features of a shape no strategy reads."""
    first, frames = features.first, features.frames
    if first.ndim != 4 or frames.ndim != 5 or len(first) != len(frames) or first.shape[-1] != frames.shape[-1]:
        raise StrategyError(
            f"features must be first (B, h, w, D) and frames (B, T, {SIDE}, {SIDE}, D), got {tuple(first.shape)} and "
            f"{tuple(frames.shape)}"
        )
