"""Features of single frames by EfficientNet-Lite0, to compare sets of images where Inception's weights are absent.

The features are the 320 channels of the last block's map, averaged over positions, of frames brought to 224 x 224
(bilinear, antialiased). Distances between them are no FID and never called so: they have keys of their own
(`rfd_efficientnet`, `gfd_efficientnet`), and compare with one another at equal N alone.

Legend: B clips, T frames.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import nn

from evatok.models.encoders import EncoderError, FrozenEncoder, load_encoder
from evatok.weights import WeightsError, efficientnet

SIDE = 224  # of the frames it was trained on


class EfficientNetFeatures(nn.Module):
    """Map clips (B, 3, T, H, W) in [0, 1] to features (B * T, 320), a row per frame; frozen."""

    name = "efficientnet-lite0-block16-mean"

    def __init__(self, encoder: FrozenEncoder, *, weights_sha256: dict[str, str]) -> None:
        super().__init__()
        self.encoder, self.weights_sha256 = encoder, weights_sha256

    @torch.no_grad()
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        with torch.autocast(clips.device.type, enabled=False):
            (maps,) = self.encoder(clips.float(), [self.encoder.depth])
        return rearrange(maps.mean((2, 3)), "b t d -> (b t) d")


def load_image_features(device: torch.device | str = "cpu") -> Any:
    """The published network, its weights fetched once into EVATOK_CACHE. Raises WeightsError if they cannot be had."""
    try:
        encoder = load_encoder("efficientnet-lite0:frames", resize=SIDE)
    except EncoderError as error:
        raise WeightsError(str(error)) from error
    return EfficientNetFeatures(encoder, weights_sha256={efficientnet.FILE: efficientnet.SHA256}).to(device)
