"""VideoMAE (Tong et al. 2022): sizes, initialisation, masking, reconstruction errors, and the folder it ships as.

Nine tenths of the patches are masked and reconstructed from the rest.

Legend: B clips of a batch, T frames, H x W pixels. A `config` has the keys `masking`, the share of the places to hide,
`tubes`, `device` and `bf16`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import nn

from evatok.data.clips import to_network
from evatok.models.encoders import IMAGENET_DEVIATION, IMAGENET_MEAN, quiet
from evatok.models.precision import autocast
from evatok.storage import checksums, ranks
from evatok.storage.files import replacing_folder, write_json
from evatok.tokenizers.initialise import sine_cosine

# Shapes in the terms of transformers' VideoMAEConfig.
VIDEOMAE_SIZES: dict[str, dict[str, Any]] = {
    # 8 x 4 x 4 tokens of 16 x 64 x 64 clips: to the toy tokenizer's grid as V-JEPA 2's is to the paper's. One decoder
    # layer costs VideoMAE about a point and halves a CPU's step.
    "toy": {
        "image_size": 64,
        "patch_size": 16,
        "hidden_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "decoder_hidden_size": 192,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": 768,
    },
    # VideoMAE-S at the paper's clip size: 8 x 8 x 8 tokens of 16 x 128 x 128 clips.
    "small": {
        "image_size": 128,
        "patch_size": 16,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "decoder_hidden_size": 192,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": 768,
    },
    # VideoMAE-B, which the paper takes ready-made: 8 x 14 x 14 tokens of 16 x 224 x 224 clips.
    "paper": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "decoder_hidden_size": 384,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 6,
        "decoder_intermediate_size": 1536,
    },
}


def hidden_patch_error(
    module: Any, pixels: np.ndarray, config: dict[str, Any], generator: torch.Generator
) -> torch.Tensor:
    """Mean squared error () of a network on the masked patches of clips (B, T, H, W, 3)."""
    clips = to_network(pixels, config["device"]).transpose(1, 2)
    mean, deviation = (clips.new_tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    hidden = hidden_places(len(clips), module.config, config, generator).to(clips.device)
    with autocast(config["device"], config["bf16"], config.get("fp16", False)):
        return module((clips - mean) / deviation, bool_masked_pos=hidden).loss


def mean_colour_error(
    module: Any, pixels: np.ndarray, config: dict[str, Any], generator: torch.Generator
) -> torch.Tensor:
    """Return the same error () when masked patches are filled with the mean colour of the visible ones: no network."""
    patches = patch_pixels(to_network(pixels, config["device"]), module.config)
    hidden = hidden_places(len(patches), module.config, config, generator).to(patches.device)
    errors = []
    for clip, covered in zip(patches, hidden, strict=True):
        errors.append((clip[covered] - clip[~covered].mean((0, 1))).square().mean())
    return torch.stack(errors).mean()


def patch_pixels(clips: torch.Tensor, shape: Any) -> torch.Tensor:
    """Return the reconstruction target of clips (B, 3, T, H, W) in [0, 1]: (B, tokens, pixels of a patch, 3)."""
    t, side = shape.tubelet_size, shape.patch_size
    patches = rearrange(clips, "b c (k t) (y h) (x w) -> b (k y x) (t h w) c", t=t, h=side, w=side)
    if not shape.norm_pix_loss:
        return patches
    return (patches - patches.mean(2, keepdim=True)) / (patches.std(2, keepdim=True) + 1e-6)


def hidden_places(batch: int, shape: Any, config: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Draw (B, tokens) booleans, True where masked: the same number in every clip.

    With `tubes`, the same positions at every time step.

    Args:
        shape: a VideoMAEConfig.
        config: `masking`, the share of positions to mask - at least one is masked and one visible - and `tubes`.
    """
    steps, places = shape.num_frames // shape.tubelet_size, (shape.image_size // shape.patch_size) ** 2
    choices = places if config["tubes"] else steps * places
    count = min(max(round(config["masking"] * choices), 1), choices - 1)
    hidden = ranks.share(torch.rand(ranks.whole(batch), choices, generator=generator)).argsort(1) < count
    return hidden.repeat(1, steps) if config["tubes"] else hidden


def ship(encoder: Any, folder: Path) -> None:
    """Write an encoder in half precision as a folder that transformers reads, replacing an older one."""
    shape = encoder.config
    pixels = {
        "image_processor_type": "VideoMAEImageProcessor",
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_DEVIATION),
        "size": {"shortest_edge": shape.image_size},
        "crop_size": {"height": shape.image_size, "width": shape.image_size},
    }
    with replacing_folder(folder) as partial:
        with quiet():
            copy.deepcopy(encoder).cpu().half().save_pretrained(partial)
        write_json(partial / "preprocessor_config.json", pixels)
        checksums.write(partial)


def untrained(sizes: dict[str, Any], *, seed: int, normalise_patches: bool) -> Any:
    """Make a VideoMAE with its decoder, always the same for a seed.

    Args:
        sizes: one of VIDEOMAE_SIZES.
        normalise_patches: reconstruct per-patch normalised pixels.
    """
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    torch.manual_seed(seed)
    # The norm after the last layer is trained only without mean pooling, as in the public pre-trained weights.
    shape = VideoMAEConfig(**sizes, use_mean_pooling=False, norm_pix_loss=normalise_patches)
    network = VideoMAEForPreTraining(shape)
    _start(network)
    return network


@torch.no_grad()
def _start(network: Any) -> None:
    """Initialise so that a small network trains in minutes; the model stays VideoMAE's.

    transformers' default initialisation (deviation 0.02) is slow to train from. Linear maps start as in VideoMAE's
    code; attention first looks at near and similar patches; and the decoder, which does not ship, encodes a patch's
    position by row, column and time instead of by index.
    """
    from transformers.models.videomae.modeling_videomae import VideoMAESelfAttention

    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    for module in network.modules():
        if isinstance(module, VideoMAESelfAttention):
            nn.init.orthogonal_(module.query.weight)
            module.key.weight.copy_(module.query.weight)
    shape = network.config
    side, steps = shape.image_size // shape.patch_size, shape.num_frames // shape.tubelet_size
    places = sine_cosine(steps, (side, side), shape.decoder_hidden_size)
    network.position_embeddings = places.reshape(1, -1, shape.decoder_hidden_size)
