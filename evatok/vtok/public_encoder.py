"""F as a public image encoder: CLIP, which the paper's models use, or another that processes single images.

Features are those of the second-to-last layer, as in LLaVA, pooled to 8 x 8 cells: for CLIP-L/336's 24 x 24 patches,
windows of 3 x 3.

Legend: N frames, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from evatok.models.encoder_families import FrozenEncoder, Images
from evatok.models.encoders import load_encoder
from evatok.vtok.features import CELLS, Encoder, pooled
from evatok.vtok.image_encoder import ImageEncoder, ImageEncoderError


class PublicEncoder(nn.Module):
    """Frames (N, 3, H, W) in [0, 1] to a grid of features (N, 8, 8, D), at the encoder's own size.

    Attributes:
        identity: hash of the weights and the layer, for caches and records.

    Raises:
        ImageEncoderError: an encoder of clips, or one of fewer than two layers.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        if not isinstance(encoder, Images) or encoder.depth < 2:
            raise ImageEncoderError(
                f"{encoder.source}: {type(encoder).__name__} is no image encoder of two layers or more; "
                "name a CLIP, a DINOv2 or a DINOv3"
            )
        self.encoder, self.layer = encoder, encoder.depth - 1
        self.width = encoder.width_of(self.layer)
        self.identity = f"{encoder.weights_sha256}-{self.layer}"

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        (grid,) = self.encoder(frames[:, :, None], [self.layer])
        return pooled(grid[:, 0], CELLS)


def encoder_of(source: str | Path, device: torch.device | str = "cpu") -> Encoder:
    """Load the image encoder at a path: a public one's folder or hub name, or a checkpoint trained here.

    Raises:
        ImageEncoderError: see `PublicEncoder`.
        EncoderError: a folder that cannot be loaded.
        CheckpointError: not a checkpoint of an image encoder.
    """
    if Path(source).suffix == ".safetensors":
        return ImageEncoder.load(source, device)
    encoder = load_encoder(source)
    side = getattr(encoder.config, "image_size", None)
    encoder.resize = int(side) if isinstance(side, int) else None
    return PublicEncoder(encoder).to(device)
