"""Packages one would install instead, on the same inputs, timed alternately; notes give the difference in results."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lpips
import numpy as np
import torch

from benchmarks.generating import CLASSES, generator_of, sampling_of, timed
from benchmarks.networks import DIMENSIONS, SAMPLES, draw_weights
from benchmarks.ratios import Ratio, seconds_of
from benchmarks.setting import Setting, noise
from evatok.generation.grammar import Grammar
from evatok.generation.transformer import Generator
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.metrics.perceptual import PerceptualDistance, lpips_distance
from evatok.metrics.structural_similarity import ssim
from evatok.models.quantisers import Codebook

ROWS = 16  # sequences generated at once
CODES, DIMENSION = 16384, 8  # of the paper's codebook


def lpips_package(setting: Setting) -> list[Ratio]:
    """LPIPS (VGG) of clips: the package lpips, against ours, with the target's features at hand, and in bfloat16."""
    real, fake = _pair(setting, clips=1)
    package = _random_lpips(setting)
    exact, rounded = (_ours_like(setting, dtype) for dtype in (torch.float32, torch.bfloat16))
    frames_a, frames_b = (clips[0].transpose(0, 1) for clips in (real, fake))
    known = [metric.features(frames_a) for metric in (exact, rounded)]

    def theirs() -> torch.Tensor:
        return package(2 * frames_a - 1, 2 * frames_b - 1).mean()

    passes = [
        theirs,
        lambda: exact(real, fake),
        lambda: exact.distance(known[0], exact.features(frames_b)),
        lambda: rounded.distance(known[1], rounded.features(frames_b)),
    ]
    seconds = _timed(setting, passes)
    with torch.no_grad():
        apart = float((theirs() - exact(real, fake).mean()).abs())
    note = f"the package lpips (VGG, float32), against ours; {real.shape[2]} frames, {apart:.1e} apart"
    return [
        Ratio("peer_lpips", "wall_seconds", seconds[0], seconds[1], note),
        Ratio("peer_lpips", "wall_seconds_target_known", seconds[0], seconds[2], f"{note}; target's features kept"),
        Ratio("peer_lpips", "wall_seconds_bf16", seconds[0], seconds[3], f"{note}; kept, and a trunk in bfloat16"),
    ]


def torchmetrics_ssim(setting: Setting) -> list[Ratio]:
    """SSIM of clips: torchmetrics in float32 and in float64, against ours, which is float64."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    real, fake = _pair(setting, clips=2)
    frames_a, frames_b = (clips.transpose(1, 2).flatten(0, 1) for clips in (real, fake))

    def theirs(dtype: torch.dtype) -> Callable[[], Any]:
        return lambda: structural_similarity_index_measure(frames_b.to(dtype), frames_a.to(dtype), data_range=1.0)

    single, double, ours = _timed(setting, [theirs(torch.float32), theirs(torch.float64), lambda: ssim(real, fake)])
    apart = float((theirs(torch.float64)() - ssim(real, fake).mean()).abs())
    note = f"torchmetrics, against ours in float64; {len(frames_a)} frames, {apart:.1e} apart"
    return [
        Ratio("peer_ssim", "wall_seconds_float64", double, ours, note),
        Ratio("peer_ssim", "wall_seconds", single, ours, f"{note} (theirs in float32 here, its default)"),
    ]


def torch_fidelity_fid(setting: Setting) -> list[Ratio]:
    """Frechet distance of features: torch-fidelity, against ours."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = np.random.default_rng(0).normal(size=(2, SAMPLES, DIMENSIONS))

    def theirs() -> float:
        statistics = [fid_features_to_statistics(torch.from_numpy(features)) for features in (a, b)]
        return float(next(iter(fid_statistics_to_metric(*statistics, verbose=False).values())))

    seconds = _timed(setting, [theirs, lambda: frechet_distance_of_features(a, b, ddof=1)])
    apart = abs(theirs() / frechet_distance_of_features(a, b, ddof=1) - 1)
    note = f"torch-fidelity, against ours; {SAMPLES} features of {DIMENSIONS}, {apart:.1e} apart (relative)"
    return [Ratio.of("peer_fid", "wall_seconds", seconds, note)]


