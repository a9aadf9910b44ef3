"""Head and cross-entropy of a generator in one, so that the logits of a whole batch never exist at once.

Legend: M places, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch


class SymbolLoss(torch.autograd.Function):
    """Features (M, D), a head (V, D) and targets (M,) to the mean cross-entropy, that of each place, and who is right.

    Logits are made for some places at a time, and their gradient with them: all M x V of them at once would be most of
    a training's memory, and on a CPU a third of its time goes into moving them.
    """

    @staticmethod
    def forward(
        ctx: Any, x_MD: torch.Tensor, head_VD: torch.Tensor, target_M: torch.Tensor, learn: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kind = x_MD.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_MD.dtype
        x, head, chunk = x_MD.to(precision), head_VD.to(precision), 256 if kind == "cpu" else 8192
        dx, dhead = torch.empty_like(x), torch.zeros_like(head_VD) if learn else None
        losses, right = torch.empty(len(x), device=x.device), torch.empty_like(target_M, dtype=torch.bool)
        for at in (slice(start, start + chunk) for start in range(0, len(x), chunk)):
            logits, target = (x[at] @ head.T).float(), target_M[at, None]
            total = logits.logsumexp(-1, keepdim=True)
            losses[at] = (total - logits.gather(1, target))[:, 0]
            right[at] = logits.argmax(-1) == target[:, 0]
            if dhead is not None:
                slope = logits.sub_(total).exp_()  # probabilities, less one at the target
                slope.scatter_add_(1, target, slope.new_full(target.shape, -1.0))
                slope = slope.to(precision)
                dx[at] = slope @ head
                dhead += slope.T @ x[at]
        ctx.save_for_backward(dx, dhead)
        ctx.mark_non_differentiable(losses, right)
        return losses.mean(), losses, right

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        dx, dhead = ctx.saved_tensors
        share = slopes[0] / len(dx)
        return dx * share, dhead * share, None, None
