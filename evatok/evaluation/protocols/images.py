"""Protocol fields of images, clips of one frame; embedded ones extend the fields all embedded sets share."""

from __future__ import annotations

from typing import Any

_EMBEDDED: dict[str, Any] = {"data": "images", "data_version": 1, "clips": 2048, "frames": 1}

_RECONSTRUCTED: dict[str, Any] = {
    "metrics": ("psnr", "ssim", "l1", "mse", "rfd_efficientnet"),
    "optional": ("lpips_vgg", "lpips_alex", "st_lpips_alex", "rkd_efficientnet", "rfid"),
}

OWN: dict[str, Any] = {
    **_RECONSTRUCTED,
    "frames": 1,
    "unknown": ("clips",),
    "note": "Whatever images a user has, as table4 --data decodes them: rows of one set compare, sets never do.",
}
"""For a user's own images, at 64 x 64 pixels."""

_IMAGENET: dict[str, Any] = {
    "version": 1,
    "data": "imagenet",
    "split": "validation",
    "clip_choice": "first",
    "clips": 50000,
    "frames": 1,
    "size": 256,
    "padded": False,
    "citation": "EVATok, arXiv 2603.12267, supplement H",
}

PROTOCOLS: tuple[dict[str, Any], ...] = (
    {
        **_EMBEDDED,
        **_RECONSTRUCTED,
        "name": "embedded-images-reconstruction",
        "note": "One frame of each clip of Freedoom and of the games that proxies see; needs the extra evatok[arcade].",
    },
    {
        **_EMBEDDED,
        "name": "embedded-images-generation",
        "metrics": ("gfd_efficientnet",),
        "optional": ("gkd_efficientnet", "gfid"),
        "reference": "as many real images; their games are those generated",
        "note": "One sample a real image, of its game; distances depend on N, so only equal N compare.",
    },
    {
        **_IMAGENET,
        "name": "imagenet-reconstruction-50k",
        "metrics": ("rfid", "lpips_vgg", "psnr"),
        "optional": ("ssim", "l1", "mse", "lpips_alex", "rfd_efficientnet", "rkd_efficientnet"),
        "unknown": ("resize", "rounding", "networks"),
        "note": "All of ImageNet's validation images, shorter side to 256 and the centre; data is its folder.",
    },
    {
        **_IMAGENET,
        "name": "imagenet-generation-50k",
        "metrics": ("gfid",),
        "optional": ("gfd_efficientnet", "gkd_efficientnet"),
        "unknown": ("resize", "rounding", "networks", "reference"),
        "reference": "the 50,000 validation images, 50 of each class; their classes are those generated",
        "note": (
            "50,000 samples, 50 a class, constant guidance 1.5; published values often take training images instead."
        ),
    },
)