def vector_quantize(setting: Setting) -> list[Ratio]:
    """Codes of a batch's tokens in evaluation: vector-quantize-pytorch, against the codebook used here."""
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    ours = Codebook(CODES, DIMENSION, 0.25).eval().to(setting.device)
    theirs = VectorQuantize(dim=DIMENSION, codebook_size=CODES, use_cosine_sim=True).eval().to(setting.device)
    theirs._codebook.embed.copy_(ours.unit().detach()[None])
    tokens = min(sum(setting.uniform) * setting.batch, 1024)
    latents = torch.nn.functional.normalize(torch.randn(1, tokens, DIMENSION, device=setting.device), dim=-1)
    seconds = _timed(setting, [lambda: theirs(latents), lambda: ours(latents)])
    with torch.no_grad():
        equal = float((theirs(latents)[1] == ours(latents)[1]).float().mean())
    note = f"vector-quantize-pytorch in evaluation, against ours; {tokens} tokens, {CODES} codes, {equal:.1%} equal"
    return [Ratio.of("peer_vq", "wall_seconds", seconds, note)]


def transformers_generate(setting: Setting) -> list[Ratio]:
    """Seconds per token of uniform sequences: generate of a Llama of this shape, against ours.

    Both in float32 on a CPU, where ours in bfloat16 is a row as well, and both in bfloat16 on a GPU.
    """
    setting = replace(setting, samples=min(ROWS, setting.samples))
    grammar, tokens = Grammar.of(setting.tokenizer), sum(setting.uniform)
    module = generator_of(setting, grammar)
    llama, first = _llama(module, setting), torch.full((setting.samples, 1), 1, device=setting.device)

    def theirs() -> object:
        return llama.generate(
            first, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0, pad_token_id=0
        )

    passes: list[Callable[[], object]] = [theirs, sampling_of(setting, module, grammar, fixed=True)]
    if setting.device == "cpu":
        rounded = generator_of(setting, grammar, torch.bfloat16)
        passes.append(sampling_of(setting, rounded, grammar, fixed=True))
    own, *ours = (each / tokens / setting.samples for each in timed(setting, passes))
    note = f"transformers' generate of a Llama of {setting.generator}, against ours; {setting.samples} at once"
    names = ("wall_seconds_per_token", "wall_seconds_per_token_bf16")
    return [Ratio("peer_generate", name, own, each, note) for name, each in zip(names, ours, strict=False)]


def _llama(module: Generator, setting: Setting) -> Any:
    import transformers

    config = module.config
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=config.vocabulary + CLASSES + 1,
        hidden_size=config.width,
        intermediate_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    llama = transformers.LlamaForCausalLM(shape).eval().requires_grad_(False)
    return llama.to(setting.device, module.head.weight.dtype)


def _random_lpips(setting: Setting) -> torch.nn.Module:
    """The package's network with random weights, always the same; nothing is downloaded."""
    with warnings.catch_warnings(), torch.device("meta"):  # it uses two deprecated arguments of torchvision
        warnings.simplefilter("ignore", UserWarning)
        made = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    made = made.to_empty(device=setting.device)
    made.scaling_layer = lpips.ScalingLayer().to(setting.device)  # what it does not draw
    draw_weights(made)
    return made.eval().requires_grad_(False)


def _ours_like(setting: Setting, dtype: torch.dtype) -> PerceptualDistance:
    metric = lpips_distance(_random_lpips(setting))
    metric.trunk.to(dtype).to(memory_format=torch.channels_last)
    return metric


def _pair(setting: Setting, clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips and blurred ones."""
    real = noise(setting, clips)
    return real, torch.nn.functional.avg_pool3d(real, (1, 3, 3), stride=1, padding=(0, 1, 1))


def _timed(setting: Setting, passes: list[Callable[[], object]]) -> list[float]:
    within = [setting.within(each, bf16=False) for each in passes]
    repeats = min(3, setting.repeats)
    return seconds_of(within, device=setting.device, repeats=repeats, at_least=setting.at_least)
