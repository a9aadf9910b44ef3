"""Compute each stage's cost from its configuration, for a dry run: fake networks, losses composed by hand.

Legend: B clips.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from evatok.data.clips import ClipSetError
from evatok.evaluation import flops
from evatok.evaluation.footprint import Footprint, footprint, imagined
from evatok.experiments.dry_codes import captions_of, coding, sequences_of
from evatok.experiments.dry_run import Cost, low_of
from evatok.experiments.setting import of_size
from evatok.experiments.tokenizer_parts import shape_of, transformer_of
from evatok.generation.flops import generator_operations
from evatok.generation.kv_cache import Prefill
from evatok.generation.symbol_loss import SymbolLoss
from evatok.generation.transformer import Generator, GeneratorConfig
from evatok.metrics.perceptual import PerceptualDistance, ShiftTolerantAlexNet
from evatok.models.efficientnet import EfficientNet, EfficientNetLite0
from evatok.models.encoders import FAMILIES, NAMED, VJEPA2, FrozenEncoder, VideoMAE
from evatok.models.recompute import recompute
from evatok.routing.networks import MODALITIES as ROUTERS
from evatok.routing.networks import build_router
from evatok.tokenizers.config import TokenizerConfig
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.layout import Layout
from evatok.training import losses
from evatok.training.alignment import AlignmentHead
from evatok.training.discriminators import SemanticDiscriminator, TransformerDiscriminator
from evatok.training.patch_discriminator import PATCH_SIZES, PatchDiscriminator

_TAPS = {"lpips-vgg": (64, 128, 256, 512, 512), "lpips-alex": (64, 192, 384, 256, 256)}
_TAPS["st-lpips"] = _TAPS["lpips-alex"]
_HUB: dict[str, Any] = {"facebook/vjepa2-vitl-fpc64-256": VJEPA2, "MCG-NJU/videomae-base": VideoMAE}
"""Encoders with the default shapes of transformers, so that nothing is downloaded."""


def tokenizer_cost(config: dict[str, Any]) -> Cost:
    """Stages 1 and 4: memory of the longest assignments, operations of the mean over candidates."""
    shape = shape_of(config)
    totals = shape.candidates.totals
    with imagined(config["device"], low_of(config)):
        step = TokenizerStep(config, shape)
        trained, opposed, frozen = step.sizes()
        extra = step.loss_operations()
        kept = max(step.kept(), key=lambda phase: phase.bytes(1))
    own = flops.tokenizer_operations(shape, totals, training=True)
    return Cost(trained, opposed, frozen, kept, own + extra, _clip_bytes(shape))


class TokenizerStep:
    """One training step of a tokenizer on fake clips: everything that holds memory or costs operations."""

    def __init__(self, config: dict[str, Any], shape: TokenizerConfig) -> None:
        self.config, self.shape, self.plays = config, shape, False
        self.tokenizer = AdaptiveTokenizer(shape)
        self.perceptual = perceptual_of(config["perceptual"], config["bf16"])
        self.teacher = encoder_of(config["alignment"], config["alignment_resize"])
        self.head: nn.Module | None = None
        if self.teacher is not None:
            grid = self.teacher.grid(shape.frames, shape.size)
            own = (shape.candidates.blocks, *shape.grid)
            self.head = AlignmentHead(shape.decoder_width, own, self.teacher.width, grid)
        self.judge = judge_of(config, shape)
        if config["recompute"]:
            recompute([*self.tokenizer.encoder.layers, *self.tokenizer.decoder.layers])
            recompute(self.judge.layers if isinstance(self.judge, TransformerDiscriminator) else [])

    def parameters(self) -> list[nn.Parameter]:
        parts = [self.tokenizer, self.perceptual, self.teacher, self.head, self.judge]
        judged = [self.judge.encoder] if isinstance(self.judge, SemanticDiscriminator) else []
        return [p for part in (*parts, *judged) if part is not None for p in part.parameters()]

    def sizes(self) -> tuple[int, int, int]:
        """Count the parameters: trained, of the discriminator, and of frozen networks."""
        judge = self.judge
        trained = _count(self.tokenizer) + _count(self.head)
        encoder = judge.encoder if isinstance(judge, SemanticDiscriminator) else None
        opposed = sum(p.numel() for p in judge.parameters() if p.requires_grad) if judge else 0
        return trained, opposed, _count(self.perceptual) + _count(self.teacher) + _count(encoder)

    def kept(self) -> list[Footprint]:
        """Return what is kept during the discriminator's update and, once that is freed, for its term in the loss."""
        found = [footprint(self, self.parameters())]
        if self.judge is not None:
            self.plays = True
            self.judge.requires_grad_(False)
            found.append(footprint(self, self.parameters()))
        return found

    def __call__(self, clips: int) -> list[torch.Tensor]:
        """Compute the terms of a batch that are live at the same time."""
        shape, config = self.shape, self.config
        real = torch.empty(clips, 3, shape.frames, shape.size, shape.size)
        layout = whole_layout(clips, shape.candidates.blocks, shape.levels[-1])
        tokenizer, tap = self.tokenizer, config["alignment_layer"] if self.head else None
        features = tokenizer.encoder(tokenizer.encoder.embed(real), layout).flatten(0, 1)
        quantised = tokenizer.quantiser(features)
        fake, tapped = tokenizer.decoder(quantised.values.unflatten(0, (clips, -1)), layout, tap)
        terms = [losses.l1(real, fake), losses.squared(real, fake), quantised.loss]
        if self.perceptual is not None:
            frames = config["perceptual_frames"] or shape.frames
            terms.append(self.perceptual(real[:, :, :frames], fake[:, :, :frames]).mean())
        if config["entropy_weight"]:
            codebook = tokenizer.quantiser.codebook
            assert codebook is not None
            terms.append(losses.entropy(quantised.latents, codebook))
        if self.head is not None:
            terms.append(self.head(tapped).square().mean())
        if self.judge is not None:
            frames = config["semantic_frames"] or shape.frames
            seen = [fake] if self.plays else [real, fake.detach()]
            terms += [self.judge(clip[:, :, :frames]).sum() for clip in seen]
        return terms

    def loss_operations(self) -> float:
        """Count the losses' operations per clip, forward and as far as gradients flow back."""
        shape, config = self.shape, self.config
        clip = torch.empty(1, 3, shape.frames, shape.size, shape.size)
        total = 0.0
        if self.perceptual is not None:  # real and fake, then back to the fake one
            seen = clip[:, :, : config["perceptual_frames"] or shape.frames]
            total += 3 * _operations(lambda: self.perceptual.features(seen.transpose(1, 2)))
        if self.teacher is not None and self.head is not None:
            tokens = shape.candidates.blocks * math.prod(shape.grid)
            total += transformer_operations(self.teacher, shape) + 6 * _count(self.head) * tokens
        if self.judge is not None:  # its own step on both, stopping at a frozen encoder; then the fake one's
            seen = clip[:, :, : config["semantic_frames"] or shape.frames]
            forward = _operations(lambda: self.judge(seen))
            passes = 2 if isinstance(self.judge, SemanticDiscriminator) else 6
            total += forward * (2 + passes / config["discriminator_interval"])
        return total


