"""Build the parts of a VideoFlexTok training: clips, codec, network, teacher and loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from evatok.data.clips import ClipSet, to_network
from evatok.data.sets import clip_set
from evatok.experiments import tracking
from evatok.experiments.tokenizer_training import validation_data
from evatok.models.encoders import load_encoder
from evatok.models.latents import LatentCodec, PatchPCA, VidTok
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, FlexNetwork, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.flow_matching import NoiseLevels
from evatok.tokenizers.videoflextok.nested_dropout import NestedDropout
from evatok.training.batches import Batches
from evatok.training.flextok_alignment import Teacher
from evatok.training.flextok_objective import FlexObjective
from evatok.training.flextok_targets import StoredTargets

DEPTHS = {"d12-d12": "paper-d12", "d18-d18": "paper", "d18-d28": "paper-d28"}
"""The paper's networks by encoder and decoder depth (Sec. 4.1)."""
FITTED_TO = 256
"""Clips, spread over the training set, to which the initialisation and the alignment target are fitted."""


@dataclass(frozen=True)
class FlexPlan:
    """What one stage adds to the shared training.

    Attributes:
        kind: of its record.
        network, codec: what it trains, on the CPU, initialised.
        parents: sha256 by role of what it was made from, besides its clips.
        facts: how it was trained, for the checkpoint's header.
        alignment: encoder to align with, or "none".
        first_probability: share of clips whose first latent frame is given.
        frozen_encoder: whether encoder and quantiser stay frozen.
    """

    kind: str
    network: FlexNetwork
    codec: LatentCodec
    parents: dict[str, str]
    facts: dict[str, Any]
    alignment: str = "none"
    first_probability: float = 0.0
    frozen_encoder: bool = False


def objective_of(config: dict[str, Any], plan: FlexPlan, teacher: Teacher | None, train_set: ClipSet) -> FlexObjective:
    """Build the configured loss."""
    shape = plan.network.config
    stored = None
    if teacher is not None and config["alignment_stored"]:
        flip, bf16, device = config["flip"], config["bf16"], config["device"]
        with tqdm(total=len(train_set) * (1 + flip), desc="targets of the alignment", disable=None) as bar:
            clips = np.asarray(train_set.clips)
            stored = StoredTargets.of(teacher, clips, mirrored=flip, bf16=bf16, device=device, tick=bar.update)
    kept = "all" if shape.form == "grid" else config["kept"]
    return FlexObjective(
        Batches(train_set, config["batch"], config["seed"], config["flip"], config["device"]),
        plan.codec.to(config["device"]),
        NestedDropout(shape.registers, shape.blocks, kept, config["kept_per"]),
        NoiseLevels(config["noise_mean"], config["noise_deviation"], config["noise_unshifted"]),
        teacher=teacher,
        stored=stored,
        alignment_weight=config["alignment_weight"],
        null_probability=config["null"],
        first_probability=plan.first_probability,
        frozen_encoder=plan.frozen_encoder,
        bf16=config["bf16"],
    )


def teacher_of(config: dict[str, Any], plan: FlexPlan, train_set: ClipSet) -> Teacher | None:
    """Load the alignment's encoder, its features standardised on training clips. Raises EncoderError, "
    "AlignmentError."""
    if plan.alignment == "none":
        return None
    encoder = load_encoder(plan.alignment, resize=config["alignment_resize"] or None).to(config["device"])
    return Teacher(encoder, plan.network.config).fit(spread(train_set), config["device"])


def clips_of(config: dict[str, Any], shape: VideoFlexTokConfig) -> tuple[ClipSet, ClipSet]:
    """Load training and validation clips in the network's shape.

    Raises:
        ConfigError: no data named.
    """
    if not config["data"]:
        raise tracking.ConfigError("config key data: name a manifest CSV, a folder of class folders or a set")

    def clips(data: str, split: str, count: int) -> ClipSet:
        return clip_set(data, split, count, size=shape.size, frames=shape.frames, fps=config["fps"])

    return (
        clips(config["data"], "train", config["train_clips"]),
        clips(validation_data(config), "validation", config["validation_clips"]),
    )


def spread(clips: ClipSet, count: int = FITTED_TO) -> np.ndarray:
    """Up to `count` clips (n, F, H, W, 3), spread evenly over the set."""
    return np.asarray(clips.clips[:: max(1, len(clips) // count)][:count])


def shape_of(config: dict[str, Any], **changes: Any) -> VideoFlexTokConfig:
    """Return the network of the configured size with the overridden settings.

    Raises:
        ConfigError: depths for another size.
        FlexTokError, LatentError: an invalid network.
    """
    if config["depths"] and config["size"] != "paper":
        raise tracking.ConfigError(f"config key depths: {config['depths']} is of size=paper, this is {config['size']}")
    shape = VIDEOFLEXTOK_SIZES[DEPTHS[config["depths"]] if config["depths"] else config["size"]]
    return replace(shape, **{key: value for key, value in changes.items() if value})


def codec_of(config: dict[str, Any], shape: VideoFlexTokConfig, train_set: ClipSet) -> LatentCodec:
    """Build the latent codec, fitted or standardised on training clips.

    Raises:
        ConfigError: VidTok latents without the folder of its weights.
        LatentError, ImportError: weights that cannot be used, or diffusers missing to run them.
    """
    if shape.codec == PatchPCA.kind:
        return PatchPCA.fit(spread(train_set, config["latent_clips"]), shape.channels)
    if not config["latents"]:
        raise tracking.ConfigError(
            "config key latents: name the folder of VidTok's weights (diffusers' format, version 1.1), or set "
            "codec=patch-pca"
        )
    return VidTok.load(config["latents"]).standardise(to_network(spread(train_set, 64)))


def facts_of(config: dict[str, Any], plan: FlexPlan) -> dict[str, Any]:
    """Describe a tokenizer's training: the facts that distinguish the rows of a table."""
    shape = plan.network.config
    return {
        "size": config["size"],
        "form": shape.form,
        "decoder_mask": shape.decoder_mask,
        "drop": shape.drop,
        "kept": config["kept"],
        "noise_mean": config["noise_mean"],
        "alignment": plan.alignment != "none",
        "first_given": plan.first_probability,
        "steps": config["steps"],
        "seed": config["seed"],
    }
