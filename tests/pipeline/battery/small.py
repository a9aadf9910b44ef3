"""Networks and clips so small that every experiment ends in about a second, and the clips that they are run on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from evatok.data import clips as clip_sets
from evatok.evaluation import protocols
from evatok.evaluation.protocols import PROTOCOLS, Protocol
from evatok.experiments.pretrain_videomae import VIDEOMAE_SIZES
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.routing.networks import ROUTER_SIZES
from evatok.tokenizers.evatok import TOKENIZER_SIZES
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES
from evatok.training.discriminators import TRANSFORMER_SIZES

FRAMES, PIXELS = 16, 32
CLIPS, ASKED = 12, 6
MOTIONS = ["walk", "turn", "idle"] * 4

BRIEF, DRAWN = "brief", "drawn"
"""Protocols of the pipeline's own clips: of reconstructions and of generated clips."""


def make_toys_small() -> None:
    """Make the size toy of every network a smaller one, in this process and its children, and know the protocols."""
    narrow = {"encoder_width": 20, "encoder_heads": 2, "decoder_width": 20, "decoder_heads": 2, "codebook_size": 240}
    shape = dataclasses.replace(
        TOKENIZER_SIZES["toy"],
        levels=(2, 4, 8),
        size=PIXELS,
        patch=(4, 8, 8),
        encoder_layers=1,
        decoder_layers=1,
        **narrow,
    )
    TOKENIZER_SIZES["toy"] = shape
    ROUTER_SIZES["toy"] = dataclasses.replace(
        ROUTER_SIZES["toy"], levels=shape.levels, size=PIXELS, width=16, layers=1, heads=2
    )
    TRANSFORMER_SIZES["toy"] = dataclasses.replace(TRANSFORMER_SIZES["toy"], size=PIXELS, width=16, layers=1, heads=2)
    GENERATOR_SIZES["toy"] = {"width": 32, "layers": 1, "heads": 2}
    VIDEOFLEXTOK_SIZES["toy"] = dataclasses.replace(
        VIDEOFLEXTOK_SIZES["toy"], size=PIXELS, registers=4, encoder_layers=1, decoder_layers=2, **narrow
    )
    VIDEOMAE_SIZES["toy"] = {
        "image_size": PIXELS,
        "patch_size": 16,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
    }
    for protocol in (_brief(), _drawn()):
        PROTOCOLS[protocol.name] = protocol


def _brief() -> Protocol:
    base = protocols.get("larp-ucf101-reconstruction")
    asked = {"data": "films", "clips": ASKED, "frames": FRAMES, "size": PIXELS, "metrics": ("psnr", "ssim", "l1")}
    return dataclasses.replace(base, name=BRIEF, **asked)


def _drawn() -> Protocol:
    base = protocols.get("larp-ucf101-generation")
    asked = {"data": "films", "clips": ASKED, "frames": FRAMES, "size": PIXELS}
    return dataclasses.replace(base, name=DRAWN, clip_choice="first", clip_seed=0, **asked)


def gratings(count: int, seed: int, frames: int = FRAMES) -> np.ndarray:
    """uint8 clips (N, T, H, W, 3): coloured gratings that drift at their own speed."""
    random = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(PIXELS), np.arange(PIXELS), indexing="ij")
    clips = []
    for _ in range(count):
        waves, speed, phase = random.uniform(0.05, 0.6, (2, 3)), random.uniform(-1, 1, 3), random.uniform(0, 6, 3)
        angle = x[..., None] * waves[0] + y[..., None] * waves[1] + t[..., None] * speed + phase
        clips.append(127 + 90 * np.sin(angle) + random.normal(0, 8, angle.shape))
    return np.clip(np.stack(clips), 0, 255).astype(np.uint8)


def make_clips(folder: Path) -> None:
    """Built sets: `train` and `validation` with classes, `long` for chunks, and what each protocol measures."""
    labels = pd.DataFrame({"source": ["made"] * CLIPS, "motion": MOTIONS})
    sets = {
        "train": (gratings(CLIPS, 1), {"split": "train"}),
        "validation": (gratings(CLIPS, 2), {"split": "validation"}),
        "both": (gratings(CLIPS, 3), {}),
        "long": (gratings(4, 4, 40), {"split": "validation"}),
    }
    for protocol in (_brief(), _drawn()):
        told = {"name": "films", "split": protocol.split, "seed": protocol.clip_seed, "protocol": protocol.hash}
        sets[protocol.name] = gratings(ASKED, 5), told
    for name, (clips, told) in sets.items():
        facts = {"name": "gratings", "seed": 0, "versions": {}, **told}
        clip_sets.save(folder / name, clips, labels.iloc[: len(clips)], facts)
