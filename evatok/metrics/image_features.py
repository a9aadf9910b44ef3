"""Features of single frames by EfficientNet-Lite0, to compare sets of images if Inception's weights are unavailable.

The features are the 320 channels of the last block's map, averaged over positions, of frames resized to 224 x 224
(bilinear, antialiased). Distances between them are not FID and never called so: they have their own keys
(`rfd_efficientnet`, `gfd_efficientnet`), and only compare with one another at equal N.
"""

from __future__ import annotations

import torch

from evatok.metrics.frame_features import PooledFeatures, published_encoder
from evatok.weights import efficientnet

SOURCE = "efficientnet-lite0:frames"
SIDE = 224  # of the frames it was trained on


class ImageFeatures(PooledFeatures):
    """Features of single frames, a row each."""

    name = "efficientnet-lite0-block16-mean"


def load_image_features(device: torch.device | str = "cpu") -> ImageFeatures:
    """Load the published network, fetching weights once into EVATOK_CACHE. Raises WeightsError if unavailable."""
    encoder = published_encoder(SOURCE, resize=SIDE)
    return ImageFeatures(encoder, {efficientnet.FILE: efficientnet.SHA256}).to(device)
