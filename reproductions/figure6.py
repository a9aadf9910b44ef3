"""Figure 6 of the supplement (Sec. F): the four attention masks of its worked example, from our own code.

    python reproductions/figure6.py            seconds; no GPU, no download

A clip is patchified to 4 x 4 x 4, so 16 patches in each of 4 temporal blocks, and its blocks get (16, 8, 2, 2) tokens.
In the encoder tokens ask, in the decoder patches do; each first among themselves, then in the other sequence. Expected:
"The query embeddings of each temporal block can only attend to query embeddings or reference embeddings that are no
later than this temporal block." Writes results/figures/figure6.svg, and figure6.csv with one line a cell.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evatok.models import attention
from evatok.pictures import figures
from evatok.storage import records
from evatok.tokenizers import layout

ASSIGNMENT = (16, 8, 2, 2)
PATCHES = 16
TITLES = {
    "encoder_self": ("encoder, self-attention", "tokens", "tokens"),
    "encoder_cross": ("encoder, cross-attention", "tokens", "patches"),
    "decoder_self": ("decoder, self-attention", "patches", "patches"),
    "decoder_cross": ("decoder, cross-attention", "patches", "tokens"),
}


@dataclass(frozen=True)
class Mask:
    """visible (queries, keys): whether a query may look at a key; and the temporal block of each."""

    visible: np.ndarray
    query_block: np.ndarray
    key_block: np.ndarray


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.REPOSITORY / "results", help="folder of results")
    folder = parser.parse_args(argv).results / "figures"
    found = masks(ASSIGNMENT, PATCHES)
    with figures.style():
        path = figures.save(drawn(found), folder, "figure6", cells(found))
    print(f"supplement Figure 6, assignment {ASSIGNMENT}, {PATCHES} patches a block: {path}")
    for name, mask in found.items():
        title, query, key = TITLES[name]
        rows, columns = mask.visible.shape
        print(f"  {title}: {rows} {query} look at {columns} {key}, {mask.visible.mean():.1%} visible")
    return 0


def masks(assignment: tuple[int, ...], patches: int) -> dict[str, Mask]:
    """The masks with which the tokenizer runs a clip of this assignment, by the names of TITLES."""
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
    """The (queries, keys) mask of a layout with a row a clip, where no mask is sparse."""
    assert isinstance(mask, torch.Tensor)
    return mask[0, 0].numpy()


def cells(found: dict[str, Mask]) -> pd.DataFrame:
    """One line a cell: mask, query, key, query_block, key_block (all from 0), visible (0 or 1)."""
    frames = []
    for name, mask in found.items():
        query, key = (index.ravel() for index in np.indices(mask.visible.shape))
        columns = {"query": query, "key": key, "query_block": mask.query_block[query], "key_block": mask.key_block[key]}
        frames.append(pd.DataFrame({"mask": name, **columns, "visible": mask.visible.ravel().astype(int)}))
    return pd.concat(frames, ignore_index=True)


def drawn(found: dict[str, Mask]) -> Figure:
    """A panel a mask, queries downwards; cells a query may look at in the colour of its block."""
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
    """Visible cells as (top, bottom, left, right), ends excluded: queries of one block that see the same are one."""
    keyed = np.column_stack((mask.query_block, mask.visible))
    starts = [0, *(np.flatnonzero((keyed[1:] != keyed[:-1]).any(1)) + 1).tolist(), len(keyed)]
    for top, bottom in itertools.pairwise(starts):
        steps = np.diff(np.concatenate(([0], mask.visible[top].astype(int), [0])))
        for left, right in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
            yield top, bottom, int(left), int(right)


def _edges(blocks: np.ndarray) -> list[int]:
    """Where one block ends and the next begins."""
    edges: list[int] = (np.flatnonzero(np.diff(blocks)) + 1).tolist()
    return edges


if __name__ == "__main__":
    sys.exit(main())
