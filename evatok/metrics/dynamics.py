"""How much and how smoothly generated clips move, without a reference: stand-ins for two columns of VBench.

VBench measures dynamic degree by RAFT's optical flow and motion smoothness by an interpolation network; here block
motion and second differences replace them, so that values only compare with each other.

Legend: N clips, T frames; uint8 clips (N, T, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from evatok.models.classifier import motion

_FASTEST = 0.05  # share of a frame's windows whose motion counts, as in VBench
_SHRINK = 2  # sensor noise is not motion
_CELL = 8  # pixels a side whose mean is followed: an edge that passes through a pixel is never even
_BATCH = 50


def speeds(clips: np.ndarray) -> np.ndarray:
    """(N,) mean motion in pixels per frame of each frame's fastest windows.

    Raises:
        ValueError: clips of one frame, or of another shape.
    """
    found = []
    for grey in _grey(clips):
        small = F.avg_pool2d(grey, _SHRINK)
        field = motion(small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1))[:, :2]
        length = field.square().sum(1).sqrt().flatten(1)
        count = max(1, int(_FASTEST * length.shape[1]))
        found.append(_SHRINK * length.topk(count, 1).values.mean(1).unflatten(0, (len(grey), -1)).mean(1))
    return torch.cat(found).double().numpy()


def dynamic_degree(clips: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(N,) booleans: clips that are faster than the median of the real ones."""
    return speeds(clips) > np.median(speeds(real))


def smoothness(clips: np.ndarray) -> np.ndarray:
    """(N,) in [0, 1]: 1 minus half the mean second difference over the mean first; 1 for a still clip.

    Raises:
        ValueError: clips of fewer than three frames, or of another shape.
    """
    if clips.ndim != 5 or clips.shape[1] < 3:
        raise ValueError(f"smoothness needs clips (N, T, H, W, 3) of at least 3 frames, got {clips.shape}")
    found = []
    for grey in _grey(clips):
        small = F.avg_pool2d(grey, _CELL)
        first, second = small.diff(dim=1), small.diff(n=2, dim=1)
        change = first.abs().flatten(1).mean(1)
        found.append(1 - second.abs().flatten(1).mean(1) / (2 * change.clamp_min(1e-9)))
    return torch.cat(found).double().numpy()


def _grey(clips: np.ndarray) -> Iterator[torch.Tensor]:
    """Batches (B, T, H, W) in [0, 1]."""
    if clips.ndim != 5 or clips.shape[-1] != 3 or clips.shape[1] < 2:
        raise ValueError(f"clips must be (N, T, H, W, 3) of at least 2 frames, got {clips.shape}")
    for start in range(0, len(clips), _BATCH):
        yield torch.from_numpy(np.array(clips[start : start + _BATCH])).float().mean(-1) / 255
