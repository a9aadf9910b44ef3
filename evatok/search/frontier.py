"""Prefixes of assignments, several per clip of a batch, extended block by block with their reconstruction errors.

The exact tree (`evatok.search.tree`) and the beam (`evatok.search.beam`) both walk from frontier to frontier.

Legend: B clips, W prefixes per clip, R = B * W rows (a clip's prefixes are adjacent), K temporal blocks, k blocks so
far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.metrics.pixels import PSNR_CEILING
from evatok.tokenizers.incremental import BlockwiseTokenizer, Prefix, pick


class BlockMetrics:
    """Distances of a reconstructed block to the real one, averaged over the block's pixels or frames.

    As all blocks have the same size, a clip's value is the mean over its blocks: l1 and mse of pixels and, with a
    perceptual metric, its mean over frames under that metric's name. Features of the real frames are computed once.
    """

    def __init__(
        self,
        clips: torch.Tensor,
        blocks: int,
        perceptual: PerceptualDistance | SomeFrames | None,
        name: str = "perceptual",
    ) -> None:
        self.blocks = clips.chunk(blocks, dim=2)
        self.perceptual, self.name = perceptual, name
        self._features = None
        if perceptual is not None:
            self._features = [perceptual.features(_frames(block)) for block in self.blocks]

    def __call__(self, block: int, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Measure pixels (R, 3, t, H, W) of one block, clamped to [0, 1]: (R,) values by metric."""
        real = self.blocks[block]
        fake = fake.float().clamp(0, 1).unflatten(0, (len(real), -1))
        difference = (fake - real[:, None]).flatten(2)
        # Norms need no intermediate array, whose allocation would dominate here.
        values = {
            "l1": torch.linalg.vector_norm(difference, 1, dim=2) / difference.shape[2],
            "mse": torch.linalg.vector_norm(difference, 2, dim=2).square() / difference.shape[2],
        }
        if self.perceptual is not None and self._features is not None:
            real_features = [tap[:, None] for tap in self._features[block]]
            fake_features = self.perceptual.features(_frames(fake))
            values[self.name] = self.perceptual.distance(real_features, fake_features).mean(2)
        return {key: value.flatten() for key, value in values.items()}


@dataclass(frozen=True)
class Frontier:
    """W prefixes of each of B clips, all k blocks long.

    Attributes:
        lengths: (B, W, k) tokens per block.
        errors: metric -> (B, W) sums over the k blocks.
        prefix: their KV cache, R rows.
    """

    lengths: torch.Tensor
    errors: dict[str, torch.Tensor] = field(default_factory=dict)
    prefix: Prefix = field(default_factory=Prefix)

    @property
    def width(self) -> int:
        return self.lengths.shape[1]

    def take(self, others: Sequence[Frontier], index: torch.Tensor) -> Frontier:
        """Select prefixes `index` (B, W') of this frontier and `others`, counted along their concatenation."""
        frontiers = (self, *others)
        clips = torch.arange(len(index), device=index.device)[:, None]
        lengths = torch.cat([frontier.lengths for frontier in frontiers], dim=1)[clips, index]
        errors = {key: torch.cat([each.errors[key] for each in frontiers], dim=1)[clips, index] for key in self.errors}
        if not self.prefix.encoder_self:
            return Frontier(lengths, errors)
        source, column = index // self.width, index % self.width
        rows = clips * self.width + column
        return Frontier(lengths, errors, pick([each.prefix for each in frontiers], source.flatten(), rows.flatten()))


class Walk:
    """Walk a batch of clips through their blocks; `evaluations` counts the reconstructed blocks of all clips."""

    def __init__(self, session: BlockwiseTokenizer, metrics: BlockMetrics) -> None:
        self.session, self.metrics = session, metrics
        self.candidates = session.config.candidates
        self.clips = len(metrics.blocks[0])
        self.evaluations = 0

    def start(self) -> Frontier:
        """Return the empty prefix of every clip."""
        return Frontier(torch.empty(self.clips, 1, 0, dtype=torch.int64, device=self.metrics.blocks[0].device))

    def extend(self, frontier: Frontier, level: int) -> Frontier:
        """Extend every prefix by a block of `level` tokens; after the last block no KV cache is kept."""
        block, width = frontier.lengths.shape[2], frontier.width
        pixels, longer = self.session.wide(width).code_block(block, level, frontier.prefix)
        self.evaluations += self.clips * width
        errors = {key: value.view(-1, width) for key, value in self.metrics(block, pixels).items()}
        added = frontier.lengths.new_full((self.clips, width, 1), level)
        return Frontier(
            torch.cat((frontier.lengths, added), dim=2),
            {key: value + frontier.errors.get(key, 0.0) for key, value in errors.items()},
            longer if block + 1 < self.candidates.blocks else Prefix(),
        )


def side_by_side(frontiers: Sequence[Frontier]) -> Frontier:
    """Concatenate the prefixes of several frontiers of equal width."""
    clips, width = frontiers[0].lengths.shape[:2]
    index = torch.arange(width * len(frontiers), device=frontiers[0].lengths.device)
    return frontiers[0].take(frontiers[1:], index.expand(clips, -1))


def psnr_of(mse: np.ndarray) -> np.ndarray:
    """PSNR in dB of mean squared errors of pixels in [0, 1], at most PSNR_CEILING, since equal clips have no bound."""
    return -10 * np.log10(np.maximum(mse, 10 ** (-PSNR_CEILING / 10)))


def _frames(clips: torch.Tensor) -> torch.Tensor:
    """(..., 3, t, H, W) -> (..., t, 3, H, W)."""
    return clips.transpose(-3, -4)
