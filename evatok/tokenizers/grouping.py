"""Run the clips of a batch in groups of similar length, so that little padding is computed.

Legend: B clips, b clips of a group, N tokens of the longest clip, M tokens in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evatok.storage.transfer import moved
from evatok.tokenizers.layout import Layout, cuts


@dataclass(frozen=True)
class Groups:
    """A batch split into groups of similar length.

    Attributes:
        batch: layout of the batch.
        order: (B,) indices of the clips, group after group.
        clips: (b,) indices of each group's clips.
        layouts: layout of each group.
        places: (M,) places in the batch's (B, N) of the tokens, group after group.
    """

    batch: Layout
    order: torch.Tensor
    clips: tuple[torch.Tensor, ...]
    layouts: tuple[Layout, ...]
    places: torch.Tensor

    @classmethod
    def of(cls, batch: Layout, groups: int, sparse: bool) -> Groups:
        """Split a batch; with `sparse`, a group's clips are laid out in one row without padding.

        Queries on lengths are cheapest on a CPU layout, before it is moved (`to`).

        Raises:
            ValueError: fewer than one group, or more groups than clips.
        """
        lengths = batch.lengths
        if not 1 <= groups <= len(lengths):
            raise ValueError(f"{len(lengths)} clips cannot be split into {groups} groups")
        if groups == 1:
            order = torch.arange(len(lengths), device=lengths.device)
            return cls(batch, order, (order,), (batch.in_one_row() if sparse else batch,), batch.tokens)
        totals, order = lengths.sum(1).sort(stable=True)
        parts = order.tensor_split(cuts(totals.cpu().numpy(), groups))
        layouts = [Layout.of(lengths[part]) for part in parts]
        rows, columns = batch.valid[order].nonzero().unbind(1)
        places = order[rows] * batch.valid.shape[1] + columns
        return cls(batch, order, parts, tuple(at.in_one_row() if sparse else at for at in layouts), places)

    def to(self, device: torch.device | str) -> Groups:
        """Return the same groups on a device."""
        return Groups(
            self.batch.to(device),
            moved(self.order, device),
            tuple(moved(part, device) for part in self.clips),
            tuple(layout.to(device) for layout in self.layouts),
            moved(self.places, device),
        )

    def flat(self, padded: torch.Tensor) -> torch.Tensor:
        """Flatten the batch's (B, N, ...) to tokens (M, ...), group after group."""
        return padded.flatten(0, 1)[self.places]

    def padded(self, flat: torch.Tensor) -> torch.Tensor:
        """Put tokens (M, ...), group after group, back into the batch's (B, N, ...), zero in the padding."""
        shape = self.batch.valid.shape
        padded = flat.new_zeros(shape.numel(), *flat.shape[1:])
        return padded.index_copy(0, self.places, flat).unflatten(0, shape)

    def split(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, Layout]]:
        """Split tokens (M, ...) by group: each group's tokens in its own rows, with its layout."""
        parts = flat.split([at.count for at in self.layouts])
        return [(at.packed(part), at) for part, at in zip(parts, self.layouts, strict=True)]

    def ungroup(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Concatenate results (b, ...) of all groups in the order of the batch."""
        return torch.cat(parts)[self.order.argsort()]
