"""Alignment of a decoder's features with a frozen encoder's by a learned map (EVATok main eq. 1).

The paper aligns the features D_l of an intermediate decoder layer l with those of a frozen semantic encoder S,

    L_align = -1/N sum_n cos(D_l[n], phi(S(x))[n]),

with phi an MLP and a linear map whose output is reshaped where the two grids differ. Here, as in GigaTok, phi is
applied to the decoder's features instead: cos(phi(D_l)[n], S(x)[n]). Applied to the target, a trainable phi could
satisfy the loss by mapping every clip to one vector; applied to the decoder's features it cannot.

The head is used only in training: a finished tokenizer does not contain it, and its parameters are not counted.

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
    """A decoder grid that cannot be mapped to an encoder's, or features of the wrong shape."""


class AlignmentHead(nn.Module):
    """phi: decoder features (B, K, P, D) -> features (B, T', H', W', teacher width) on the teacher's grid.

    Along an axis where the student's grid is finer, neighbours are merged by concatenating their features. Where it is
    coarser, the linear map splits one vector into several. At paper size the student's (4, 16, 16) becomes the
    teacher's (8, 8, 8): merged 2 x 2 in space, split in two in time.
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
        """Return features (B, T', H', W', teacher width).

        Raises:
            AlignmentError: features of the wrong grid or width.
        """
        blocks, height, width = self.student_grid
        expected = (blocks, height * width, self.decoder_width)
        if features_BKPD.shape[1:] != expected:
            shape = ", ".join(map(str, expected))
            raise AlignmentError(f"decoder features must be (B, {shape}), got {tuple(features_BKPD.shape)}")
        features = self.mlp(features_BKPD)
        grid = rearrange(features, "b k (y x) d -> b k y x d", y=height, x=width)
        return self._split(self.project(self._merge(grid)))

    def _merge(self, grid: torch.Tensor) -> torch.Tensor:
        """Concatenate the features of neighbours that share a cell of the coarser grid."""
        k, y, x = self.merge
        return rearrange(grid, "b (t k) (h y) (w x) d -> b t h w (k y x d)", k=k, y=y, x=x)

    def _split(self, grid: torch.Tensor) -> torch.Tensor:
        """Split each cell's vector into one vector per cell of the finer grid."""
        k, y, x = self.split
        return rearrange(grid, "b t h w (k y x d) -> b (t k) (h y) (w x) d", k=k, y=y, x=x)


def _ratios(student: Grid, teacher: Grid) -> tuple[Grid, Grid]:
    """Return the number of neighbours to merge, and to split into, along each axis."""
    if any(s % t and t % s for s, t in zip(student, teacher, strict=True)):
        raise AlignmentError(
            f"a decoder's grid {student} cannot be mapped to an encoder's {teacher}: along every axis one must be a "
            "multiple of the other; choose another size for the encoder (resize)"
        )
    merge = tuple(max(1, s // t) for s, t in zip(student, teacher, strict=True))
    split = tuple(max(1, t // s) for s, t in zip(student, teacher, strict=True))
    return (merge[0], merge[1], merge[2]), (split[0], split[1], split[2])
