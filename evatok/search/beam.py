"""Find a good assignment per clip without scoring all candidates: a beam search over blocks, or chunks of blocks.

After every chunk of blocks each clip keeps its `width` best prefixes; within a chunk all continuations are tried.
So `chunk=1` is a plain beam search (greedy at width 1), `width=1` with a chunk of T blocks is the supplement's search
for longer clips (Sec. B), and `chunk=K` is the exact search. It takes at most width * (m + ... + m^chunk) block
reconstructions per clip and chunk: linear in K, where the exact search grows with m^K. As later blocks attend to more
earlier ones, time approaches K^2 in clips so long that attention dominates.

Percentile of the choice with the embedded toy proxy (K = 4, m = 5; reward of L1, w_q of 1.2 and 1.616), lowest and
highest over both weights on 32 Freedoom and 32 arcade validation clips (record speed-20261122T105917-e2b466a1):

    search         reconstructions  percentile
    greedy                      20  98.2 to  99.5
    width 2                     35  99.4 to 100.0
    width 3                     50  99.8 to 100.0
    chunks of 2                 60  99.3 to  99.9
    exact tree                 780            100

Tried and rejected: restricting a block to the neighbours of the previous level, because good levels jump; and branch
and bound, which is exact but whose only bound, an error of at least 0, is weak: it needs 354 reconstructions per clip
at w_q = 1.2 and 642 at 1.616 (same record), different ones for each clip, for the label of one weight, where the tree's
table gives the labels of all weights. `benchmarks/search.py` measures all of these but the neighbours.

Legend: B clips, W prefixes per clip, K temporal blocks, k blocks so far, m levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale, weighed
from evatok.data.clips import network_batches
from evatok.metrics.catalogue import quality
from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.models.precision import autocast
from evatok.routing.trained_router import OperatingPoint
from evatok.search.frontier import BlockMetrics, Frontier, Walk, psnr_of
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.incremental import BlockwiseTokenizer

PAYBACK = 0.8
"""Fraction of its cost that the first block of a long clip is expected to pay back, see `prefix_reward`.

Tuned on 32 Freedoom clips, and good for arcade clips too; anything from 0.7 to 0.9 works about equally well.
"""


@dataclass(frozen=True)
class SearchResult:
    """The assignments that a search chose.

    Attributes:
        assignments: (B, K) tokens per block.
        rewards: (B,) their exact proxy rewards.
        evaluations: block reconstructions per clip.
    """

    assignments: np.ndarray
    rewards: np.ndarray
    evaluations: int


@torch.no_grad()
def beam_search(
    tokenizer: AdaptiveTokenizer,
    clips: torch.Tensor,
    point: OperatingPoint,
    *,
    width: int = 3,
    chunk: int = 1,
    payback: float = PAYBACK,
    perceptual: PerceptualDistance | SomeFrames | None = None,
) -> SearchResult:
    """Search for the assignment with the highest proxy reward of each clip (B, 3, T, H, W) in [0, 1].

    Args:
        width: prefixes kept per clip after a chunk.
        chunk: number of blocks searched exhaustively together.
        perceptual: the metric that `point.metric` names, unless that is l1, mse or psnr.

    Raises:
        ValueError: a width or chunk below 1, or a metric without `perceptual`.
    """
    if width < 1 or chunk < 1:
        raise ValueError(f"width and chunk must be at least 1, got {width} and {chunk}")
    blocks = tokenizer.config.candidates.blocks
    measure = BlockMetrics(clips, blocks, perceptual, point.metric)
    search = _Search(Walk(BlockwiseTokenizer(tokenizer, clips), measure), point, width, payback)
    beam = search.walk.start()
    for start in range(0, blocks, chunk):
        beam = search.descend(beam, min(start + chunk, blocks))
    return SearchResult(
        beam.lengths[:, 0].cpu().numpy(), search.rewards(beam)[:, 0].numpy(), search.walk.evaluations // len(clips)
    )


def search_set(
    tokenizer: AdaptiveTokenizer,
    clips: np.ndarray,
    point: OperatingPoint,
    *,
    width: int = 3,
    chunk: int = 1,
    payback: float = PAYBACK,
    batch: int = 32,
    bf16: bool = True,
    perceptual: PerceptualDistance | SomeFrames | None = None,
) -> SearchResult:
    """Run `beam_search` on uint8 clips (N, T, H, W, 3), batch by batch, on the tokenizer's device."""
    device = next(tokenizer.parameters()).device
    parts = []
    for real, _ in network_batches(clips, batch, device):
        with autocast(device, bf16):
            result = beam_search(
                tokenizer, real, point, width=width, chunk=chunk, payback=payback, perceptual=perceptual
            )
        parts.append(result)
    return SearchResult(
        np.concatenate([part.assignments for part in parts]),
        np.concatenate([part.rewards for part in parts]),
        parts[0].evaluations,
    )


