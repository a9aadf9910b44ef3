"""The attention masks of one clip as a figure: which queries may look at which keys, a panel per mask."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evatok.models import attention
from evatok.pictures import figures
from evatok.tokenizers import layout

TITLES = {
    "encoder_self": ("encoder, self-attention", "tokens", "tokens"),
    "encoder_cross": ("encoder, cross-attention", "tokens", "patches"),
    "decoder_self": ("decoder, self-attention", "patches", "patches"),
    "decoder_cross": ("decoder, cross-attention", "patches", "tokens"),
}
"""Title, queries and keys of each mask."""


@dataclass(frozen=True)
class Mask:
    """visible (queries, keys): whether a query may look at a key; and the temporal block of each."""

    visible: np.ndarray
    query_block: np.ndarray
    key_block: np.ndarray


def masks(assignment: tuple[int, ...], patches: int) -> dict[str, Mask]:
    """Build the masks under which the tokenizer runs a clip with this assignment, by the names of TITLES."""
    at = layout.Layout.of(torch.tensor([assignment]))
    tokens = at.block[0].numpy()
    grid = np.repeat(np.arange(len(assignment)), patches)
    return {
        "encoder_self": Mask(_dense(layout.token_to_token(at)), tokens, tokens),
        "encoder_cross": Mask(_dense(layout.token_to_patch(at, patches)), tokens, grid),
        "decoder_self": Mask(_dense(layout.patch_to_patch(at, patches)), grid, grid),
        "decoder_cross": Mask(_dense(layout.patch_to_token(at, patches)), grid, tokens),
    }


def _dense(mask: attention.Mask) -> np.ndarray:
    """The (queries, keys) mask of a layout with one row per clip, where no mask is sparse."""
    assert isinstance(mask, torch.Tensor)
    return mask[0, 0].numpy()


def cells(found: dict[str, Mask]) -> pd.DataFrame:
    """Return a line per cell: mask, query, key, query_block, key_block (all from 0), visible (0 or 1)."""
    frames = []
    for name, mask in found.items():
        query, key = (index.ravel() for index in np.indices(mask.visible.shape))
        columns = {"query": query, "key": key, "query_block": mask.query_block[query], "key_block": mask.key_block[key]}
        frames.append(pd.DataFrame({"mask": name, **columns, "visible": mask.visible.ravel().astype(int)}))
    return pd.concat(frames, ignore_index=True)


def drawn(found: dict[str, Mask]) -> Figure:
    """Draw a panel per mask, queries downwards, with visible cells in the colour of the query's block."""
    figure = Figure(figsize=(7.2, 7.6))
    for axes, (name, mask) in zip(figure.subplots(2, 2).flat, found.items(), strict=True):
        _panel(axes, mask, *TITLES[name])
    return figure


def _panel(axes: Axes, mask: Mask, title: str, query: str, key: str) -> None:
    rows, columns = mask.visible.shape
    axes.set(xlim=(0, columns), ylim=(rows, 0), title=title, xlabel=f"{key} (keys)")
    axes.set_ylabel(f"{query} (queries)")
    axes.grid(False)
    for top, bottom, left, right in rectangles(mask):
        colour = figures.COLOURS[mask.query_block[top]]
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor=colour, linewidth=0))
    for edge in _edges(mask.key_block):
        axes.axvline(edge, color="#888888", linewidth=0.6)
    for edge in _edges(mask.query_block):
        axes.axhline(edge, color="#888888", linewidth=0.6)
    axes.set_xticks([0, *_edges(mask.key_block), columns])
    axes.set_yticks([0, *_edges(mask.query_block), rows])


def rectangles(mask: Mask) -> Iterator[tuple[int, int, int, int]]:
    """Return visible cells as (top, bottom, left, right), ends exclusive, merging a block's queries with equal view."""
    keyed = np.column_stack((mask.query_block, mask.visible))
    starts = [0, *(np.flatnonzero((keyed[1:] != keyed[:-1]).any(1)) + 1).tolist(), len(keyed)]
    for top, bottom in itertools.pairwise(starts):
        steps = np.diff(np.concatenate(([0], mask.visible[top].astype(int), [0])))
        for left, right in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
            yield top, bottom, int(left), int(right)


def _edges(blocks: np.ndarray) -> list[int]:
    """Return where one block ends and the next begins."""
    edges: list[int] = (np.flatnonzero(np.diff(blocks)) + 1).tolist()
    return edges
