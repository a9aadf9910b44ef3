"""Hand-made statistics of a clip that tell what its blocks will need: how much detail, how much of it is new.

Legend: B clips, K temporal blocks of t frames, P cells a block, S statistics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

SCALES = 3  # the picture as it is, halved, and halved again
REACH = 2  # pixels, at the halved scales, over which a moved picture is looked for
CELL_STATISTICS = 3 + 2 * (4 * SCALES + SCALES - 1)


def clip_statistics(clips: torch.Tensor, blocks: int) -> torch.Tensor:
    """(B, 2 * (5K + 2)) statistics of clips (B, 3, T, H, W), and their logarithms.

    A block's mean, spread, spatial gradient, change from frame to frame and change from the block before (zero
    for the first), and the clip's mean and spread.
    """
    x = rearrange(clips, "b c (k t) h w -> b k (c t) h w", k=blocks)
    frames = rearrange(clips, "b c (k t) h w -> b k c t h w", k=blocks)
    per_block = [
        x.mean((2, 3, 4)),
        x.flatten(2).std(2),
        (x.diff(dim=3).abs().mean((2, 3, 4)) + x.diff(dim=4).abs().mean((2, 3, 4))) / 2,
        frames.diff(dim=3).abs().flatten(2).mean(2),
        F.pad((frames[:, 1:] - frames[:, :-1]).abs().flatten(2).mean(2), (1, 0)),
    ]
    whole = torch.stack((clips.flatten(1).mean(1), clips.flatten(1).std(1)), dim=1)
    statistics = torch.cat((*per_block, whole), dim=1)
    return torch.cat((statistics, (statistics + 1e-4).log()), dim=1)


def cell_statistics(clips: torch.Tensor, blocks: int, cell: int = 16) -> torch.Tensor:
    """(B, K*P, S) statistics of every `cell` x `cell` square of every block of clips (B, 3, T, H, W).

    The square's colour and then, at three scales of its brightness: detail (distance from the picture halved and
    doubled again), mean and largest change from frame to frame, distance from the last frame of the block before
    (zero in the first), at the two smaller scales also the least such distance if that frame may move as a whole;
    then the logarithms of all but the colour. H and W are multiples of `cell`, `cell` of 8.
    """
    if cell % 2**SCALES or clips.shape[-1] % cell or clips.shape[-2] % cell:
        raise ValueError(f"cells of {cell} pixels do not tile clips of {clips.shape[-2]} x {clips.shape[-1]}")
    colour = [_in_cells(clips[:, channel], blocks, cell).mean(2) for channel in range(3)]
    found: list[torch.Tensor] = []
    scaled = clips.mean(1)
    for scale in range(SCALES):
        size = cell >> scale
        halved = F.avg_pool2d(scaled, 2)
        doubled = halved.repeat_interleave(2, -1).repeat_interleave(2, -2)
        change = _in_cells(F.pad((scaled[:, 1:] - scaled[:, :-1]).abs(), (0, 0, 0, 0, 1, 0)), blocks, size)
        found += [_in_cells((scaled - doubled).abs(), blocks, size).mean(2), change.mean(2), change.amax(2)]
        found.append(_news(scaled, blocks, size, reach=0).mean(2))
        if scale:
            found.append(_news(scaled, blocks, size, REACH).mean(2))
        scaled = halved
    return torch.stack(colour + found + [(value + 1e-3).log() for value in found], dim=-1).flatten(1, 2)


def _news(frames: torch.Tensor, blocks: int, cell: int, reach: int) -> torch.Tensor:
    """(B, K, t, P) distance of frames (B, T, H, W) from the last of the block before, moved by up to `reach` pixels."""
    now = rearrange(frames, "b (k t) h w -> b k t h w", k=blocks)
    last = F.pad(now[:, :-1, -1:], (0, 0, 0, 0, 0, 0, 1, 0))
    moves = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    distances = (_in_cells((now - last.roll(move, (-2, -1))).abs().flatten(1, 2), blocks, cell) for move in moves)
    least = next(distances)
    for distance in distances:
        least = torch.minimum(least, distance)
    least[:, 0] = 0
    return least


def _in_cells(frames: torch.Tensor, blocks: int, cell: int) -> torch.Tensor:
    """(B, T, H, W) -> (B, K, t, P) means of squares."""
    return rearrange(F.avg_pool2d(frames, cell), "b (k t) y x -> b k t (y x)", k=blocks)
