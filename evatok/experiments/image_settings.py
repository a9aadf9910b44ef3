"""Image settings: the same experiments on one-frame clips (supplement H), as shared by their named configurations.

Where the paper is silent about images, GigaTok (arXiv 2504.08736) fills in, whose shape and recipe it adopts.
"""

from __future__ import annotations

from typing import Any

from evatok.experiments.tracking import ConfigError
from evatok.tokenizers.config import TokenizerConfig

IMAGES: dict[str, Any] = {"modality": "image", "data": "images", "validation_data": "", "change": 0.0}
"""What image tokenizers of every size have in common."""

TOY = {
    **IMAGES,
    "train_clips": 6400,
    "validation_clips": 512,
    "steps": 3000,
    "batch": 32,
    "learning_rate": 1.5e-3,
    "warmup": 100,
    "perceptual": "st-lpips",
    "perceptual_weight": 0.1,
    "alignment_layer": 2,
    "semantic_encoder": "efficientnet-lite0:frames",
    "semantic_layers": [5, 11],
}
"""CPU, one hour; without direct reconstruction, as its linear shortcut reconstructs from the first step."""

SMALL = {
    **IMAGES,
    "size": "small",
    "train_clips": 20000,
    "validation_clips": 2048,
    "steps": 20000,
    "batch": 64,
    "learning_rate": 4e-4,
    "warmup": 500,
    "direct_steps": 800,
    "entropy_weight": 0.02,
    "perceptual": "st-lpips",
    "bf16": True,
    "device": "cuda",
    "save_every": 500,
}
"""One modern GPU."""

PAPER = {
    **IMAGES,
    "data": "imagenet",
    "size": "paper",
    "train_clips": 0,
    "validation_clips": 0,
    "steps": 400000,
    "batch": 256,
    "learning_rate": 1e-4,
    "final_learning_rate": 1e-5,
    "warmup": 0,
    "clip_norm": 10.0,
    "l1": 1.0,
    "squared": 0.0,
    "perceptual": "lpips-vgg",
    "entropy_weight": 0.02,
    "alignment": "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "discriminator": "patch",
    "adversarial_weight": 0.5,
    "discriminator_start": 20000,
    "discriminator_rate": 1e-4,
    "direct_steps": 15000,
    "uniform_tokens": 256,
    "bf16": True,
    "device": "cuda",
    "save_every": 1000,
}
"""As published: the ImageNet folder as `data`, batch 256, 400,000 steps; the discriminator from step 20,000."""

_ROUTER = {"modality": "image", "metric": "st-lpips", "w_q": 1.3}
ROUTERS: dict[str, dict[str, Any]] = {
    "image_toy": {
        **_ROUTER,
        "steps": 1000,
        "batch": 64,
        "train_table": "results/work/images/train.parquet",
        "validation_table": "results/tables/candidates/images-validation.parquet",
    },
    "image_small": {**_ROUTER, "size": "small", "steps": 10000, "batch": 128, "bf16": True, "device": "cuda"},
    "image_paper": {
        **_ROUTER,
        "size": "paper",
        "metric": "lpips-vgg",
        "steps": 25000,
        "batch": 256,
        "learning_rate": 1e-4,
        "dropout": 0.0,
        "bf16": True,
        "device": "cuda",
    },
}
"""Stage 3: one of eight levels, w_q 1.3; at paper size 25,000 steps of 256 images, as published."""


def proxy(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of stage 1, which takes no uniform assignments."""
    return {name: value for name, value in settings.items() if name != "uniform_tokens"}


def check(config: dict[str, Any], shape: TokenizerConfig) -> None:
    """Raise ConfigError for settings that the front, or images, do not support."""
    if config["modality"] == "image" and config["change"]:
        raise ConfigError("config key change: images have no change from frame to frame; set change=0")
    if config["direct_steps"] and shape.front != "cnn":
        raise ConfigError(
            f"config key direct_steps: front {shape.front} has no convolutions to train by themselves; set "
            "direct_steps=0"
        )
    if config["direct_steps"] and shape.shortcut:
        raise ConfigError(
            f"config key direct_steps: of size {config['size']} a linear shortcut reconstructs with the convolutions, "
            "which must not learn to do so alone; set direct_steps=0"
        )
