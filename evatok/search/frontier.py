"""Prefixes of assignments, several for each clip of a batch, and what another block does to their errors.

The exact tree (`evatok.search.tree`) and the beam (`evatok.search.beam`) both walk from frontier to frontier.

Legend: B clips, W prefixes a clip, R = B * W rows (a clip's prefixes side by side), K temporal blocks, k blocks so far.
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
    """Distances of one reconstructed block to the real one, as means over the block's pixels or frames.

    A clip's value is the mean over its blocks, as blocks are of equal size: l1 and mse of all pixels, and, with a
    perceptual metric, its mean over frames under that metric's name. The real frames' features are computed once.
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
        """(R,) values for pixels (R, 3, t, H, W) of one block; pixels are clamped to [0, 1] first."""
        real = self.blocks[block]
        fake = fake.float().clamp(0, 1).unflatten(0, (len(real), -1))
        difference = (fake - real[:, None]).flatten(2)
        # Norms need no array of their own, which is what costs most here.
        values = {
            "l1": torch.linalg.vector_norm(difference, 1, dim=2) / difference.shape[2],
            "mse": torch.linalg.vector_norm(difference, 2, dim=2).square() / difference.shape[2],
        }
        if self.perceptual is not None and self._features is not None:
            theirs = [tap[:, None] for tap in self._features[block]]
            values[self.name] = self.perceptual.distance(theirs, self.perceptual.features(_frames(fake))).mean(2)
        return {key: value.flatten() for key, value in values.items()}


@dataclass(frozen=True)
class Frontier:
    """W prefixes of each of B clips, all of the same k blocks.

    Attributes:
        lengths: (B, W, k) tokens per block.
        errors: metric -> (B, W) sums over the k blocks.
        prefix: their keys and values, R rows.
    """

    lengths: torch.Tensor
    errors: dict[str, torch.Tensor] = field(default_factory=dict)
    prefix: Prefix = field(default_factory=Prefix)

    @property
    def width(self) -> int:
        return self.lengths.shape[1]

    def take(self, others: Sequence[Frontier], index: torch.Tensor) -> Frontier:
        """Of this frontier and `others`, side by side, the prefixes (B, W') with these positions."""
        every = (self, *others)
        clips = torch.arange(len(index), device=index.device)[:, None]
        lengths = torch.cat([frontier.lengths for frontier in every], dim=1)[clips, index]
        errors = {key: torch.cat([each.errors[key] for each in every], dim=1)[clips, index] for key in self.errors}
        if not self.prefix.encoder_self:
            return Frontier(lengths, errors)
        source, place = index // self.width, index % self.width
        rows = clips * self.width + place
        return Frontier(lengths, errors, pick([each.prefix for each in every], source.flatten(), rows.flatten()))


class Walk:
    """A batch of clips on their way through their blocks; `evaluations` counts blocks reconstructed, of all clips."""

    def __init__(self, session: BlockwiseTokenizer, metrics: BlockMetrics) -> None:
        self.session, self.metrics = session, metrics
        self.candidates = session.config.candidates
        self.clips = len(metrics.blocks[0])
        self.evaluations = 0

    def start(self) -> Frontier:
        """The empty prefix of every clip."""
        return Frontier(torch.empty(self.clips, 1, 0, dtype=torch.int64, device=self.metrics.blocks[0].device))

    def extend(self, frontier: Frontier, level: int) -> Frontier:
        """Every prefix continued by a block of `level` tokens; behind the last block nothing is remembered."""
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
    """All prefixes of several frontiers of one width, those of the first frontier first."""
    clips, width = frontiers[0].lengths.shape[:2]
    every = torch.arange(width * len(frontiers), device=frontiers[0].lengths.device)
    return frontiers[0].take(frontiers[1:], every.expand(clips, -1))


def psnr_of(mse: np.ndarray) -> np.ndarray:
    """PSNR in dB of mean squared errors of pixels in [0, 1]; at most PSNR_CEILING, as equal clips have no bound."""
    return -10 * np.log10(np.maximum(mse, 10 ** (-PSNR_CEILING / 10)))


def _frames(clips: torch.Tensor) -> torch.Tensor:
    """(..., 3, t, H, W) -> (..., t, 3, H, W)."""
    return clips.transpose(-3, -4)
