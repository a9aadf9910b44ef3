"""Assignment rules: choose the assignment of each clip, in training, encoding and evaluation alike.

A rule has an identity that distinguishes it in records and caches. `evatok.routing.rules` adds rules of routers, and
parses a rule from a configuration string (`parse`).

Legend: B clips of a batch, K temporal blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evatok.assignments.candidates import CandidateSet
from evatok.errors import EvatokError
from evatok.storage import ranks


class RuleError(EvatokError, ValueError):
    """An unknown rule, or one that needs assignments or arguments that are not available."""


class Rule(ABC):
    """Base class: chooses an assignment for each clip.

    Attributes:
        identity: distinguishes it from other rules, in JSON types.
        parents: sha256 of the checkpoints it depends on, by role.
    """

    def __init__(self, identity: dict[str, Any], parents: dict[str, str] | None = None) -> None:
        self.identity, self.parents = identity, parents or {}

    @abstractmethod
    def __call__(
        self, clips: torch.Tensor, numbers: np.ndarray | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Choose (B, K) tokens per block for clips (B, 3, T, H, W) in [0, 1].

        On the clips' device if they come from the clips, else on the CPU, where the shapes they decide are needed.

        Args:
            numbers: (B,) indices of the clips in their set, for rules that draw per clip.
            generator: of a training step, for rules that draw per batch.
        """


class Fixed(Rule):
    """The same assignment for every clip; a single number means a uniform one, with every block at that level.

    Raises:
        RuleError: a row that is not one of the candidates.
    """

    def __init__(self, candidates: CandidateSet, row: Sequence[int]) -> None:
        assignment = [int(tokens) for tokens in row] * (candidates.blocks if len(row) == 1 else 1)
        try:
            candidates.index(np.array(assignment))
        except ValueError as error:
            raise RuleError(f"assignment {','.join(map(str, row))}: {error}") from error
        kind = "uniform" if len(row) == 1 else "fixed"
        super().__init__({"assignment": kind, "row": [int(tokens) for tokens in row]})
        self.row = tuple(assignment)

    def __call__(
        self, clips: torch.Tensor, numbers: np.ndarray | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return torch.tensor([self.row] * len(clips))


class Random(Rule):
    """A uniformly drawn candidate for each clip.

    Drawn from the generator if there is one, as in training (Sec. 3.1), else from the seed and the clip's index, so
    that it does not depend on batches.
    """

    def __init__(self, candidates: CandidateSet, seed: int = 0) -> None:
        super().__init__({"assignment": "random", "seed": seed})
        self.candidates, self.seed = candidates, seed

    def __call__(
        self, clips: torch.Tensor, numbers: np.ndarray | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        if generator is not None:
            drawn_BK = self.candidates.sample(ranks.whole(len(clips)), generator)
            return ranks.share(drawn_BK)
        if numbers is None:
            raise RuleError("random assignments need the clips' indices, or a generator")
        drawn = [int(np.random.default_rng([self.seed, int(n)]).integers(len(self.candidates))) for n in numbers]
        return torch.from_numpy(self.candidates.row(np.array(drawn, dtype=np.int64)))


class Listed(Rule):
    """The assignment that a list (N, K) holds at each clip's index, such as the result of a search.

    Its identity does not contain the list: a cache key must add the assignments of the clips in question.
    """

    def __init__(self, assignments: np.ndarray) -> None:
        super().__init__({"assignment": "listed"})
        self.assignments = assignments

    def __call__(
        self, clips: torch.Tensor, numbers: np.ndarray | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        if numbers is None:
            raise RuleError("a list of assignments needs the clips' indices")
        return torch.from_numpy(self.assignments[numbers])
