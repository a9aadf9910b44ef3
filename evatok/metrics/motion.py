"""Is motion encoded? Changes between frames inside temporal blocks, reconstruction against original.

A tokenizer that encodes one still per block can have a high PSNR and no motion at all. Two metrics reveal this: how
much of the change is reconstructed (`motion_ratio`), and how much of it is correct (`motion_correlation`). Changes from
one block to the next do not count, because a sequence of stills has them too. Both metrics are 1 for equal clips and 0
for a sequence of stills. Both are functions of sums over clips (`motion_moments`), which can be added batch by batch.

Legend: B clips, N clips of a set, T frames; clips (B, 3, T, H, W).
"""

from __future__ import annotations

import numpy as np
import torch

from evatok.metrics.pixels import Clips, check_clips

BLOCK = 4
"""Frames per temporal block, the papers' temporal compression: the same for every tokenizer that is compared."""

MOMENTS = 8
ROUNDING = 1e-12
"""The fraction of a sum of squares that rounding alone can leave as variance."""


def motion_moments(real: Clips, fake: Clips, block: int = BLOCK) -> torch.Tensor:
    """Sums over the changes inside each clip's blocks, (B, MOMENTS) float64; they can be added over clips.

    In order: their number, the sums of r, f, r^2, f^2, r f, |r| and |f|, with r and f the changes of one value of the
    real and of the reconstructed clip. Raises ValueError, see `evatok.metrics.pixels.check_clips`, and for blocks or
    clips of one frame.
    """
    real, fake = check_clips(real, fake)
    if block < 2 or real.shape[2] < 2:
        raise ValueError(f"blocks of {block} frames in clips of {real.shape[2]} hold no change from frame to frame")
    inside = (torch.arange(1, real.shape[2], device=real.device) % block).nonzero()[:, 0]
    r, f = (clips.float().diff(dim=2)[:, :, inside].flatten(1).double() for clips in (real, fake))
    number = torch.full((len(r),), float(r.shape[1]), dtype=torch.float64, device=r.device)
    squares = (r.square().sum(1), f.square().sum(1), (r * f).sum(1))
    return torch.stack([number, r.sum(1), f.sum(1), *squares, r.abs().sum(1), f.abs().sum(1)], dim=1)


def motion_ratio(real: Clips, fake: Clips, block: int = BLOCK) -> float:
    """How much of the change inside blocks is reconstructed, see `ratio_of`. Raises as `motion_moments`."""
    return ratio_of(motion_moments(real, fake, block).cpu().numpy())


def motion_correlation(real: Clips, fake: Clips, block: int = BLOCK) -> float:
    """How much of that change is correct, see `correlation_of`. Raises as `motion_moments`."""
    return correlation_of(motion_moments(real, fake, block).cpu().numpy())


def ratio_of(moments: np.ndarray) -> float:
    """Mean absolute change of reconstructions over that of the clips, from moments (N, MOMENTS).

    NaN if the clips do not change at all.
    """
    *_, real, fake = moments.sum(0)
    return float(fake / real) if real else float("nan")


def correlation_of(moments: np.ndarray) -> float:
    """Pearson's correlation of the changes, pooled over clips, from moments (N, MOMENTS).

    0 if the reconstructions' changes are all equal, above all zero; NaN if the clips' are.
    """
    number, r, f, rr, ff, rf, *_ = moments.sum(0)
    real, fake, both = rr - r * r / number, ff - f * f / number, rf - r * f / number
    if real <= ROUNDING * rr:
        return float("nan")
    return float(both / np.sqrt(real * fake)) if fake > ROUNDING * ff else 0.0
