"""Frozen networks of metrics: batched against single clips, float32 against bfloat16; and Frechet distances."""

from __future__ import annotations

from collections.abc import Callable

import lpips
import numpy as np
import scipy.linalg
import torch
from torch import nn

from benchmarks.ratios import Ratio, seconds_of
from benchmarks.setting import Setting, real_clips
from evatok.metrics.frechet import Gaussian, frechet_distance, frechet_distance_of_features
from evatok.metrics.i3d import I3D, I3DFeatures, load_i3d
from evatok.metrics.perceptual import PerceptualDistance, perceptual_metric

Features = Callable[[torch.Tensor], torch.Tensor]
FRAMES = 16  # frames per clip for the I3D
SAMPLES, DIMENSIONS = 320, 400  # of a Frechet distance


def i3d(setting: Setting) -> list[Ratio]:
    """Seconds per clip of FVD's network, with random weights."""

    def network(dtype: torch.dtype) -> Features:
        torch.manual_seed(0)
        made = I3DFeatures(I3D(), {}).to(setting.device, dtype).to(memory_format=torch.channels_last_3d)
        return lambda clips: made(clips)

    return _seconds_per_clip(setting, "i3d", network)


def lpips_vgg(setting: Setting) -> list[Ratio]:
    """Seconds per clip of LPIPS's VGG with random weights, including the target's features."""

    def network(dtype: torch.dtype) -> Features:
        made = random_vgg(setting.device, dtype)
        return lambda clips: made(clips, clips.flip(-1))

    return _seconds_per_clip(setting, "lpips", network)


def random_vgg(device: str, dtype: torch.dtype) -> PerceptualDistance:
    """LPIPS (VGG) with random weights, which cost the same as trained ones."""
    with torch.device("meta"):
        trunk = lpips.pretrained_networks.vgg16(pretrained=False, requires_grad=False)
    trunk = trunk.to_empty(device=device)
    draw_weights(trunk)
    heads = [torch.full((channels,), 1 / channels) for channels in (64, 128, 256, 512, 512)]
    metric = PerceptualDistance(trunk, heads, torch.zeros(3), torch.ones(3))
    metric.trunk.to(dtype).to(memory_format=torch.channels_last)
    return metric.to(device)


def draw_weights(network: nn.Module) -> None:
    """Draw a convolutional network's weights, the same in every call."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.kaiming_normal_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)


def i3d_precision(setting: Setting) -> list[Ratio]:
    """What bfloat16 does to the published network's logits, and to FVD. Raises WeightsError without its weights."""
    clips = _frames(real_clips(setting, setting.batch))
    exact, rounded = (_logits(setting, clips, dtype) for dtype in (torch.float32, torch.bfloat16))
    spread = float((exact[0] - exact[0].mean(0)).square().mean().sqrt())
    error = float((exact[0] - rounded[0]).square().mean().sqrt())
    distances = [frechet_distance_of_features(a.double().numpy(), b.double().numpy()) for a, b in (exact, rounded)]
    note = f"FVD of {len(clips)} clips from the same blurred, in float32, against bfloat16's; target: 1 within 0.01"
    return [
        Ratio("i3d_bf16", "logits_rms", spread, error, "the clips' own spread, against bfloat16's rounding of them"),
        Ratio.of("i3d_bf16", "fvd", distances, note),
    ]


def _logits(setting: Setting, clips: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 400) of the clips, and of the clips blurred."""
    network = load_i3d(setting.device, dtype)
    parts = clips.split(setting.network_clips)
    made = [[network(part).float().cpu() for part in each] for each in (parts, map(blurred, parts))]
    return torch.cat(made[0]), torch.cat(made[1])


def blurred(clips: torch.Tensor) -> torch.Tensor:
    """Clips (B, 3, T, H, W) after a mean of 3 x 3 pixels."""
    return torch.nn.functional.avg_pool3d(clips, (1, 3, 3), stride=1, padding=(0, 1, 1))


def lpips_precision(setting: Setting) -> list[Ratio]:
    """Error of bfloat16 in ST-LPIPS between clips and blurred ones. Raises WeightsError without its package."""
    clips = real_clips(setting, setting.network_clips)
    values = []
    for dtype in (torch.float32, torch.bfloat16):
        metric = perceptual_metric("st-lpips", setting.device, dtype)
        assert isinstance(metric, PerceptualDistance)
        with torch.no_grad():
            values.append(metric(clips, blurred(clips)))
    error = float((values[0] - values[1]).abs().mean())
    note = "mean distance of clips from blurred ones, against bfloat16's mean error in it"
    return [Ratio("lpips_bf16", "distance", float(values[0].mean()), error, note)]


def frechet(setting: Setting) -> list[Ratio]:
    """Frechet distance of two sets of features: the usual matrix root, against ours."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, SAMPLES, DIMENSIONS))
    works = [by_matrix_root, by_eigenvalues, frechet_distance_of_features]
    root, eigen, features = seconds_of(
        [lambda work=work: work(a, b) for work in works],  # type: ignore[misc]
        repeats=min(3, setting.repeats),
        at_least=setting.at_least,
    )
    size = f"{SAMPLES} samples of {DIMENSIONS}"
    return [
        Ratio(
            "frechet", "wall_seconds_of_statistics", root, eigen, f"scipy's matrix root, against eigenvalues, {size}"
        ),
        Ratio("frechet", "wall_seconds_of_features", root, features, f"scipy's matrix root, against features, {size}"),
    ]


def by_matrix_root(a: np.ndarray, b: np.ndarray) -> float:
    """The standard formula."""
    one, two = Gaussian.of(a), Gaussian.of(b)
    root = scipy.linalg.sqrtm(one.covariance @ two.covariance).real
    traces = np.trace(one.covariance) + np.trace(two.covariance) - 2 * np.trace(root)
    return float(np.square(one.mean - two.mean).sum() + traces)


def by_eigenvalues(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


def _seconds_per_clip(setting: Setting, row: str, network: Callable[[torch.dtype], Features]) -> list[Ratio]:
    """One by one in float32, all at once in float32, and in bfloat16."""
    size, count = setting.tokenizer.size, setting.network_clips
    clips = torch.rand(count, 3, FRAMES, size, size, generator=torch.Generator().manual_seed(0)).to(setting.device)
    exact, rounded = network(torch.float32), network(torch.bfloat16)
    works = [
        lambda: [exact(clip[None]) for clip in clips],
        lambda: exact(clips),
        lambda: rounded(clips),
    ]
    seconds = seconds_of(
        [setting.within(work, bf16=False) for work in works],
        device=setting.device,
        repeats=min(3, setting.repeats),
        at_least=setting.at_least,
    )
    single, batched, half = (each / count for each in seconds)
    return [
        Ratio(row, "wall_seconds_per_clip_batched", single, batched, f"one by one, against {count} at once, float32"),
        Ratio(row, "wall_seconds_per_clip_bf16", batched, half, f"{count} at once, float32 against bfloat16"),
    ]


def _frames(clips: torch.Tensor) -> torch.Tensor:
    """Extend clips to the length that the I3D needs, by playing them backwards."""
    while clips.shape[2] < FRAMES:
        clips = torch.cat((clips, clips.flip(2)), 2)
    return clips[:, :, :FRAMES]
