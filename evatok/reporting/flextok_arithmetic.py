"""VideoFlexTok's numbers that follow from its configurations: tokens of long clips, bytes, network sizes."""

from __future__ import annotations

import torch

from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.encoder import RegisterEncoder
from evatok.tokenizers.videoflextok.flow_decoder import FlowDecoder
from evatok.tokenizers.videoflextok.long import latent_frames_of


def tokens_of(config: VideoFlexTokConfig, frames: int, per_frame: int) -> int:
    """Count the tokens of a clip in chunks, each latent frame once."""
    return per_frame * latent_frames_of(config, frames)


def parameters() -> dict[tuple[str, str], float]:
    """Return millions of parameters of each stack's blocks, without modulation, counted on the meta device."""
    found = {}
    for size, name in (("paper-d12", "d12-d12"), ("paper", "d18-d18"), ("paper-d28", "d18-d28")):
        config = VIDEOFLEXTOK_SIZES[size]
        with torch.device("meta"):
            encoder, decoder = RegisterEncoder(config).layers, FlowDecoder(config).layers
        modulation = sum(p.numel() for key, p in decoder.named_parameters() if "modulation" in key)
        found[(name, "encoder_parameters")] = sum(p.numel() for p in encoder.parameters()) / 1e6
        found[(name, "decoder_parameters")] = (sum(p.numel() for p in decoder.parameters()) - modulation) / 1e6
        found[(name, "modulation_parameters")] = modulation / 1e6
    return found


def computed() -> dict[tuple[str, str], float]:
    """Return everything by (row, metric)."""
    config = VIDEOFLEXTOK_SIZES["paper-d28"]
    most = config.registers
    bytes_of = {tokens: 2 * tokens for tokens in (1, most)}  # 64,000 codes fit in 2 bytes
    return {
        ("17 frames, 32 per latent frame", "tokens"): tokens_of(config, 17, 32),
        ("17 frames, all", "tokens"): tokens_of(config, 17, most),
        ("81 frames, 32 per latent frame", "tokens"): tokens_of(config, 81, 32),
        ("81 frames, all (3D grid)", "tokens"): tokens_of(config, 81, most),
        ("fewest against all", "bytes_ratio"): bytes_of[most] / bytes_of[1],
        **parameters(),
    }
