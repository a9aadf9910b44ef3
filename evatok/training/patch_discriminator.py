"""The discriminator of VQGAN and GigaTok for images: one logit per overlapping patch, convolutional (PatchGAN).

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017; Esser et al., VQGAN,
arXiv 2012.09841.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from evatok.training.discriminators import DiscriminatorError

PATCH_SIZES: dict[str, dict[str, int]] = {
    "toy": {"channels": 32, "layers": 2},  # patches of 34 pixels, half the side of its images
    "small": {"channels": 64, "layers": 3},
    "paper": {"channels": 64, "layers": 3},  # GigaTok's
}


class PatchDiscriminator(nn.Module):
    """Map images, clips (B, 3, T, H, W) in [0, 1], to logits (B, X), one per patch of each frame.

    A patch has 70 pixels along a side, or 34 with two layers.

    Args:
        channels: of the first layer.
        layers: that halve the sides; one more follows at stride 1.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**layer, 8) for layer in range(layers + 1)]
        stack: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            stride = 2 if layer < layers else 1
            stack += [nn.Conv2d(widths[layer - 1], widths[layer], 4, stride, 1, bias=False)]
            stack += [nn.BatchNorm2d(widths[layer]), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*stack, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.least = 2 ** (layers + 2)  # pixels along a side that leave one logit
        self.apply(_start)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (B, X), float32.

        Raises:
            DiscriminatorError: images smaller than a patch.
        """
        if min(clips.shape[-2:]) < self.least:
            raise DiscriminatorError(
                f"discriminator patch needs images of {self.least} x {self.least} pixels, got {tuple(clips.shape[-2:])}"
            )
        frames = rearrange(2 * clips - 1, "b c t h w -> (b t) c h w")
        return rearrange(self.layers(frames), "(b t) 1 h w -> b (t h w)", b=len(clips)).float()


def _start(module: nn.Module) -> None:
    """Initialise as in pix2pix: small weights, so that logits start near zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
