"""Linear probes: how well a label can be read off frozen features.

Legend: N training clips, M test clips, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import one_hot

from evatok.data.clips import to_network
from evatok.metrics import catalogue
from evatok.models.encoders import FrozenEncoder
from evatok.models.precision import autocast
from evatok.storage.records import Metric


@torch.no_grad()
def mean_features(
    encoder: FrozenEncoder,
    pixels: np.ndarray,
    layers: Sequence[int],
    *,
    batch: int,
    device: str = "cpu",
    bf16: bool = False,
) -> torch.Tensor:
    """Features (N, D) of uint8 clips (N, T, H, W, 3): those of each layer averaged over the clip, side by side."""
    means = []
    for start in range(0, len(pixels), batch):
        clips = to_network(pixels[start : start + batch], device)
        with autocast(device, bf16):
            found = encoder(clips, layers)
        means.append(torch.cat([features.float().mean((1, 2, 3)) for features in found], dim=1).cpu())
    return torch.cat(means)


def ridge_probe(features: torch.Tensor, labels: np.ndarray, asked: torch.Tensor) -> np.ndarray:
    """Fit a ridge classifier to features (N, D) and labels (N,); return (M,) labels of `asked` (M, D).

    All labels have equal weight, however rare. The ridge strength minimises the leave-one-out error, which has a closed
    form.
    """
    classes, targets, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight = torch.from_numpy(1 / counts[targets] / len(classes))[:, None]  # sums to 1
    known = features.double()
    mean = (weight * known).sum(0)
    deviation = (weight * (known - mean) ** 2).sum(0).sqrt().clamp_min(1e-8)
    wanted = one_hot(torch.from_numpy(targets)).double() - 1 / len(classes)
    root = weight.sqrt()
    left, values, right = torch.linalg.svd(root * (known - mean) / deviation, full_matrices=False)
    projected = left.T @ (root * wanted)

    def left_out_error(strength: float) -> float:
        shrink = values**2 / (values**2 + strength)
        leverage = (left**2 * shrink).sum(1, keepdim=True) + weight
        missed = (root * wanted - left @ (shrink[:, None] * projected)) / (1 - leverage).clamp_min(1e-8)
        return float(missed.square().sum())

    best = min(np.logspace(-6, 2, 33), key=left_out_error)
    weights = right.T @ ((values / (values**2 + best))[:, None] * projected)
    return classes[((asked.double() - mean) / deviation @ weights).argmax(1).numpy()]


def balanced_accuracy(said: np.ndarray, asked: np.ndarray) -> Metric:
    """Average the recall over the labels, with half its 95 % interval."""
    shares = [(said[asked == label] == label).astype(float) for label in np.unique(asked)]
    variance = sum(share.var() / len(share) for share in shares) / len(shares) ** 2
    mean = float(np.mean([share.mean() for share in shares]))
    return catalogue.of("probe").measured(mean, len(asked), 1.96 * variance**0.5)
