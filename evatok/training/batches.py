"""Training batches: which clips a step takes, mirrored or not, from memory or decoded on the fly.

The batch of step s depends only on the seed and s. With several ranks, each takes its part of it.

Legend: N clips of a set, B clips of a rank's part of a batch, T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from evatok.data.clips import ClipSet, to_network
from evatok.data.streaming import StreamedClips
from evatok.storage import pieces, ranks
from evatok.training.loop import batch_indices, half_of, mirror

Order = Callable[[int], np.ndarray]
"""Step -> clip indices (B,)."""


class Batch(NamedTuple):
    """Clips (B, T, H, W, 3) uint8, their rows (B,) in the set, and which of them (B,) are mirrored."""

    pixels: np.ndarray
    rows: np.ndarray
    mirrored: np.ndarray


@dataclass
class Batches:
    """`batch` clips per step in an order reshuffled each epoch, with `flip` half of them mirrored.

    Attributes:
        order: a different selection of a step's clips from the default of every clip once per epoch.
    """

    clips: ClipSet
    batch: int
    seed: int
    flip: bool
    device: str
    order: Order | None = None
    _stream: tuple[int, Iterator[tuple[np.ndarray, np.ndarray]]] | None = field(default=None, repr=False)
    _held: tuple[int, np.ndarray, np.ndarray] | None = field(default=None, repr=False)  # a step's, for all its pieces

    def draw(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Return the clips of a step (B, 3, T, H, W) in [0, 1]."""
        return to_network(self.take(step, generator).pixels, self.device)

    def take(self, step: int, generator: torch.Generator) -> Batch:
        """Return the clips of a step as stored, with their rows and mirroring."""
        clips, rows = self._taken(step)
        mirrored = ranks.share(half_of(ranks.whole(len(rows)), generator)) & self.flip
        return Batch(mirror(clips, mirrored), rows, mirrored)

    def _taken(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.clips.clips, StreamedClips):
            if self._held is None or self._held[0] != step or not pieces.current():
                with pieces.within(None):
                    self._held = (step, *self._streamed(self.clips.clips, step))
            return pieces.mine(self._held[1]), pieces.mine(self._held[2])
        rows = self.order(step) if self.order else batch_indices(len(self.clips), self.batch, step, self.seed)
        rows = ranks.share(rows)
        return self.clips.clips[rows], rows

    def _streamed(self, clips: StreamedClips, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Take a step's clips from workers, restarting them if the step does not follow the last one."""
        following, batches = self._stream or (None, None)
        if batches is None or following != step:
            self._stream = None  # its workers end before others start
            batches = clips.batches(self._numbers, step)
        taken = next(batches)
        self._stream = (step + 1, batches)
        return taken

    def _numbers(self, step: int) -> tuple[int, np.ndarray]:
        """Return a step's epoch and its clips' listing indices, in which broken files keep their positions."""
        clips = self.clips.clips
        assert isinstance(clips, StreamedClips)
        epoch = step // max(1, clips.listed // self.batch)
        if self.order:
            return epoch, ranks.share(clips.readable[self.order(step)])
        return epoch, ranks.share(batch_indices(clips.listed, self.batch, step, self.seed))
