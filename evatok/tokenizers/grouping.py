"""Run the clips of a batch in groups of similar length, so that little padding is computed.

Legend: B clips, b clips of a group, N tokens of the longest clip, M tokens in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evatok.tokenizers.codes import pack
from evatok.tokenizers.layout import Layout, cuts


@dataclass(frozen=True)
class Groups:
    """A batch split into groups of similar length.

    Attributes:
        batch: layout of the batch.
        order: (B,) indices of the clips, group after group.
        clips: (b,) indices of each group's clips.
        layouts: layout of each group.
    """

    batch: Layout
    order: torch.Tensor
    clips: tuple[torch.Tensor, ...]
    layouts: tuple[Layout, ...]

    @classmethod
    def of(cls, batch: Layout, groups: int, sparse: bool) -> Groups:
        """Split a batch; with `sparse`, a group's clips are laid out in one row without padding.

        Raises:
            ValueError: fewer than one group, or more groups than clips.
        """
        lengths = batch.lengths
        if not 1 <= groups <= len(lengths):
            raise ValueError(f"{len(lengths)} clips cannot be split into {groups} groups")
        if groups == 1:
            order = torch.arange(len(lengths), device=lengths.device)
            return cls(batch, order, (order,), (batch.in_one_row() if sparse else batch,))
        totals, order = lengths.sum(1).sort(stable=True)
        parts = order.tensor_split(cuts(totals.cpu().numpy(), groups))
        layouts = [Layout.of(lengths[part]) for part in parts]
        return cls(batch, order, parts, tuple(at.in_one_row() if sparse else at for at in layouts))

    def flat(self, padded: torch.Tensor) -> torch.Tensor:
        """Flatten the batch's (B, N, ...) to tokens (M, ...), group after group."""
        return padded[self.order][self.batch.valid[self.order]]

    def padded(self, flat: torch.Tensor) -> torch.Tensor:
        """Put tokens (M, ...), group after group, back into the batch's (B, N, ...), zero in the padding."""
        return pack(flat, self.batch.valid[self.order])[self.order.argsort()]

    def split(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, Layout]]:
        """Split tokens (M, ...) by group: each group's tokens in its own rows, with its layout."""
        counts = [int(at.valid.sum()) for at in self.layouts]
        return [(pack(part, at.valid), at) for part, at in zip(flat.split(counts), self.layouts, strict=True)]

    def ungroup(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Concatenate results (b, ...) of all groups in the order of the batch."""
        return torch.cat(parts)[self.order.argsort()]
