"""Build the parts of a tokenizer's training: network, start, objective, frozen encoders, discriminator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evatok.assignments.rules import Rule
from evatok.data.clips import ClipSet, to_network
from evatok.experiments.config_checks import ConfigError
from evatok.experiments.setting import of_size
from evatok.metrics.perceptual import perceptual_metric
from evatok.models.encoders import load_encoder
from evatok.models.quantisers import CODES, check_codes
from evatok.models.recompute import recompute
from evatok.storage import checkpoints, ranks
from evatok.tokenizers.evatok import MODALITIES, AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.initialise import initialise
from evatok.training.adversary import Adversary, AdversaryConfig
from evatok.training.discriminators import (
    TRANSFORMER_SIZES,
    SemanticDiscriminator,
    TransformerDiscriminator,
    TransformerDiscriminatorConfig,
    VirtualBatchNorm,
    pieces_fit,
)
from evatok.training.objective import Alignment, Batches, TokenizerObjective, TokenizerWithHead
from evatok.training.patch_discriminator import PATCH_SIZES, PatchDiscriminator


def prepared(
    config: dict[str, Any], shape: TokenizerConfig, rule: Rule, train_set: ClipSet
) -> tuple[TokenizerWithHead, TokenizerObjective, dict[str, str]]:
    """Build the network and its objective; also return the sha256 of everything they depend on."""
    # Before anything else draws random numbers: networks that differ only in their losses must start alike.
    tokenizer, start = started(config, shape, train_set)
    alignment = alignment_of(config)
    adversary, judge = adversary_of(config, shape)
    _check_pieces(config, adversary)
    encoders = {"alignment_encoder": alignment.encoder.weights_sha256} if alignment else {}
    trainee = TokenizerWithHead(tokenizer, alignment).to(config["device"])
    if config["recompute"]:
        recompute([*tokenizer.encoder.layers, *tokenizer.decoder.layers])
    if config["compile"]:
        compile_layers(tokenizer)
    objective = TokenizerObjective(
        Batches(train_set, config["batch"], config["seed"], config["flip"], config["device"]),
        rule,
        weights_of(config),
        perceptual=perceptual_metric(
            config["perceptual"], config["device"], torch.bfloat16 if config["bf16"] else torch.float32
        ),
        perceptual_frames=config["perceptual_frames"],
        adversary=adversary,
        alignment=alignment,
        adaptive=config["adversarial_adaptive"],
        groups=config["groups"],
        bf16=config["bf16"],
        direct_steps=config["direct_steps"],
        fp16=config["fp16"],
    )
    return trainee, objective, {**rule.parents, **start, **encoders, **judge, "train_clips": train_set.sha256}


def started(
    config: dict[str, Any], shape: TokenizerConfig, train_set: ClipSet
) -> tuple[AdaptiveTokenizer, dict[str, str]]:
    """Build the network before its first step; also return the sha256 of the checkpoint it starts from, if any.

    Raises:
        ConfigError: a checkpoint of another network.
        CheckpointError: a missing or damaged checkpoint, or one that is not a tokenizer.
    """
    tokenizer = AdaptiveTokenizer(shape)
    if not config["start_from"]:
        stride = max(1, len(train_set) // 256)
        initialise(tokenizer, to_network(train_set.clips[: 256 * stride : stride]))
        return tokenizer, {}
    checkpoint = checkpoints.load(Path(config["start_from"]), "tokenizer")
    mine, its = shape.to_dict(), TokenizerConfig.from_dict(checkpoint.config).to_dict()
    if odd := sorted(key for key in mine if mine[key] != its[key]):
        raise ConfigError(
            f"config key start_from: {config['start_from']} has {odd[0]} {its[odd[0]]}, this training {mine[odd[0]]}; "
            "name a checkpoint of the same network, or leave start_from empty"
        )
    checkpoint.fill(tokenizer)
    return tokenizer, {"start": checkpoint.sha256}


def shape_of(config: dict[str, Any]) -> TokenizerConfig:
    """Return the network of the configured modality, size, front and quantiser.

    Raises:
        ConfigError: an unknown size, or an unsupported front or codebook.
    """
    shape = of_size(MODALITIES[config["modality"]], config["size"])
    front = config["front"] or shape.front
    try:
        shape = replace(shape, front=front, shortcut=shape.shortcut and front == "cnn")
    except ValueError as error:
        raise ConfigError(f"config key front: {error}") from error
    kind = config["quantiser"] or shape.quantiser
    codes = config["codebook_size"] or (shape.codebook_size if kind == shape.quantiser else CODES[kind])
    try:
        check_codes(kind, codes)
    except ValueError as error:
        raise ConfigError(f"config key codebook_size: {error}") from error
    return replace(shape, quantiser=kind, codebook_size=codes)


def weights_of(config: dict[str, Any]) -> dict[str, float]:
    """Return the weight of each term in main eq. 2."""
    return {
        "l1": config["l1"],
        "squared": config["squared"],
        "change": config["change"],
        "perceptual": config["perceptual_weight"],
        "quantiser": config["quantiser_weight"],
        "entropy": config["entropy_weight"],
        "alignment": config["alignment_weight"],
        "adversarial": config["adversarial_weight"],
        "direct": 1.0,
    }


def alignment_of(config: dict[str, Any]) -> Alignment | None:
    """Load the configured encoder, with its last layer as target. Raises EncoderError if it is unavailable."""
    if config["alignment"] == "none":
        return None
    encoder = load_encoder(config["alignment"], resize=config["alignment_resize"] or None).to(config["device"])
    return Alignment(encoder, config["alignment_layer"], encoder.depth)


def adversary_of(config: dict[str, Any], shape: TokenizerConfig) -> tuple[Adversary | None, dict[str, str]]:
    """Build the configured discriminator with its optimiser; also return the hash of the frozen encoder it needs."""
    if config["discriminator"] == "none":
        return None, {}
    common = {
        "start": config["discriminator_start"],
        "warmup": config["discriminator_warmup"],
        "interval": config["discriminator_interval"],
        "learning_rate": config["discriminator_rate"],
    }
    if config["discriminator"] == "transformer":
        network = TransformerDiscriminator(transformer_of(config, shape)).to(config["device"])
        if config["recompute"]:
            recompute(network.layers)
        its = AdversaryConfig(
            loss="non_saturating", lecam=config["lecam"], smoothing=config["label_smoothing"], **common
        )
        return Adversary(network, its, config["seed"]), {}
    if config["discriminator"] == "patch":
        patches = PatchDiscriminator(**of_size(PATCH_SIZES, config["size"])).to(config["device"])
        return Adversary(patches, AdversaryConfig(loss="hinge", **common), config["seed"]), {}
    encoder = load_encoder(config["semantic_encoder"], resize=config["semantic_resize"] or None)
    encoder.grid(config["semantic_frames"] or shape.frames, shape.size)
    judge = SemanticDiscriminator(encoder, config["semantic_layers"]).to(config["device"])
    its = AdversaryConfig(
        loss="hinge",
        lecam=config["semantic_lecam"],
        augment=config["augment"],
        frames=config["semantic_frames"],
        **common,
    )
    return Adversary(judge, its, config["seed"]), {"discriminator_encoder": encoder.weights_sha256}


def transformer_of(config: dict[str, Any], shape: TokenizerConfig) -> TransformerDiscriminatorConfig:
    """Return the transformer discriminator's shape for a size; on images its patches match the tokenizer's width."""
    sized = of_size(TRANSFORMER_SIZES, config["size"])
    if config["modality"] == "video":
        return sized
    return replace(sized, frames=shape.frames, size=shape.size, patch=shape.patch)


def _check_pieces(config: dict[str, Any], adversary: Adversary | None) -> None:
    """Raise ConfigError for a loss that does not support gradient accumulation."""
    split = "fp16" if config["fp16"] else "accumulate" if config["accumulate"] > 1 else None
    if split is None or adversary is None:
        return
    if config["adversarial_adaptive"]:
        raise ConfigError(
            f"config key {split}: adversarial_adaptive weighs by gradients of all clips in full precision; set "
            "one of the two"
        )
    parts = config["accumulate"] * ranks.count()
    if isinstance(adversary.discriminator, SemanticDiscriminator) and not pieces_fit(config["batch"], parts):
        raise ConfigError(
            f"config key accumulate: the semantic discriminator normalises {VirtualBatchNorm.CLIPS} clips at a time, "
            f"and {config['batch']} clips in {parts} parts would cut them; take parts of a multiple of that"
        )


def compile_layers(tokenizer: AdaptiveTokenizer) -> None:
    """Compile every Q-Former layer, for lengths that change from batch to batch."""
    for stack in (tokenizer.encoder.layers, tokenizer.decoder.layers):
        for layer in stack:
            layer.compile(dynamic=True)
