"""Metrics on clips (B, 3, T, H, W), floats in [0, 1]: features -> statistics -> value, one module each.

from evatok.metrics import fvd, lpips, motion_ratio, psnr

psnr(real, fake), lpips(real, fake, net="vgg")  # one value per clip
fvd(real, fake), motion_ratio(real, fake)       # one value for the two sets

`catalogue` describes each metric. Functions are imported on first use, so that reading records does not need PyTorch;
no module here may have the name of one of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evatok.metrics.i3d import fvd as fvd
    from evatok.metrics.i3d import i3d_logits as i3d_logits
    from evatok.metrics.inception import fid as fid
    from evatok.metrics.motion import motion_correlation as motion_correlation
    from evatok.metrics.motion import motion_ratio as motion_ratio
    from evatok.metrics.perceptual import lpips as lpips
    from evatok.metrics.perceptual import st_lpips as st_lpips
    from evatok.metrics.pixels import l1 as l1
    from evatok.metrics.pixels import mse as mse
    from evatok.metrics.pixels import psnr as psnr
    from evatok.metrics.structural_similarity import ssim as ssim

_HOMES = {
    "fid": "inception",
    "fvd": "i3d",
    "i3d_logits": "i3d",
    "l1": "pixels",
    "lpips": "perceptual",
    "motion_correlation": "motion",
    "motion_ratio": "motion",
    "mse": "pixels",
    "psnr": "pixels",
    "ssim": "structural_similarity",
    "st_lpips": "perceptual",
}
"""The module of each function."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evatok.metrics' has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    return getattr(importlib.import_module(f"evatok.metrics.{_HOMES[name]}"), name)
