"""Assignments: how many tokens each temporal block of a clip gets.

An assignment is K token counts, one per temporal block, each one of m ascending levels. A candidate's index has the
levels as digits in base m, first block first, so candidates that agree on their first k blocks are adjacent.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class CandidateSet:
    """All assignments of m levels over K temporal blocks (the paper: m = 5, K = 4, 625 candidates, Sec. 4.1).

    Args:
        levels: token counts that a block may get, positive and strictly ascending.
        blocks: K, temporal blocks per clip.
    """

    levels: tuple[int, ...]
    blocks: int

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in itertools.pairwise(self.levels))
        if not self.levels or self.levels[0] < 1 or not ascending:
            raise ValueError(f"levels must be positive and ascending, got {self.levels}")
        if self.blocks < 1:
            raise ValueError(f"an assignment needs at least one temporal block, got {self.blocks}")

    def __len__(self) -> int:
        return len(self.levels) ** self.blocks

    @cached_property
    def rows(self) -> np.ndarray:
        """(m^K, K) token counts, in index order."""
        return np.array(list(itertools.product(self.levels, repeat=self.blocks)), dtype=np.int64)

    @cached_property
    def totals(self) -> np.ndarray:
        """(m^K,) tokens per clip under each candidate."""
        return self.rows.sum(axis=1)

    @cached_property
    def uniform(self) -> np.ndarray:
        """(m,) indices of the candidates that give every block the same level, shortest first."""
        step = sum(len(self.levels) ** k for k in range(self.blocks))
        return np.arange(len(self.levels)) * step

    @property
    def baseline(self) -> int:
        """Tokens per block of the fixed-length baseline: half the longest level, or the next shorter one there is.

        The paper has 256 of 32 to 512, for videos and for images.
        """
        return max((level for level in self.levels if 2 * level <= self.levels[-1]), default=self.levels[0])

    def index(self, rows: np.ndarray) -> np.ndarray:
        """Candidate indices (...) of token counts (..., K).

        Raises:
            ValueError: the wrong number of blocks, or a count that is not one of the levels.
        """
        rows = np.asarray(rows)
        if rows.shape[-1] != self.blocks:
            raise ValueError(f"assignment has {rows.shape[-1]} blocks, the candidate set has {self.blocks}")
        digits = np.searchsorted(self.levels, rows)
        known = np.asarray(self.levels)[np.minimum(digits, len(self.levels) - 1)] == rows
        if not known.all():
            raise ValueError(f"{rows[~known].ravel()[0]} tokens is not one of the levels {self.levels}")
        weights = len(self.levels) ** np.arange(self.blocks - 1, -1, -1)
        return np.asarray(digits @ weights)

    def row(self, index: np.ndarray | int) -> np.ndarray:
        """Token counts (..., K) of candidate indices (...)."""
        return self.rows[np.asarray(index)]

    def sample(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw (count, K) assignments uniformly over the candidates: every block's level is independent."""
        digits = torch.randint(len(self.levels), (count, self.blocks), generator=generator)
        return torch.tensor(self.levels)[digits]
