"""What a generator's sequences are conditioned on.

Legend: B sequences, C symbols of given frames, W words of a caption, E channels of their features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evatok.storage.transfer import moved


@dataclass(frozen=True)
class Condition:
    """What to condition sequences on: classes, symbols, captions, or several of them.

    Attributes:
        classes: (B,) int64, `config.classes` for the null class; None for the null class everywhere.
        symbols: (B, C) int64 symbols of the given frames in frame prediction, C of them.
        text: captions, words (B, W) or features (B, W, E), see `generation.text`.
    """

    classes: torch.Tensor | None = None
    symbols: torch.Tensor | None = None
    text: torch.Tensor | None = None

    def __post_init__(self) -> None:
        given = [len(rows) for rows in self._parts if rows is not None]
        if not given or min(given) != max(given):
            raise ValueError(f"a condition needs classes or symbols or captions, as many of each, got {given}")

    @property
    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return self.classes, self.symbols, self.text

    @property
    def any(self) -> torch.Tensor:
        """Return one of its tensors, for its length and device."""
        return next(rows for rows in self._parts if rows is not None)

    def __len__(self) -> int:
        return len(self.any)

    @classmethod
    def joined(cls, parts: Sequence[Condition]) -> Condition:
        """Concatenate conditions that have the same fields set."""
        columns = [
            [rows for rows in column if rows is not None] for column in zip(*(p._parts for p in parts), strict=True)
        ]
        return cls(*(torch.cat(rows) if rows else None for rows in columns))

    def keep(self, rows: torch.Tensor) -> Condition:
        """Keep only sequences `rows` (b,), in that order."""
        return Condition(*(None if given is None else given[rows] for given in self._parts))

    def to(self, device: torch.device | str) -> Condition:
        return Condition(*(None if given is None else moved(given, device) for given in self._parts))
