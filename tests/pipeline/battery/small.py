"""Networks and clips so small that every experiment ends in about a second, and the clips that they are run on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from evatok.data import clips as clip_sets
from evatok.evaluation import protocols
from evatok.evaluation.protocols import PROTOCOLS, Protocol
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.routing.networks import ROUTER_SIZES
from evatok.tokenizers.evatok import TOKENIZER_SIZES
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES
from evatok.training.discriminators import TRANSFORMER_SIZES
from evatok.training.masked_video import VIDEOMAE_SIZES
from tests import factories

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
    GENERATOR_SIZES["toy"] = dict(factories.ONE_LAYER)
    VIDEOFLEXTOK_SIZES["toy"] = dataclasses.replace(
        VIDEOFLEXTOK_SIZES["toy"], size=PIXELS, registers=4, encoder_layers=1, decoder_layers=2, **narrow
    )
    VIDEOMAE_SIZES["toy"] = {**factories.TINY_VIDEOMAE, "image_size": PIXELS, "patch_size": 16}
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
    """uint8 clips (N, T, H, W, 3) of the size of all clips here."""
    return factories.gratings(count, frames, PIXELS, seed)


def make_clips(folder: Path) -> None:
    """Built sets: `train` and `validation` with classes, `long` for chunks, and what each protocol measures."""
    labels = pd.DataFrame({"source": ["made"] * CLIPS, "motion": MOTIONS})
    sets = {
        "train": (gratings(CLIPS, 1), {"split": "train"}),
        "validation": (gratings(CLIPS, 2), {"split": "validation"}),
        "both": (gratings(CLIPS, 3), {}),
        "long": (gratings(4, 4, 40), {}),
    }
    for protocol in (_brief(), _drawn()):
        told = {"name": "films", "split": protocol.split, "seed": protocol.clip_seed, "protocol": protocol.hash}
        sets[protocol.name] = gratings(ASKED, 5), told
    for name, (clips, told) in sets.items():
        facts = {"name": "gratings", "seed": 0, "versions": {}, **told}
        clip_sets.save(folder / name, clips, labels.iloc[: len(clips)], facts)
