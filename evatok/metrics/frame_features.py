"""Features of frames and their changes by EfficientNet-Lite0, trained on ImageNet: what pixels and I3D miss.

The network reads each frame and, as a picture, its difference from the frame before; the maps of its last block are
averaged over positions. At 64 pixels a clip costs a hundredth of an I3D pass.

Legend: B clips, T frames, N rows of features (all frames), D = 640 features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evatok.metrics.frechet import frechet_distance_of_features
from evatok.models.encoders import EncoderError, FrozenEncoder, load_encoder
from evatok.weights import WeightsError

SOURCE = "efficientnet-lite0"


class PooledFeatures(nn.Module):
    """Map clips (B, 3, T, H, W) in [0, 1] to features (B * T, D): maps of the last block, averaged; frozen, float32."""

    name: str

    def __init__(self, encoder: FrozenEncoder, weights_sha256: dict[str, str] | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.weights_sha256 = weights_sha256 or {encoder.source: encoder.weights_sha256}

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        with torch.autocast(clips.device.type, enabled=False):
            (grid_BTYXD,) = self.encoder(clips.float(), [self.encoder.depth])
        return grid_BTYXD.mean((2, 3)).flatten(0, 1)


class FrameFeatures(PooledFeatures):
    """Features of frames and their changes, for clips of at least two frames."""

    name = "efficientnet-lite0-block16-frames-and-changes"


def published_encoder(source: str, **options: Any) -> FrozenEncoder:
    """Load a frozen encoder by name. Raises WeightsError if its weights are not available."""
    try:
        return load_encoder(source, **options)
    except EncoderError as error:
        raise WeightsError(str(error)) from error


def load_frame_features(device: str | torch.device = "cpu") -> FrameFeatures:
    """Load the published network. Raises WeightsError if its weights are not available."""
    return FrameFeatures(published_encoder(SOURCE)).to(device)


def feature_frechet(real_ND: np.ndarray, fake_ND: np.ndarray) -> float:
    """Frechet distance of two sets of features, covariances divided by N. Raises ValueError for too few of them."""
    return float(frechet_distance_of_features(real_ND, fake_ND, ddof=0))


def feature_agreement(real_ND: np.ndarray, fake_ND: np.ndarray) -> float:
    """Mean cosine of paired features, standardised by the real ones: 1 for the same clips, about 0 for unrelated ones.

    Raw features point nearly all one way, so that any two clips would agree. Raises ValueError for unpaired features.
    """
    if real_ND.shape != fake_ND.shape:
        raise ValueError(f"features {fake_ND.shape} cannot be paired with {real_ND.shape}")
    mean, deviation = real_ND.mean(0), np.maximum(real_ND.std(0), 1e-6)
    real, fake = ((features - mean) / deviation for features in (real_ND, fake_ND))
    lengths = np.linalg.norm(real, axis=1) * np.linalg.norm(fake, axis=1)
    return float(((real * fake).sum(1) / np.maximum(lengths, 1e-12)).mean())


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "feature_frechet": feature_frechet,
    "feature_agreement": feature_agreement,
}
"""Metrics of real and fake features, by name."""
