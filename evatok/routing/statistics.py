"""Handcrafted statistics that predict what a clip's blocks need: how much detail, and how much of it is new.

Legend: B clips, K temporal blocks of t frames, S statistics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

GRIDS = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (16, 16))
"""Cells that a block is pooled to, (rows, columns): the tokenizer's levels of pooling, and one step finer."""
SQUARE = 4  # side, in halved pixels, of the squares over which residuals are compared
STILL = (0.005, 0.02)  # mean distances below which a square counts as unchanged
CLIP_STATISTICS = 2 * 5  # per block; and 2 * 2 per clip
PYRAMID_STATISTICS = 2 * (6 * len(GRIDS) + 3 + len(STILL))  # per block


def clip_statistics(clips: torch.Tensor, blocks: int) -> torch.Tensor:
    """(B, 2 * (5K + 2)) statistics of clips (B, 3, T, H, W), and their logarithms.

    Each block's mean, standard deviation, spatial gradient, change between frames and change from the previous block
    (zero for the first), and the clip's mean and standard deviation.
    """
    x = rearrange(clips, "b c (k t) h w -> b k (c t) h w", k=blocks)
    frames = rearrange(clips, "b c (k t) h w -> b k c t h w", k=blocks)
    per_block = [
        x.mean((2, 3, 4)),
        x.flatten(2).std(2),
        (x.diff(dim=3).abs().mean((2, 3, 4)) + x.diff(dim=4).abs().mean((2, 3, 4))) / 2,
        _change(frames),
        F.pad((frames[:, 1:] - frames[:, :-1]).abs().flatten(2).mean(2), (1, 0)),
    ]
    per_clip = torch.stack((clips.flatten(1).mean(1), clips.flatten(1).std(1)), dim=1)
    statistics = torch.cat((*per_block, per_clip), dim=1)
    return torch.cat((statistics, (statistics + 1e-4).log()), dim=1)


def _change(frames: torch.Tensor) -> torch.Tensor:
    """Mean absolute changes (B, K) between the frames of blocks (B, K, 3, t, H, W); 0 for blocks of one frame."""
    if frames.shape[3] == 1:
        return frames.new_zeros(frames.shape[:2])
    return frames.diff(dim=3).abs().flatten(2).mean(2)


def pyramid_statistics(clips: torch.Tensor, blocks: int) -> torch.Tensor:
    """(B, K * PYRAMID_STATISTICS) statistics of clips (B, 3, T, H, W): what pooling each block would lose.

    A tokenizer whose queries are pooled features loses, with few tokens, what varies within a pooled cell. So each
    block, at half its size, is compared with its means over the cells of every grid, both directly and as the
    difference from the last frame before it, which the decoder knows: mean and root mean square of both residuals, the
    mean of the smaller one of each square, the maximum of the second. In addition, for the difference from the last
    frame before direct: mean, maximum, root mean square, and the fraction of squares that changed. Finally, the
    logarithms of all. H and W must be multiples of 32.
    """
    if clips.shape[-1] % 32 or clips.shape[-2] % 32:
        raise ValueError(f"grids of up to 16 x 16 cells do not tile clips of {clips.shape[-2]} x {clips.shape[-1]}")
    halved = F.avg_pool2d(clips.flatten(1, 2), 2).unflatten(1, clips.shape[1:3])
    now = rearrange(halved, "b c (k t) h w -> b k c t h w", k=blocks)
    before = F.pad(now[:, :-1, :, -1:], (0, 0, 0, 0, 0, 0, 0, 0, 1, 0))
    direct, change = (rearrange(x, "b k c t h w -> (b k) (c t) h w") for x in (now, now - before))
    per_block: list[torch.Tensor] = []
    for grid in GRIDS:
        plain, new = (_in_squares(_residual(x, grid)) for x in (direct, change))
        means = [x.mean((1, 2)) for x in (plain, new, torch.minimum(plain, new))]
        per_block += [*means, new.amax((1, 2)), _root_mean_square(new), _root_mean_square(plain)]
    moved = _in_squares(change.abs())
    per_block += [moved.mean((1, 2)), moved.amax((1, 2)), _root_mean_square(moved)]
    per_block += [(moved > still).float().mean((1, 2)) for still in STILL]
    statistics = rearrange(torch.stack(per_block, dim=1), "(b k) s -> b (k s)", k=blocks)
    return torch.cat((statistics, (statistics + 1e-3).log()), dim=1)


def _residual(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """|x - means of x over the cells of a grid|, for x (N, C, H, W)."""
    height, width = x.shape[-2] // grid[0], x.shape[-1] // grid[1]
    means = F.avg_pool2d(x, (height, width))
    return (x - means.repeat_interleave(height, -2).repeat_interleave(width, -1)).abs()


def _in_squares(x: torch.Tensor) -> torch.Tensor:
    """Means (N, y, x) of (N, C, H, W) over channels and squares."""
    return F.avg_pool2d(x.mean(1), SQUARE)


def _root_mean_square(x: torch.Tensor) -> torch.Tensor:
    """Root mean squares (N,) of (N, y, x)."""
    return x.square().mean((1, 2)).sqrt()