def generator_cost(config: dict[str, Any]) -> Cost:
    """Stage 5: memory of the longest sequences, operations at the fixed baseline's length, or at all K tokens.

    What encodes captions counts by its parameters alone.
    """
    grammar, tokens = sequences_of(config)
    shape = {"classes": 101} if config["task"] != "text" else {"text": config["text_slots"], **captions_of(config)}
    with imagined(config["device"], low_of(config)):
        network = Generator(GeneratorConfig.of(grammar, config["model"], positions=config["positions"], **shape))
        if config["recompute"]:
            recompute(network.layers)
        slots, length = network.config.text, network.config.text + grammar.longest

        def step(clips: int) -> torch.Tensor:
            rows = torch.empty(clips * length, dtype=torch.long)
            vectors = torch.empty(clips * slots, network.config.width, requires_grad=True) if slots else None
            x = network._trunk(rows, rows, Prefill(clips, length, None).attend, vectors)
            x = x.unflatten(0, (clips, length))[:, slots:].flatten(0, 1)
            targets = torch.empty(len(x), dtype=torch.long)
            return SymbolLoss.apply(network.norm(x), network.head.weight, targets, torch.is_grad_enabled())[0]

        kept = footprint(step, network.parameters())
    operations = generator_operations(network.config, tokens + grammar.headers, training=True)
    return Cost(_count(network), 0, 0, kept, operations, 4 * tokens)


def router_cost(config: dict[str, Any]) -> Cost:
    """Stage 3."""
    shape = of_size(ROUTERS[config["modality"]], config["size"])
    with imagined(config["device"], low_of(config)):
        network = build_router(shape)
        side = (3, shape.frames, shape.size, shape.size)
        kept = footprint(lambda clips: network(torch.empty(clips, *side)), network.parameters())
    operations = float(flops.router_operations(shape, training=True))
    return Cost(_count(network), 0, 0, kept, operations, 3 * shape.frames * shape.size**2)


