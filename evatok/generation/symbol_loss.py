"""Fused output head and cross-entropy of the generator: the logits of a complete batch never exist at once.

Legend: M positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch


class SymbolLoss(torch.autograd.Function):
    """Map features (M, D), a head (V, D) and targets (M,) to a loss.

    Returns the mean cross-entropy, the cross-entropy of each position, and whether its most probable symbol is correct.
    Logits and their gradient are computed for a chunk of positions at a time: all M x V of them would take most of the
    memory of a training, and on a CPU moving them takes a third of its time.
    """

    @staticmethod
    def forward(
        ctx: Any, x_MD: torch.Tensor, head_VD: torch.Tensor, target_M: torch.Tensor, learn: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kind = x_MD.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_MD.dtype
        x, head, chunk = x_MD.to(precision), head_VD.to(precision), 256 if kind == "cpu" else 8192
        dx, dhead = torch.empty_like(x), torch.zeros_like(head_VD) if learn else None
        losses, correct = torch.empty(len(x), device=x.device), torch.empty_like(target_M, dtype=torch.bool)
        for part in (slice(start, start + chunk) for start in range(0, len(x), chunk)):
            logits, target = (x[part] @ head.T).float(), target_M[part, None]
            total = logits.logsumexp(-1, keepdim=True)
            losses[part] = (total - logits.gather(1, target))[:, 0]
            correct[part] = logits.argmax(-1) == target[:, 0]
            if dhead is not None:
                gradient = logits.sub_(total).exp_()  # probabilities, minus one at the target
                gradient.scatter_add_(1, target, gradient.new_full(target.shape, -1.0))
                gradient = gradient.to(precision)
                dx[part] = gradient @ head
                dhead += gradient.T @ x[part]
        ctx.save_for_backward(dx, dhead)
        ctx.mark_non_differentiable(losses, correct)
        return losses.mean(), losses, correct

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        dx, dhead = ctx.saved_tensors
        scale = gradients[0] / len(dx)
        return dx * scale, dhead * scale, None, None
