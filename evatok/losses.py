"""The terms of the tokenizer's objective (main eq. 2), one function each, and their weighted sum.

Adversarial and alignment terms join as further entries of the dictionary that `weighted_sum` takes.
"""

from __future__ import annotations

import torch
from torch import nn

from evatok.models.tokenizer import Reconstruction


def l1(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean absolute error over clips (B, 3, T, H, W)."""
    return (real - fake).abs().mean()


def proxy_terms(
    real: torch.Tensor, reconstruction: Reconstruction, perceptual: nn.Module | None
) -> dict[str, torch.Tensor]:
    """Stage 1's terms by name, unweighted: l1, quantiser and, with a metric, perceptual."""
    terms = {"l1": l1(real, reconstruction.clips), "quantiser": reconstruction.quantiser_loss}
    if perceptual is not None:
        terms["perceptual"] = perceptual(real, reconstruction.clips).mean()
    return terms


def weighted_sum(terms: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """Sum of weight * term.

    Raises:
        KeyError: a term without a weight - a term is switched off with 0, never by forgetting it.
    """
    missing = terms.keys() - weights.keys()
    if missing:
        raise KeyError(f"no weight for the loss terms {sorted(missing)}")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