def scoring_cost(config: dict[str, Any]) -> Cost:
    """Stage 2: reconstruct every block of the prefix tree and apply the perceptual metric, if any."""
    shape = coding(config)
    candidates = shape.candidates
    operations = flops.scoring_operations(shape, config["search"])
    with imagined(config["device"], None):
        network, metric = AdaptiveTokenizer(shape), perceptual_of(config["perceptual"], config["bf16"])
        if metric is not None:
            frames = min(config["perceptual_frames"] or shape.patch[0], shape.patch[0])
            block = torch.empty(1, frames, 3, shape.size, shape.size)
            visits = sum(len(candidates.levels) ** k for k in range(1, candidates.blocks + 1))
            operations += (visits + candidates.blocks) * _operations(lambda: metric.features(block))
    metrics = 3 + (metric is not None)
    table = 4 * len(candidates) * metrics
    nothing = Footprint(0.0, 0.0, 0.0)
    return Cost(_count(network), 0, _count(metric), nothing, operations, _clip_bytes(shape), table)


def perceptual_of(name: str, bf16: bool) -> PerceptualDistance | None:
    """Build the perceptual network without weights, its trunk in bfloat16 as in training."""
    if name == "none":
        return None
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if bf16 else before)  # fake weights cannot be cast
    try:
        trunk = _trunk(name)
    finally:
        torch.set_default_dtype(before)
    heads = [torch.empty(1, channels, 1, 1) for channels in _TAPS[name]]
    return PerceptualDistance(trunk, heads, torch.zeros(3), torch.ones(3), smallest_frame=1)


def _trunk(name: str) -> nn.Module:
    if name == "st-lpips":
        return ShiftTolerantAlexNet()
    import lpips

    networks = {"lpips-vgg": lpips.pretrained_networks.vgg16, "lpips-alex": lpips.pretrained_networks.alexnet}
    with warnings.catch_warnings():  # lpips uses two deprecated arguments of torchvision
        warnings.simplefilter("ignore", UserWarning)
        trunk: nn.Module = networks[name](pretrained=False, requires_grad=False)
    return trunk


def encoder_of(source: str, resize: int) -> FrozenEncoder | None:
    """Build a frozen encoder without weights: a known one from the hub, or a folder's configuration."""
    if source == "none":
        return None
    import transformers

    with mock.patch.object(transformers.PreTrainedModel, "init_weights"):  # it inspects values
        return _encoder(source, resize, transformers)


def _encoder(source: str, resize: int, transformers: Any) -> FrozenEncoder:
    how: dict[str, Any] = {"source": source, "resize": resize or None}
    if source in NAMED:
        return EfficientNet(EfficientNetLite0(), differences=NAMED[source], **how)
    if Path(source).is_dir():
        shape = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
        family = FAMILIES[shape.model_type]
        return family(getattr(transformers, family.network)(shape), **how)
    if source not in _HUB:
        raise ClipSetError(f"{source}: its shape is not known without its folder; a dry run knows {', '.join(_HUB)}")
    family = _HUB[source]
    network = getattr(transformers, family.network)
    return family(network(network.config_class()), **how)


def judge_of(config: dict[str, Any], shape: TokenizerConfig) -> Any:
    """Build the configured discriminator."""
    kind = config["discriminator"]
    if kind == "none":
        return None
    if kind == "transformer":
        return TransformerDiscriminator(transformer_of(config, shape))
    if kind == "patch":
        return PatchDiscriminator(**of_size(PATCH_SIZES, config["size"]))
    encoder = encoder_of(config["semantic_encoder"], config["semantic_resize"])
    assert encoder is not None
    return SemanticDiscriminator(encoder, config["semantic_layers"])


def transformer_operations(encoder: FrozenEncoder, shape: TokenizerConfig) -> float:
    """Count a frozen transformer's operations per clip: two per weight and token, plus attention."""
    tokens = math.prod(encoder.grid(shape.frames, shape.size))
    return 2.0 * _count(encoder) * tokens + 4.0 * encoder.depth * tokens**2 * encoder.width


def whole_layout(clips: int, blocks: int, level: int) -> Layout:
    """Return the layout of clips with `level` tokens in every block, without values."""
    tokens = torch.empty(clips, blocks * level, dtype=torch.long)
    per_block = torch.empty(clips, blocks, dtype=torch.long)
    return Layout(per_block, tokens, tokens, tokens, tokens.bool(), per_block)


def _operations(compute: Any) -> float:
    return footprint(lambda clips: compute(), []).operations


def _count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def _clip_bytes(shape: TokenizerConfig) -> int:
    return 3 * shape.frames * shape.size**2
