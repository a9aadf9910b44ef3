"""Structural similarity (SSIM) of a clip and its reconstruction, one value per clip: higher is better, 1 if equal.

Means, variances and covariance under a Gaussian window (11 x 11, sigma 1.5) are compared pixel by pixel and channel by
channel, and averaged over the frame; a clip's value is the mean over its frames.

Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from evatok.metrics.pixels import Clips, check_clips

WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # of the paper, for values in [0, 1]


def ssim(real: Clips, fake: Clips, *, borders: bool = True) -> Tensor:
    """Mean SSIM over each clip's frames (B,) float32, of two clips (B, 3, T, H, W) in [0, 1].

    With `borders` every pixel counts, and frames are mirrored at their edges, as in torchmetrics from 1.6. Without,
    only pixels whose window lies inside the frame count, as in the paper's code, scikit-image and older torchmetrics.
    The two differ in the third digit, so a protocol has to name one.

    Raises ValueError as `check_clips`, and for frames smaller than the window.
    """
    real, fake = check_clips(real, fake)
    if min(real.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs frames of {WINDOW}x{WINDOW} at least, got {real.shape[-2]}x{real.shape[-1]}")
    # One clip at a time bounds the memory. In double precision, because the variance of a bright flat area is a
    # small difference of large numbers.
    values = [_similarity(a.double(), b.double(), borders).mean() for a, b in zip(real, fake, strict=True)]
    return torch.stack(values).float()


def _similarity(real: Tensor, fake: Tensor, borders: bool) -> Tensor:
    """Similarity map of two clips (3, T, H, W)."""
    maps = torch.stack([real, fake, real * real, fake * fake, real * fake])
    mean_a, mean_b, square_a, square_b, product = _windowed(maps, borders)
    variances = (square_a - mean_a.square()).clamp(min=0) + (square_b - mean_b.square()).clamp(min=0)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    structure = (2 * (product - mean_a * mean_b) + _C2) / (variances + _C2)
    return luminance * structure


def _windowed(maps: Tensor, borders: bool) -> Tensor:
    """Average maps (5, 3, T, H, W) under the window; without borders, H - 10 x W - 10 pixels remain."""
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    if borders:
        planes = F.pad(planes, (WINDOW // 2,) * 4, mode="reflect")
    offsets = torch.arange(WINDOW, device=maps.device, dtype=maps.dtype) - WINDOW // 2
    weights = torch.softmax(-offsets.square() / (2 * _SIGMA**2), dim=0)  # a Gaussian that sums to 1
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.reshape(*maps.shape[:-2], *planes.shape[-2:])
