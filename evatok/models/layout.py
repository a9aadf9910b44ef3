"""Where each token of a batch of unequal lengths stands, and which tokens may see which.

A token's position is (temporal block, slot within the block), never its offset in the packed sequence: so what
is coded for block k cannot depend on how many tokens later blocks get. Legend: B clips, K temporal blocks,
N tokens of the longest clip in the batch, P patches a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """Tokens of B clips, packed to the left.

    Attributes:
        lengths: (B, K) tokens a block.
        block: (B, N) temporal block of each token.
        slot: (B, N) index of each token within its block.
        valid: (B, N) False for the padding behind a shorter clip.
        first: (B, K) offset of each block's first token.
    """

    lengths: torch.Tensor
    block: torch.Tensor
    slot: torch.Tensor
    valid: torch.Tensor
    first: torch.Tensor

    @classmethod
    def of(cls, lengths: torch.Tensor) -> Layout:
        """The layout of token counts (B, K).

        Raises:
            ValueError: not an integer (B, K) tensor of positive counts.
        """
        if lengths.ndim != 2 or lengths.is_floating_point() or bool((lengths < 1).any()):
            raise ValueError(f"token counts must be positive integers (B, K), got {lengths.dtype} {lengths}")
        ends = lengths.cumsum(1)
        first = ends - lengths
        offsets = torch.arange(int(ends[:, -1].max()), device=lengths.device).expand(len(lengths), -1)
        valid = offsets < ends[:, -1:]
        block = (offsets[:, :, None] >= ends[:, None, :]).sum(-1).clamp_max(lengths.shape[1] - 1)
        # Padding takes the last slot's position; nothing looks at it.
        slot = (offsets - first.gather(1, block)).minimum(lengths.gather(1, block) - 1)
        return cls(lengths, block, slot, valid, first)


def token_to_token(layout: Layout) -> torch.Tensor:
    """(B, 1, N, N) encoder self-attention: tokens of block t see valid tokens of blocks <= t."""
    return (_not_later(layout.block, layout.block) & layout.valid[:, None, :])[:, None]


def token_to_patch(layout: Layout, patches: int) -> torch.Tensor:
    """(B, 1, N, K*P) encoder cross-attention: tokens of block t see patches of blocks <= t."""
    return _not_later(layout.block, _patch_blocks(layout, patches))[:, None]


def patch_to_patch(layout: Layout, patches: int) -> torch.Tensor:
    """(1, 1, K*P, K*P) decoder self-attention: patch queries of block t see those of blocks <= t."""
    blocks = _patch_blocks(layout, patches)
    return _not_later(blocks, blocks)[:, None]


def patch_to_token(layout: Layout, patches: int) -> torch.Tensor:
    """(B, 1, K*P, N) decoder cross-attention: patch queries of block t see valid tokens of blocks <= t."""
    blocks = _patch_blocks(layout, patches)
    return (_not_later(blocks, layout.block) & layout.valid[:, None, :])[:, None]


def _not_later(query_block: torch.Tensor, key_block: torch.Tensor) -> torch.Tensor:
    return query_block[:, :, None] >= key_block[:, None, :]


def _patch_blocks(layout: Layout, patches: int) -> torch.Tensor:
    blocks = torch.arange(layout.lengths.shape[1], device=layout.lengths.device)
    return blocks.repeat_interleave(patches)[None]
