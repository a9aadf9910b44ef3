"""Metrics on clips (B, 3, T, H, W), floats in [0, 1]: features -> statistics -> value, a module each.

from evatok.metrics import fvd, lpips, motion_ratio, psnr

psnr(real, fake), lpips(real, fake, net="vgg")  # one value a clip
fvd(real, fake), motion_ratio(real, fake)       # one value for the two sets
"""

from evatok.metrics.fid import fid
from evatok.metrics.i3d import fvd, i3d_logits
from evatok.metrics.motion import motion_correlation, motion_ratio
from evatok.metrics.perceptual import lpips, st_lpips
from evatok.metrics.pixels import l1, mse, psnr
from evatok.metrics.ssim import ssim

__all__ = [
    "fid",
    "fvd",
    "i3d_logits",
    "l1",
    "lpips",
    "motion_correlation",
    "motion_ratio",
    "mse",
    "psnr",
    "ssim",
    "st_lpips",
]
