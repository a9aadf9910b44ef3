"""A good assignment of each clip without scoring them all: a beam over blocks, or over chunks of blocks.

After every chunk of blocks each clip keeps its `width` best prefixes; within a chunk all continuations are tried.
So `chunk=1` is a beam search (greedy at width 1), `width=1` with a chunk of T blocks the supplement's search for
longer clips (Sec. B), and `chunk=K` the exact search. Block reconstructions of a clip: at most
width * (m + ... + m^chunk) a chunk, which grows with K where the exact search grows with m^K; as later blocks look
back on more of them, time grows towards K^2 in clips long enough for attention to outweigh the rest.

Percentile of the choice with the embedded toy proxy (K = 4, m = 5; reward of L1, w_q of 1.2 and 1.616), lowest and
highest over both weights on 32 Freedoom and 32 arcade validation clips (record speed-20261122T105917-e2b466a1):

    search         reconstructions  percentile
    greedy                      20  98.2 to  99.5
    width 2                     35  99.4 to 100.0
    width 3                     50  99.8 to 100.0
    chunks of 2                 60  99.3 to  99.9
    exact tree                 780            100

Tried and left out: only the neighbours of a prefix's last level, as good levels jump, and branch and bound, which is
exact. That error is at least 0 is a weak bound: a clip needs 354 reconstructions at w_q = 1.2 and 642 at 1.616 (the
same record), other ones for each clip, for the label of one weight where the tree's table gives those of all.
`benchmarks/search.py` measures all but the neighbours again.

Legend: B clips, W prefixes a clip, K temporal blocks, k blocks so far, m levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale, weighed
from evatok.data.clips import to_network
from evatok.metrics.catalogue import quality
from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.models.precision import autocast
from evatok.routing.trained_router import OperatingPoint
from evatok.search.frontier import BlockMetrics, Frontier, Walk, psnr_of
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.incremental import BlockwiseTokenizer

PAYBACK = 0.8
"""Share of its cost that the first block of a long clip is expected to earn back, see `prefix_reward`.

Chosen on 32 Freedoom clips, right for arcade clips as well; anything from 0.7 to 0.9 does about as well.
"""


@dataclass(frozen=True)
class Found:
    """What a search chose.

    Attributes:
        assignments: (B, K) tokens per block.
        rewards: (B,) their proxy rewards, exact.
        evaluations: block reconstructions a clip.
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
) -> Found:
    """The assignment of the highest proxy reward found for each of clips (B, 3, T, H, W) in [0, 1].

    Args:
        width: prefixes a clip that survive a chunk; each clip has its own.
        chunk: blocks searched exhaustively together.
        perceptual: the metric that `point.metric` names, where it is neither l1, mse nor psnr.

    Raises:
        ValueError: a width or chunk below 1, or a metric that nothing measures.
    """
    if width < 1 or chunk < 1:
        raise ValueError(f"a search needs width and chunk of at least 1, got {width} and {chunk}")
    blocks = tokenizer.config.candidates.blocks
    measure = BlockMetrics(clips, blocks, perceptual, point.metric)
    search = _Search(Walk(BlockwiseTokenizer(tokenizer, clips), measure), point, width, payback)
    beam = search.walk.start()
    for start in range(0, blocks, chunk):
        beam = search.descend(beam, min(start + chunk, blocks))
    return Found(
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
) -> Found:
    """`beam_search` of uint8 clips (N, T, H, W, 3), batch by batch, on the tokenizer's device."""
    device = next(tokenizer.parameters()).device
    parts = []
    for start in range(0, len(clips), batch):
        real = to_network(clips[start : start + batch], device)
        with autocast(device, bf16):
            found = beam_search(
                tokenizer, real, point, width=width, chunk=chunk, payback=payback, perceptual=perceptual
            )
        parts.append(found)
    return Found(
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
    """Proxy rewards (B, W) of prefixes of k `blocks`: as if the clip went on at the same quality and cost.

    Prefixes of one length are comparable: quality (B, W) is that of the blocks so far, tokens (B, W) are scaled to K
    blocks, both enter the z-scores of the whole clip's reward. Yet tokens spent early also serve the blocks to come,
    and cost is charged less by payback * (K - k) / K for that. A whole clip's reward is the proxy reward itself.
    """
    whole = candidates.blocks
    charged = 1 - payback * (whole - blocks) / whole
    return weighed(quality, charged * tokens * whole / blocks, scale, w_q)


def search_evaluations(levels: int, blocks: int, *, width: int, chunk: int = 1) -> int:
    """Block reconstructions of a clip by `beam_search`."""
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
        """The best continuations of a beam's prefixes to `end` blocks, depth first: few prefixes are alive at once."""
        children = [self.walk.extend(beam, level) for level in self.walk.candidates.levels]
        if children[0].lengths.shape[2] < end:
            children = [self.descend(child, end) for child in children]
        return self._best(children)

    def _best(self, beams: list[Frontier]) -> Frontier:
        """The best `width` prefixes of several beams, best first."""
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
        """(B, W), higher is better, of the blocks so far."""
        metric = "mse" if self.point.metric == "psnr" else self.point.metric
        if metric not in beam.errors:
            raise ValueError(
                f"nothing here measures {metric!r}, the reward's metric: pass perceptual=perceptual_metric({metric!r})"
            )
        means = beam.errors[metric].double().cpu().numpy() / blocks
        if self.point.metric == "psnr":
            means = psnr_of(means)
        return quality(means, self.point.metric)
