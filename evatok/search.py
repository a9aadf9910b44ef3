"""Scores of a clip under every candidate assignment: brute force, and the exact prefix tree.

What block k looks like depends only on the assignment's first k entries, so candidates that agree on their first k
blocks share that work: m + m^2 + ... + m^K block reconstructions (780 for the paper's 5 levels and 4 blocks) give
what brute force computes with K * m^K (2,500).

Legend: C clips, K temporal blocks, m levels, A = m^K candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from evatok.assignments import CandidateSet
from evatok.data.clips import to_network
from evatok.metrics.perceptual import PerceptualDistance
from evatok.models.blockwise import BlockwiseTokenizer, Prefix
from evatok.models.tokenizer import AdaptiveTokenizer, expand_assignment

Scores = dict[str, np.ndarray]
Progress = Callable[[], object]


class BlockMetrics:
    """Distances of one reconstructed block to the real one, as means over the block's pixels or frames.

    A clip's value is the mean over its blocks, as blocks are of equal size: l1 and mse of all pixels, and, with a
    perceptual metric, its mean over frames under that metric's name.
    """

    def __init__(
        self,
        clips: torch.Tensor,
        blocks: int,
        perceptual: PerceptualDistance | None,
        name: str = "perceptual",
    ) -> None:
        self.blocks = clips.chunk(blocks, dim=2)
        self.perceptual, self.name = perceptual, name
        self._features = None
        if perceptual is not None:
            self._features = [perceptual.features(_frames(block)) for block in self.blocks]

    def __call__(self, block: int, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """(C,) values for pixels (C, 3, t, H, W) of one block; pixels are clamped to [0, 1] first."""
        fake = fake.float().clamp(0, 1)
        difference = (fake - self.blocks[block]).flatten(1)
        # Norms need no array of their own, which is what costs most here.
        values = {
            "l1": torch.linalg.vector_norm(difference, 1, dim=1) / difference.shape[1],
            "mse": torch.linalg.vector_norm(difference, 2, dim=1).square() / difference.shape[1],
        }
        if self.perceptual is not None and self._features is not None:
            distance = self.perceptual.distance(self._features[block], self.perceptual.features(_frames(fake)))
            values[self.name] = distance.mean(1)
        return values


@torch.no_grad()
def prefix_tree(
    tokenizer: AdaptiveTokenizer,
    clips: torch.Tensor,
    perceptual: PerceptualDistance | None = None,
    name: str = "perceptual",
    tick: Progress | None = None,
) -> Scores:
    """Exact scores (C, A) of clips (C, 3, T, H, W) under every candidate, by metric: l1, mse, psnr, perceptual.

    Walks the tree of prefixes depth first with all clips at once, so that every product is dense: clips in one
    visit share their lengths. `tick` is called after each of the m + ... + m^K visits.
    """
    candidates = tokenizer.config.candidates
    session = BlockwiseTokenizer(tokenizer, clips)
    measure = BlockMetrics(clips, candidates.blocks, perceptual, name)
    leaves: list[dict[str, torch.Tensor]] = []

    def visit(block: int, prefix: Prefix, sums: dict[str, torch.Tensor]) -> None:
        for level in candidates.levels:
            pixels, longer = session.code_block(block, level, prefix)
            values = measure(block, pixels)
            so_far = {key: value + sums.get(key, 0.0) for key, value in values.items()}
            if tick is not None:
                tick()
            if block + 1 == candidates.blocks:
                leaves.append(so_far)
            else:
                visit(block + 1, longer, so_far)

    visit(0, Prefix(), {})
    return _per_clip(leaves, candidates.blocks)


@torch.no_grad()
def brute_force(
    tokenizer: AdaptiveTokenizer,
    clips: torch.Tensor,
    perceptual: PerceptualDistance | None = None,
    name: str = "perceptual",
    tick: Progress | None = None,
) -> Scores:
    """The same scores by reconstructing every clip under every candidate from scratch: the reference."""
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
    return _per_clip(leaves, candidates.blocks)


SEARCHES = {"tree": prefix_tree, "brute": brute_force}


def score_set(
    tokenizer: AdaptiveTokenizer,
    clips: np.ndarray,
    *,
    search: str = "tree",
    batch: int = 32,
    bf16: bool = True,
    perceptual: PerceptualDistance | None = None,
    name: str = "perceptual",
    tick: Progress | None = None,
) -> Scores:
    """Scores (N, A) of uint8 clips (N, T, H, W, 3), batch by batch, on the tokenizer's device.

    Raises:
        ValueError: an unknown search.
    """
    if search not in SEARCHES:
        raise ValueError(f"unknown search {search!r}: {' or '.join(SEARCHES)}")
    device = next(tokenizer.parameters()).device
    parts = []
    for start in range(0, len(clips), batch):
        real = to_network(clips[start : start + batch], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            parts.append(SEARCHES[search](tokenizer, real, perceptual, name, tick))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def visits(candidates: CandidateSet, search: str) -> int:
    """How often `tick` is called for one batch."""
    if search == "brute":
        return len(candidates)
    return block_visits(len(candidates.levels), candidates.blocks)


def block_visits(levels: int, blocks: int) -> int:
    """Block reconstructions of the prefix tree: m + m^2 + ... + m^K."""
    return sum(levels**k for k in range(1, blocks + 1))


def _per_clip(leaves: list[dict[str, torch.Tensor]], blocks: int) -> Scores:
    scores = {key: (torch.stack([leaf[key] for leaf in leaves], dim=1) / blocks).cpu().numpy() for key in leaves[0]}
    # The PSNR of a clip is that of its whole error, not a mean of its blocks' PSNRs; equal clips have no bound.
    scores["psnr"] = -10 * np.log10(np.maximum(scores["mse"], 1e-10))
    return scores


def _frames(clips: torch.Tensor) -> torch.Tensor:
    """(C, 3, t, H, W) -> (C, t, 3, H, W)."""
    return clips.transpose(1, 2)
