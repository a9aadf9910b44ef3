"""Multi-level pooling: the features that initialise a block's 1D queries.

A block's H x W patch features are average-pooled to 1, 1, 2, 4, 8, ... cells and the levels are concatenated; the
queries of a block of n tokens start from the first n cells. Every power of two completes a level, so each length covers
the entire frame (GigaTok's initialisation, applied per temporal block as we read the paper's Sec. 3.1).
"""

from __future__ import annotations

import torch


def pyramid(grid: tuple[int, int], slots: int) -> torch.Tensor:
    """Return the averaging matrix (slots, H*W): row s holds the weights of slot s; every row sums to one.

    Raises:
        ValueError: more slots than the levels have, down to the finest one without empty cells.
    """
    height, width = grid
    levels = [_cells(grid, 1, 1), _cells(grid, 1, 1)]
    high, wide = 1, 1
    while sum(len(level) for level in levels) < slots:
        can_widen, can_heighten = 2 * wide <= width, 2 * high <= height
        if not (can_widen or can_heighten):
            raise ValueError(f"a {height}x{width} grid pools to at most {2 * high * wide} slots, {slots} requested")
        if can_widen and (wide <= high or not can_heighten):
            wide *= 2
        else:
            high *= 2
        levels.append(_cells(grid, high, wide))
    return torch.cat(levels)[:slots]


def _cells(grid: tuple[int, int], high: int, wide: int) -> torch.Tensor:
    """(high*wide, H*W) averages over a regular partition of the grid."""
    height, width = grid
    rows = torch.arange(height) * high // height
    columns = torch.arange(width) * wide // width
    cell = (rows[:, None] * wide + columns[None]).reshape(-1)
    weights = torch.nn.functional.one_hot(cell, high * wide).T.float()
    return weights / weights.sum(1, keepdim=True)
