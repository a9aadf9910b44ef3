"""Score a clip under every candidate assignment: by brute force, or by the exact prefix tree.

The reconstruction of block k depends only on the assignment's first k entries, so candidates that agree on their first
k blocks share that work: m + m^2 + ... + m^K block reconstructions (780 for the paper's 5 levels and 4 blocks) replace
the K * m^K (2,500) of brute force. `evatok.search.beam` finds a good assignment with far fewer.

Legend: C clips, K temporal blocks, m levels, A = m^K candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from evatok.assignments.candidates import CandidateSet
from evatok.data.clips import network_batches
from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.models.precision import autocast
from evatok.search.frontier import BlockMetrics, Frontier, Walk, psnr_of, side_by_side
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.incremental import BlockwiseTokenizer

__all__ = ["SEARCHES", "BlockMetrics", "block_visits", "brute_force", "prefix_tree", "score_set", "visits"]

Scores = dict[str, np.ndarray]
Progress = Callable[[], object]

ROWS = 32
"""Rows per matrix product in the tree: a smaller batch of clips is filled up with sibling branches.

At toy size on a CPU core in bfloat16, this saves a third of the time for 4 clips.
"""


@torch.no_grad()
def prefix_tree(
    tokenizer: AdaptiveTokenizer,
    clips: torch.Tensor,
    perceptual: PerceptualDistance | SomeFrames | None = None,
    name: str = "perceptual",
    tick: Progress | None = None,
    *,
    rows: int = ROWS,
) -> Scores:
    """Compute exact scores (C, A) of clips (C, 3, T, H, W) under every candidate, by metric: l1, mse, psnr, perceptual.

    Walks the tree of prefixes depth first with all clips at once; clips in one visit share their lengths, so that every
    product is dense. For few clips, sibling branches are walked join_siblings as long as clips times branches are at
    most `rows`, the shorter ones padded; so at most 2 * K * max(rows, C) prefixes are cached. `tick` is called after
    each of the m + ... + m^K visits.
    """
    candidates = tokenizer.config.candidates
    walk = Walk(BlockwiseTokenizer(tokenizer, clips), BlockMetrics(clips, candidates.blocks, perceptual, name))
    leaves: list[Frontier] = []
    _visit(walk, walk.start(), leaves, rows, tick)
    return _in_index_order(leaves, candidates)


@torch.no_grad()
def brute_force(
    tokenizer: AdaptiveTokenizer,
    clips: torch.Tensor,
    perceptual: PerceptualDistance | SomeFrames | None = None,
    name: str = "perceptual",
    tick: Progress | None = None,
) -> Scores:
    """Compute the same scores by reconstructing every clip under every candidate from scratch, as a reference."""
    candidates = tokenizer.config.candidates
    measure = BlockMetrics(clips, candidates.blocks, perceptual, name)
    leaves = []
    for row in candidates.rows:
        lengths = expand_assignment(tuple(row.tolist()), len(clips)).to(clips.device)
        fakes = tokenizer(clips, lengths).clips.chunk(candidates.blocks, dim=2)
        values = [measure(block, fake) for block, fake in enumerate(fakes)]
        leaves.append({key: torch.stack([v[key] for v in values]).sum(0) for key in values[0]})
        if tick is not None:
            tick()
    return _scores({key: torch.stack([leaf[key] for leaf in leaves], dim=1) for key in leaves[0]}, candidates.blocks)


SEARCHES = {"tree": prefix_tree, "brute": brute_force}


def score_set(
    tokenizer: AdaptiveTokenizer,
    clips: np.ndarray,
    *,
    search: str = "tree",
    batch: int = 32,
    bf16: bool = True,
    perceptual: PerceptualDistance | SomeFrames | None = None,
    name: str = "perceptual",
    tick: Progress | None = None,
) -> Scores:
    """Score uint8 clips (N, T, H, W, 3) batch by batch on the tokenizer's device: (N, A) by metric.

    Raises:
        ValueError: an unknown search.
    """
    if search not in SEARCHES:
        raise ValueError(f"unknown search {search!r}; choose {' or '.join(SEARCHES)}")
    device = next(tokenizer.parameters()).device
    parts = []
    for real, _ in network_batches(clips, batch, device):
        with autocast(device, bf16):
            parts.append(SEARCHES[search](tokenizer, real, perceptual, name, tick))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def visits(candidates: CandidateSet, search: str) -> int:
    """Number of calls of `tick` per batch."""
    if search == "brute":
        return len(candidates)
    return block_visits(len(candidates.levels), candidates.blocks)


def block_visits(levels: int, blocks: int) -> int:
    """Number of block reconstructions of the prefix tree: m + m^2 + ... + m^K."""
    return sum(levels**k for k in range(1, blocks + 1))


def _visit(walk: Walk, frontier: Frontier, leaves: list[Frontier], rows: int, tick: Progress | None) -> None:
    """Walk all branches of a frontier; complete candidates are added to `leaves`, without KV cache."""
    join_siblings = len(walk.candidates.levels) * frontier.width * walk.clips <= rows
    siblings = []
    for level in walk.candidates.levels:
        child = walk.extend(frontier, level)
        if tick is not None:
            _ = [tick() for _ in range(frontier.width)]
        if child.lengths.shape[2] == walk.candidates.blocks:
            leaves.append(child)
        elif join_siblings:
            siblings.append(child)
        else:
            _visit(walk, child, leaves, rows, tick)
    if siblings:
        _visit(walk, side_by_side(siblings), leaves, rows, tick)


def _in_index_order(leaves: list[Frontier], candidates: CandidateSet) -> Scores:
    """Order the scores of all leaves by candidate index; every clip has the same leaves."""
    lengths = torch.cat([leaf.lengths[0] for leaf in leaves]).cpu().numpy()
    order = torch.from_numpy(candidates.index(lengths).argsort())
    errors = {key: torch.cat([leaf.errors[key] for leaf in leaves], dim=1) for key in leaves[0].errors}
    return _scores({key: value[:, order.to(value.device)] for key, value in errors.items()}, candidates.blocks)


def _scores(errors: dict[str, torch.Tensor], blocks: int) -> Scores:
    scores = {key: (value / blocks).cpu().numpy() for key, value in errors.items()}
    # The PSNR of a clip is that of its total error, not the mean of its blocks' PSNRs.
    scores["psnr"] = psnr_of(scores["mse"])
    return scores
