"""The learned map between a decoder's features and a frozen encoder's (EVATok main eq. 1).

The paper aligns the features D_l of an intermediate decoder layer l with those of a frozen semantic encoder S,

    L_align = -1/N sum_n cos(D_l[n], phi(S(x))[n]),

with phi an MLP and a linear map whose output is reshaped where the two grids differ. Here, as in GigaTok, phi stands
on the decoder's side instead: cos(phi(D_l)[n], S(x)[n]). Around the target, a trainable phi could satisfy the loss
by mapping every clip to one vector; around the decoder's features it cannot.

The head belongs to the training alone: a finished tokenizer does not have it, nor count its parameters.

Legend: B clips, K temporal blocks, P = h * w patches per block, D the decoder's width.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import nn

from evatok.errors import EvatokError

Grid = tuple[int, int, int]


class AlignmentError(EvatokError, ValueError):
    """A decoder's features that cannot be brought to an encoder's."""


class AlignmentHead(nn.Module):
    """phi: decoder features (B, K, P, D) -> features (B, T', H', W', teacher width) on the teacher's grid.

    Along an axis where the student's grid is finer, neighbours are merged: their features are concatenated. Where
    it is coarser, they are split: the linear map makes several vectors of one. At the paper's size the student's
    (4, 16, 16) becomes the teacher's (8, 8, 8): merged 2 x 2 in space, split in two in time.
    """

    def __init__(self, decoder_width: int, student_grid: Grid, teacher_width: int, teacher_grid: Grid) -> None:
        """Grids are (time, height, width).

        Raises:
            AlignmentError: along some axis, neither grid is a multiple of the other.
        """
        super().__init__()
        self.decoder_width, self.student_grid, self.teacher_grid = decoder_width, student_grid, teacher_grid
        self.merge, self.split = _ratios(student_grid, teacher_grid)
        hidden = 4 * decoder_width
        self.mlp = nn.Sequential(
            nn.Linear(decoder_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, decoder_width),
        )
        self.project = nn.Linear(decoder_width * math.prod(self.merge), teacher_width * math.prod(self.split))

    def forward(self, features_BKPD: torch.Tensor) -> torch.Tensor:
        """(B, T', H', W', teacher width).

        Raises:
            AlignmentError: features of another grid or width.
        """
        blocks, height, wide = self.student_grid
        expected = (blocks, height * wide, self.decoder_width)
        if features_BKPD.shape[1:] != expected:
            told = ", ".join(map(str, expected))
            raise AlignmentError(f"decoder features must be (B, {told}), got {tuple(features_BKPD.shape)}")
        features = self.mlp(features_BKPD)
        grid = rearrange(features, "b k (y x) d -> b k y x d", y=height, x=wide)
        return self._split(self.project(self._merge(grid)))

    def _merge(self, grid: torch.Tensor) -> torch.Tensor:
        """Neighbours that share a cell of the coarser grid, concatenated."""
        k, y, x = self.merge
        return rearrange(grid, "b (t k) (h y) (w x) d -> b t h w (k y x d)", k=k, y=y, x=x)

    def _split(self, grid: torch.Tensor) -> torch.Tensor:
        """One vector a cell of the finer grid, out of the several that lie in one."""
        k, y, x = self.split
        return rearrange(grid, "b t h w (k y x d) -> b (t k) (h y) (w x) d", k=k, y=y, x=x)


def _ratios(student: Grid, teacher: Grid) -> tuple[Grid, Grid]:
    """How many neighbours to merge, and into how many to split, along each axis."""
    if any(s % t and t % s for s, t in zip(student, teacher, strict=True)):
        raise AlignmentError(
            f"a decoder's grid {student} cannot be brought to an encoder's {teacher}: along every axis one must be a "
            "multiple of the other; choose another size for the encoder (resize)"
        )
    merge = tuple(max(1, s // t) for s, t in zip(student, teacher, strict=True))
    split = tuple(max(1, t // s) for s, t in zip(student, teacher, strict=True))
    return (merge[0], merge[1], merge[2]), (split[0], split[1], split[2])
