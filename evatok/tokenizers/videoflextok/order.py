"""The order of patches and tokens, and their attention masks (Sec. 3.1, 3.2 and F.1).

The paper interleaves: the encoder reads [p_1, r_1, ..., p_T, r_T], the decoder [r_1, x_1, ..., r_T, x_T]. Attention
knows no order but that of positions and masks, so tensors here hold all patches first and then all tokens, or vice
versa, and the interleaving is in the masks. These masks alone decide in what sense a tokenizer is causal.

Legend: T latent frames, P patches per frame, k tokens per frame, N = T * (P + k) elements; all masks are boolean
(N queries, N keys), True where a query may look.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Order:
    """Every element's latent frame, whether it is a token, and its rank among the tokens or patches of its frame."""

    frame: torch.Tensor
    token: torch.Tensor
    rank: torch.Tensor

    @classmethod
    def of(cls, frames: int, patches: int, tokens: int, *, tokens_first: bool, flat: bool = False) -> Order:
        """Order T frames of P patches and `tokens` tokens each.

        Args:
            tokens_first: tokens before patches (the decoder's), else after them (the encoder's).
            flat: T * `tokens` tokens in one order that belong to no frame; their frame is -1.
        """
        of_patches = _grid(frames, patches)
        of_tokens = (
            (torch.full((frames * tokens,), -1), torch.arange(frames * tokens)) if flat else _grid(frames, tokens)
        )
        parts = [(*of_tokens, True), (*of_patches, False)]
        if not tokens_first:
            parts.reverse()
        return cls(
            torch.cat([frame for frame, _, _ in parts]),
            torch.cat([torch.full_like(frame, is_token, dtype=torch.bool) for frame, _, is_token in parts]),
            torch.cat([rank for _, rank, _ in parts]),
        )


def encoder_mask(order: Order, form: str) -> torch.Tensor:
    """(N, N) for one of `config.FORMS`."""
    query, key = _pairs(order)
    earlier, same = key.frame < query.frame, key.frame == query.frame
    not_finer = key.rank <= query.rank
    if form == "time-causal":
        inside = torch.where(key.token, query.token & not_finer, True)
        return earlier | (same & inside)
    if form == "grid":
        return earlier | same
    if form == "flexible":
        return (earlier | same) & torch.where(key.token, query.token & not_finer, True)
    if form == "flat":
        return torch.where(key.token, query.token & not_finer, True)
    raise ValueError(f"unknown form {form!r}")


def decoder_mask(order: Order, mask: str) -> torch.Tensor | None:
    """Return (N, N) for "causal": frames up to its own, in full; None for "full", where everything is visible.

    Flat tokens see all tokens and no patch, and every patch sees them all.
    """
    if mask == "full":
        return None
    query, key = _pairs(order)
    return key.frame <= query.frame


def patch_mask(frames: int, patches: int) -> torch.Tensor:
    """Return (T * P, T * P): patches see those of frames up to their own, as in the alignment head."""
    frame, _ = _grid(frames, patches)
    return frame[None, :] <= frame[:, None]


def with_absent(mask: torch.Tensor | None, present_BN: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, N, N) from a mask (N, N) or None: absent elements are visible only to themselves."""
    own = torch.eye(present_BN.shape[1], dtype=torch.bool, device=present_BN.device)
    seen = present_BN[:, None, :] | own
    return (seen if mask is None else seen & mask)[:, None]


def kept_tokens(lengths_BT: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, T, `tokens`): which of a frame's tokens its length keeps."""
    return torch.arange(tokens, device=lengths_BT.device) < lengths_BT[:, :, None]


def _grid(frames: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frame and rank of `each` elements per frame, frame after frame."""
    return torch.arange(frames).repeat_interleave(each), torch.arange(each).repeat(frames)


def _pairs(order: Order) -> tuple[Order, Order]:
    """The order as queries (N, 1) and as keys (1, N)."""
    fields = (order.frame, order.token, order.rank)
    return Order(*(field[:, None] for field in fields)), Order(*(field[None, :] for field in fields))
