"""Count the floating point operations of our networks from their shapes, and the utilisation of a GPU.

The networks run once on PyTorch's meta device, where tensors have shapes but no values, and every matrix product is
counted (two operations per multiply-add). Only useful work counts: no padding of a batch of unequal lengths, and none
of the networks that only losses need (perceptual metric, discriminator, alignment's encoder).

Legend: N tokens of a clip, K temporal blocks, m levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evatok.errors import EvatokError
from evatok.models.quantisers import Quantised, Quantiser
from evatok.routing.networks import RouterConfig, build_router
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.incremental import BlockwiseTokenizer, Prefix
from evatok.tokenizers.layout import Layout
from evatok.tokenizers.networks import Decoder, Encoder

PEAKS = {"H100 PCIe": 756e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "V100": 125e12}
"""Peak operations per second of dense matrix products, by a part of the GPU's name: bfloat16, float16 on the V100."""


class ComputeError(EvatokError, ValueError):
    """A training whose operations cannot be counted from its configuration."""


def flops_of_training(
    kind: str, network: TokenizerConfig | RouterConfig, config: Mapping[str, Any], totals: np.ndarray | None = None
) -> float:
    """Count the operations of one stage.

    Args:
        kind: the experiment, as records name it: "stage1_proxy", "stage2_curation", "stage3_router", "stage4_final".
        network: the trained tokenizer or, for stage 3, router; for stage 2, the tokenizer that scored. Not the name of
            a size, because sizes change over time.
        config: the stage's flat configuration: `steps` and `batch`, or `clips` and `search`.
        totals: tokens per clip in training, one number or one per sample; needed if a router decides. By default,
            stage 1 draws every candidate equally often.

    Raises:
        ComputeError: an unknown kind, a network of the wrong kind, or stage 4 without totals.
    """
    if kind not in ("stage1_proxy", "stage2_curation", "stage3_router", "stage4_final"):
        raise ComputeError(f"cannot count records of kind {kind!r}: only those of stages 1 to 4")
    if isinstance(network, RouterConfig) != (kind == "stage3_router"):
        raise ComputeError(f"{kind} does not train a {type(network).__name__}: pass the network that its record names")
    if isinstance(network, RouterConfig):
        return float(router_operations(network, training=True)) * config["steps"] * config["batch"]
    if kind == "stage2_curation":
        return scoring_operations(network, config["search"]) * config["clips"]
    if totals is None and kind == "stage4_final":
        raise ComputeError("the cost of stage 4 depends on its assignments: pass totals, tokens per clip")
    per_clip = tokenizer_operations(network, network.candidates.totals if totals is None else totals, training=True)
    return per_clip * config["steps"] * config["batch"]


def utilisation(flops: float, seconds: float, peak: float) -> float:
    """Model FLOPs utilisation: the fraction of `peak` operations per second achieved over `seconds`."""
    if seconds <= 0 or peak <= 0:
        raise ComputeError(f"seconds and peak must be positive, got {seconds} s and {peak} FLOP/s")
    return flops / (seconds * peak)


