"""Codes of clips of unequal lengths: padded to a rectangle for a network, flat to be stored or counted.

Legend: B clips, K temporal blocks, N codes of the longest clip in the batch, M codes in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import repeat


@dataclass(frozen=True)
class Codes:
    """Codes (B, N) packed to the left, 0 in the padding, and the assignment (B, K): tokens per block."""

    codes: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of_flat(cls, flat: torch.Tensor, lengths: torch.Tensor) -> Codes:
        """Pad codes (M,), stored clip after clip, by their lengths (B, K)."""
        return cls(pack_left(flat, lengths.sum(1)), lengths)

    @property
    def valid(self) -> torch.Tensor:
        """(B, N) False in the padding."""
        return left_mask(self.lengths.sum(1), self.codes.shape[1])

    @property
    def flat(self) -> torch.Tensor:
        """(M,) codes without padding, clip after clip."""
        return self.codes[self.valid]


def left_mask(counts: torch.Tensor, width: int) -> torch.Tensor:
    """(B, width) True for the first `counts` (B,) columns of each row."""
    return torch.arange(width, device=counts.device) < counts[:, None]


def pack(flat: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Scatter values (M, ...) into the True positions of `valid` (B, N): (B, N, ...), zero in the padding."""
    packed = flat.new_zeros(*valid.shape, *flat.shape[1:])
    packed[valid] = flat
    return packed


def pack_left(flat: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Pack values (M, ...), stored row after row, `counts` (B,) of each, to the left: (B, N, ...), zero-padded."""
    return pack(flat, left_mask(counts, int(counts.max())))


def expand_assignment(assignment: tuple[int, ...], clips: int) -> torch.Tensor:
    """Repeat one assignment (K) for a batch of `clips`: (B, K)."""
    return repeat(torch.tensor(assignment), "k -> b k", b=clips)
