"""Layout of a batch of unequal lengths, and the block-causal attention masks over it.

A token's position is (temporal block, slot within the block), never its offset in the packed sequence, so the codes of
block k cannot depend on how many tokens later blocks get.

A layout has one row of N tokens per clip, or the M tokens of all clips in one row; the latter has no padding but needs
attention that skips what a mask hides.

Legend: B clips, K temporal blocks, N tokens of the longest clip in the batch, M tokens in all, P patches per block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from evatok.models.attention import Mask
from evatok.storage.transfer import moved

if TYPE_CHECKING:  # imported on use: it pulls in symbolic shapes, which would add seconds to every start
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True)
class Layout:
    """Tokens of B clips, packed to the left: a row per clip (B, N), or one row (1, M).

    Attributes:
        lengths: (B, K) tokens per block.
        clip: (B, N) index of the clip each token belongs to.
        block: (B, N) temporal block of each token.
        slot: (B, N) index of each token within its block.
        valid: (B, N) False for the padding after a shorter clip.
        first: (B, K) offset of each block's first token in its row.
        one_row: whether all clips share one row.
    """

    lengths: torch.Tensor
    clip: torch.Tensor
    block: torch.Tensor
    slot: torch.Tensor
    valid: torch.Tensor
    first: torch.Tensor
    one_row: bool = False

    @cached_property
    def tokens(self) -> torch.Tensor:
        """Return (M,) indices of the tokens among all B * N, row by row."""
        return self.valid.flatten().nonzero()[:, 0]

    @cached_property
    def count(self) -> int:
        """M, the number of tokens."""
        return len(self.tokens)

    def to(self, device: torch.device | str) -> Layout:
        """Return the same layout on a device, caching token indices to avoid a later synchronisation."""
        fields = (self.lengths, self.clip, self.block, self.slot, self.valid, self.first)
        lengths, clip, block, slot, valid, first = (moved(field, device) for field in fields)
        there = Layout(lengths, clip, block, slot, valid, first, self.one_row)
        there.__dict__["tokens"] = moved(self.tokens, device)
        return there

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """Select the tokens' entries of (B, N, ...), without padding: (M, ...)."""
        return x.flatten(0, 1)[self.tokens]

    def packed(self, flat: torch.Tensor) -> torch.Tensor:
        """Scatter (M, ...), row by row, into this layout's rows: (B, N, ...), zero in the padding."""
        padded = flat.new_zeros(self.valid.numel(), *flat.shape[1:])
        return padded.index_copy(0, self.tokens, flat).unflatten(0, self.valid.shape)

    @classmethod
    def of(cls, lengths: torch.Tensor) -> Layout:
        """Lay out token counts (B, K), one row per clip.

        Raises:
            ValueError: anything but an integer (B, K) tensor of positive counts.
        """
        if lengths.ndim != 2 or lengths.is_floating_point() or bool((lengths < 1).any()):
            raise ValueError(f"token counts must be positive integers (B, K), got {lengths.dtype} {lengths}")
        ends = lengths.cumsum(1)
        first = ends - lengths
        offsets = torch.arange(int(ends[:, -1].max()), device=lengths.device).expand(len(lengths), -1)
        valid = offsets < ends[:, -1:]
        block = (offsets[:, :, None] >= ends[:, None, :]).sum(-1).clamp_max(lengths.shape[1] - 1)
        # Padding takes the position of the last slot; nothing attends to it.
        slot = (offsets - first.gather(1, block)).minimum(lengths.gather(1, block) - 1)
        clip = torch.arange(len(lengths), device=lengths.device)[:, None].expand_as(block)
        return cls(lengths, clip, block, slot, valid, first)

    def in_one_row(self) -> Layout:
        """Return the same tokens, clip after clip, in one row without padding."""
        clip, block, slot = (each[self.valid][None] for each in (self.clip, self.block, self.slot))
        totals = self.lengths.sum(1, keepdim=True)
        first = self.first + totals.cumsum(0) - totals
        return Layout(self.lengths, clip, block, slot, torch.ones_like(clip, dtype=torch.bool), first, one_row=True)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Arrange per-clip features (B, n, D) in this layout's rows: unchanged, or (1, B * n, D)."""
        return x.flatten(0, 1)[None] if self.one_row else x

    @property
    def row(self) -> torch.Tensor:
        """(B, 1) row that holds each clip's tokens."""
        clips = torch.arange(len(self.lengths), device=self.lengths.device)[:, None]
        return torch.zeros_like(clips) if self.one_row else clips


