"""An initialisation from which the decoder uses the tokens within a few hundred steps.

From PyTorch's initialisation a toy's decoder first learns to ignore the tokens, and few are used: 52 different codes of
4,096 after 400 steps, against 953 from this initialisation. It changes no architecture. The pooling of registers, which
`VideoFlexTokConfig.pooled` switches, belongs with it: with pooling, and with positions pooled alike, prefixes are
complete levels of a pyramid before training, which favours a coarse-to-fine order. A claim that the order emerges needs
a control without nested dropout.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from evatok.tokenizers.initialise import sine_cosine
from evatok.tokenizers.videoflextok.blocks import Block, ModulatedBlock
from evatok.tokenizers.videoflextok.encoder import register_pooling
from evatok.tokenizers.videoflextok.model import FlexNetwork

SPREAD = 0.8
"""Deviation of the leading features at the quantiser's tanh."""
OWN = 0.5
"""Deviation of a register's own part, besides what it is pooled from."""


@torch.no_grad()
def initialise(network: FlexNetwork, latents: torch.Tensor, batch: int = 32) -> None:
    """Initialise in place from latents (B, T, h, w, C) of training clips."""
    config = network.config
    for side, width in ((network.encoder, config.encoder_width), (network.decoder, config.decoder_width)):
        nn.init.orthogonal_(side.embedding.weight)
        side.patch_position.copy_(sine_cosine(config.blocks, config.grid, width))
        for layer in side.layers:
            assert isinstance(layer, Block)
            _start_block(layer, len(side.layers))
    if config.form != "grid":
        nn.init.normal_(network.encoder.registers, std=OWN)
    _place_tokens(network)
    _whiten(network, latents, batch)


def _start_block(block: Block, depth: int) -> None:
    """Set queries equal to keys, so that elements first attend to similar ones; small residual branches, open gates."""
    attention, width = block.attention, block.attention.out.in_features
    weight = attention.query_key_value.weight
    nn.init.orthogonal_(weight[:width])
    weight[width : 2 * width] = weight[:width]
    attention.out.weight.div_(math.sqrt(depth))
    block.mlp.down.weight.div_(math.sqrt(depth))
    if isinstance(block, ModulatedBlock):
        gates = block.modulation.bias.unflatten(0, (2, 6, width))
        gates[:, [2, 5]] = 1.0


def _place_tokens(network: FlexNetwork) -> None:
    """Give tokens the positions of the patches they are pooled from."""
    decoder, config = network.decoder, network.config
    nn.init.normal_(decoder.token_position, std=OWN)
    pooling = register_pooling(config)
    if config.form == "grid":
        decoder.token_position.copy_(decoder.patch_position)
    elif pooling is not None and config.form == "flat":
        pooled = pooling @ decoder.patch_position.flatten(0, 1)
        decoder.token_position.add_(pooled.unflatten(0, decoder.token_position.shape[:2]))
    elif pooling is not None:
        decoder.token_position.add_(pooling @ decoder.patch_position)


def _whiten(network: FlexNetwork, latents: torch.Tensor, batch: int) -> None:
    """Centre features per token, and quantise their principal directions, each spread evenly over its levels."""
    encoder, quantiser, tokens = network.encoder, network.quantiser, network.config.registers
    encoder.centre.zero_()
    parts = [encoder(network.patchify(part), tokens) for part in latents.split(batch)]
    features = torch.cat(parts)
    encoder.centre.copy_(features.mean(0))
    centred = (features - features.mean(0)).flatten(0, 2).double()
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = quantiser.project_in.out_features
    axes, deviation = axes.flip(1)[:, :kept], variance.flip(0)[:kept].clamp_min(1e-8).sqrt()
    quantiser.project_in.weight.copy_((SPREAD * axes / deviation).T)
    nn.init.zeros_(quantiser.project_in.bias)
    nn.init.zeros_(quantiser.project_out.bias)
    out = quantiser.project_out.weight
    if out.shape[0] == len(axes):
        out.copy_(axes * deviation / SPREAD)
    else:
        nn.init.orthogonal_(out)
        out.mul_(deviation.square().mean().sqrt() / SPREAD)