def peak_flops(device: str) -> float | None:
    """Peak operations per second of a GPU by its name ("NVIDIA H200"); None for other devices."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


def tokenizer_operations(config: TokenizerConfig, totals: np.ndarray, *, training: bool) -> float:
    """Mean operations per clip, over token counts `totals` per clip, of a forward pass, and if `training` a backward.

    Attention among N tokens makes the cost exactly quadratic in N, independent of the split into blocks, so three
    counts determine it.
    """
    blocks = config.candidates.blocks
    counts = _three_counts(config, training)
    x = np.asarray(totals, dtype=np.float64) / blocks - 1
    curvature = counts[2] - 2 * counts[1] + counts[0]
    quadratic = counts[0] + (counts[1] - counts[0]) * x + curvature * x * (x - 1) / 2
    return float(quadratic.mean()) + quantiser_operations(config, training=training) * float(np.mean(totals))


@cache
def scoring_operations(config: TokenizerConfig, search: str = "tree") -> float:
    """Operations in which stage 2 reconstructs a clip under all candidates, by the prefix tree or brute force.

    The cost of a visit of the tree is linear in the number of tokens before it, so each level of each block is counted
    at two lengths and evaluated at the mean over its prefixes.
    """
    candidates = config.candidates
    if search == "brute":
        return tokenizer_operations(config, candidates.totals, training=False) * len(candidates)
    skeleton, mean_level = _Skeleton(config), float(np.mean(candidates.levels))
    clips = _clips(config)
    operations = float(counted(lambda: BlockwiseTokenizer(skeleton, clips)))
    with torch.no_grad():
        session = BlockwiseTokenizer(skeleton, clips)
    per_token = quantiser_operations(config, training=False)
    for block in range(candidates.blocks):
        prefixes = len(candidates.levels) ** block
        for level in candidates.levels:
            short, long = (_visit_operations(session, block, level, before) for before in (1, 2))
            mean = short + (long - short) * (block * mean_level - 1) if block else short
            operations += prefixes * (mean + per_token * level)
    return operations


def router_operations(config: RouterConfig, *, training: bool) -> int:
    """Operations to route one clip, with a backward pass if `training`."""
    with torch.device("meta"):
        module = build_router(config).train(training)
        clips = torch.empty(1, 3, config.frames, config.size, config.size)
    return counted(lambda: _sum(module(clips)), training)


@cache
def quantiser_operations(config: TokenizerConfig, *, training: bool) -> float:
    """Operations per token; counted with actual values, which the underlying libraries need."""
    module = Quantiser(
        config.quantiser,
        config.codebook_size,
        encoder_width=config.encoder_width,
        decoder_width=config.decoder_width,
        dimension=config.codebook_dimension,
    ).train(training)

    def operations(tokens: int) -> int:
        x = torch.linspace(-1, 1, tokens * config.encoder_width).reshape(tokens, -1).requires_grad_(training)
        return counted(lambda: _sum(module(x).values), training)

    return (operations(16) - operations(8)) / 8  # the constant cost of a call is shared by a batch


def counted(compute: Callable[[], Any], backward: bool = False) -> int:
    """Count the operations of `compute`, and with `backward` of the backward pass from the scalar it returns."""
    with counter() as counting, torch.set_grad_enabled(backward):
        result = compute()
        if backward:
            result.backward()
    return counting.get_total_flops()


def counter() -> FlopCounterMode:
    """PyTorch's operation counter, extended by what it lacks: attention in the CPU's fused kernel."""
    aten = torch.ops.aten
    fused = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=fused)


def _attention_flops(query: torch.Size, key: torch.Size, *_: Any, **__: Any) -> int:
    """Two products of queries (B, H, N, C) with keys and values (B, H, M, C)."""
    batch, heads, queries, width = query
    return 4 * batch * heads * queries * key[2] * width


def _attention_backward_flops(_gradient: torch.Size, query: torch.Size, key: torch.Size, *_: Any, **__: Any) -> int:
    """Two products for each one of the forward pass."""
    return 2 * _attention_flops(query, key)


class _Skeleton(AdaptiveTokenizer):
    """A tokenizer of shapes: on the meta device, with a quantiser that does nothing."""

    def __init__(self, config: TokenizerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        with torch.device("meta"):
            self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantiser: Any = _NoQuantiser(config.decoder_width)


class _NoQuantiser(nn.Module):
    """Maps features (M, encoder's width) to values (M, decoder's width), and a gradient back, at no cost."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x_MD: torch.Tensor) -> Quantised:
        values = x_MD[:, :1].expand(-1, self.width)
        return Quantised(values, values[:, 0].long(), values.new_zeros(()), values)


@cache
def _three_counts(config: TokenizerConfig, training: bool) -> list[int]:
    """Operations of a pass without its quantiser, at one, two and three tokens per block."""
    skeleton, blocks = _Skeleton(config), config.candidates.blocks
    return [_pass_operations(skeleton, blocks * i, training) for i in (1, 2, 3)]


def _pass_operations(skeleton: _Skeleton, tokens: int, training: bool) -> int:
    clips, layout = _clips(skeleton.config), _layout(skeleton.config.candidates.blocks, tokens)

    def reconstruct() -> torch.Tensor:
        features = skeleton.encoder(skeleton.encoder.embed(clips), layout)
        values = skeleton.quantiser(features.flatten(0, 1)).values
        made, _ = skeleton.decoder(values[None], layout)
        return _sum(made)

    return counted(reconstruct, training)


def _layout(blocks: int, tokens: int) -> Layout:
    """A layout of one clip without values: masks cost the same whatever they hide."""
    index = torch.empty(1, tokens, dtype=torch.long, device="meta")
    of_block = torch.empty(1, blocks, dtype=torch.long, device="meta")
    return Layout(of_block, index, index, index, index.bool(), of_block)


def _visit_operations(session: BlockwiseTokenizer, block: int, level: int, before: int) -> int:
    """Operations of one visit of the tree: `level` tokens for block `block` after `before` tokens (block 0: none)."""
    prefix = _prefix(session.config, block, before) if block else Prefix()
    return counted(lambda: session.code_block(block, level, prefix))


def _prefix(config: TokenizerConfig, block: int, tokens: int) -> Prefix:
    def keys_values(width: int, heads: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys = torch.empty(1, heads, count, width // heads, device="meta")
        return keys, keys

    encoder = keys_values(config.encoder_width, config.encoder_heads, tokens)
    patches = keys_values(config.decoder_width, config.decoder_heads, block * config.patches)
    cross = keys_values(config.decoder_width, config.decoder_heads, tokens)
    depth = config.decoder_layers
    return Prefix((encoder,) * config.encoder_layers, (patches,) * depth, (cross,) * depth)


def _clips(config: TokenizerConfig) -> torch.Tensor:
    return torch.empty(1, 3, config.frames, config.size, config.size, device="meta")


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum()