def token_to_token(layout: Layout) -> Mask:
    """(B, 1, N, N) encoder self-attention: tokens of block t see valid tokens of blocks <= t."""
    if layout.one_row:
        return _within_clips(layout.clip, layout.block, layout.clip, layout.block)
    return (_not_later(layout.block, layout.block) & layout.valid[:, None, :])[:, None]


def token_to_patch(layout: Layout, patches: int) -> Mask:
    """(B, 1, N, K*P) encoder cross-attention: tokens of block t see patches of blocks <= t."""
    if layout.one_row:
        return _within_clips(layout.clip, layout.block, *_patches_in_one_row(layout, patches))
    return _not_later(layout.block, _patch_blocks(layout, patches))[:, None]


def patch_to_patch(layout: Layout, patches: int) -> Mask:
    """(1, 1, K*P, K*P) decoder self-attention: patch queries of block t see those of blocks <= t."""
    if layout.one_row:
        patch_positions = _patches_in_one_row(layout, patches)
        return _within_clips(*patch_positions, *patch_positions)
    blocks = _patch_blocks(layout, patches)
    return _not_later(blocks, blocks)[:, None]


def patch_to_token(layout: Layout, patches: int) -> Mask:
    """(B, 1, K*P, N) decoder cross-attention: patch queries of block t see valid tokens of blocks <= t."""
    if layout.one_row:
        return _within_clips(*_patches_in_one_row(layout, patches), layout.clip, layout.block)
    blocks = _patch_blocks(layout, patches)
    return (_not_later(blocks, layout.block) & layout.valid[:, None, :])[:, None]


def cuts(totals: np.ndarray, groups: int) -> list[int]:
    """Cut ascending token counts (B,) into groups that need the least padding in total.

    Dynamic programming over the number of groups: the cheapest split of the first j clips is the cheapest split of some
    first i clips plus one more group.

    Returns:
        The index of the first clip of every group but the first, ascending.
    """
    clips = np.arange(len(totals) + 1)
    longest = np.concatenate(([0], totals)).astype(np.float64)
    last_group = np.where(clips[:, None] < clips, (clips - clips[:, None]) * longest, np.inf)
    cost, starts = last_group[0], []
    for _ in range(groups - 1):
        costs = cost[:, None] + last_group
        starts.append(costs.argmin(0))
        cost = costs.min(0)
    indices, end = [], len(totals)
    for start in reversed(starts):
        end = int(start[end])
        indices.append(end)
    return indices[::-1]


def _not_later(query_block: torch.Tensor, key_block: torch.Tensor) -> torch.Tensor:
    return query_block[:, :, None] >= key_block[:, None, :]


def _patch_blocks(layout: Layout, patches: int) -> torch.Tensor:
    blocks = torch.arange(layout.lengths.shape[1], device=layout.lengths.device)
    return blocks.repeat_interleave(patches)[None]


def _patches_in_one_row(layout: Layout, patches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, B*K*P) clip and block of each patch."""
    blocks = _patch_blocks(layout, patches)
    clips = torch.arange(len(layout.lengths), device=blocks.device)
    return clips.repeat_interleave(blocks.shape[1])[None], blocks.repeat(1, len(clips))


def _within_clips(
    query_clip: torch.Tensor, query_block: torch.Tensor, key_clip: torch.Tensor, key_block: torch.Tensor
) -> BlockMask:
    """Mask in which queries (1, N) see keys (1, M) of their own clip and of no later block."""

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        same_clip = query_clip[0, query] == key_clip[0, key]
        return same_clip & (query_block[0, query] >= key_block[0, key])

    # When compiled, it never materialises all N x M entries.
    from torch.nn.attention.flex_attention import create_block_mask

    make = torch.compile(create_block_mask) if query_clip.is_cuda else create_block_mask
    return make(sees, None, None, query_clip.shape[1], key_clip.shape[1], device=query_clip.device)