def prefix_reward(
    quality: np.ndarray,
    tokens: np.ndarray,
    blocks: int,
    candidates: CandidateSet,
    scale: Scale,
    w_q: float,
    payback: float = PAYBACK,
) -> np.ndarray:
    """Compute proxy rewards (B, W) of prefixes of k `blocks`, as if the clip continued at the same quality and cost.

    Prefixes of equal length are comparable: quality (B, W) is that of the blocks so far, tokens (B, W) are scaled to K
    blocks, and both enter the z-scores of the complete clip's reward. As tokens spent early also serve later blocks,
    cost is discounted by payback * (K - k) / K. For complete clips this is the proxy reward itself.
    """
    total = candidates.blocks
    charged = 1 - payback * (total - blocks) / total
    return weighed(quality, charged * tokens * total / blocks, scale, w_q)


def search_evaluations(levels: int, blocks: int, *, width: int, chunk: int = 1) -> int:
    """Number of block reconstructions per clip in `beam_search`."""
    total, alive = 0, 1
    for start in range(0, blocks, chunk):
        depth = min(chunk, blocks - start)
        total += alive * sum(levels**k for k in range(1, depth + 1))
        alive = min(width, alive * levels**depth)
    return total


@dataclass(frozen=True)
class _Search:
    walk: Walk
    point: OperatingPoint
    width: int
    payback: float

    def descend(self, beam: Frontier, end: int) -> Frontier:
        """Extend a beam to `end` blocks and keep the best, depth first, so that few prefixes are alive at once."""
        children = [self.walk.extend(beam, level) for level in self.walk.candidates.levels]
        if children[0].lengths.shape[2] < end:
            children = [self.descend(child, end) for child in children]
        return self._best(children)

    def _best(self, beams: list[Frontier]) -> Frontier:
        """Keep the best `width` prefixes of several beams, best first."""
        rewards = torch.cat([self.rewards(beam) for beam in beams], dim=1)
        order = rewards.argsort(dim=1, descending=True, stable=True)[:, : self.width]
        return beams[0].take(beams[1:], order.to(beams[0].lengths.device))

    def rewards(self, beam: Frontier) -> torch.Tensor:
        """(B, W) float64 rewards of a beam's prefixes, on the CPU."""
        blocks = beam.lengths.shape[2]
        return torch.from_numpy(
            prefix_reward(
                self._quality(beam, blocks),
                beam.lengths.sum(2).cpu().numpy(),
                blocks,
                self.walk.candidates,
                self.point.scale,
                self.point.w_q,
                self.payback,
            )
        )

    def _quality(self, beam: Frontier, blocks: int) -> np.ndarray:
        """(B, W) quality of the blocks so far, higher is better."""
        metric = "mse" if self.point.metric == "psnr" else self.point.metric
        if metric not in beam.errors:
            raise ValueError(
                f"the reward's metric {metric!r} is not measured: pass perceptual=perceptual_metric({metric!r})"
            )
        means = beam.errors[metric].double().cpu().numpy() / blocks
        if self.point.metric == "psnr":
            means = psnr_of(means)
        return quality(means, self.point.metric)
