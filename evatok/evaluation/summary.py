"""Summarise per-clip measurements into the values of a record: means with intervals, distances, rates.

Legend: N clips, R rows of features per clip, D features, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evatok.evaluation import per_clip
from evatok.evaluation.folders import EvaluationError
from evatok.evaluation.systems import System
from evatok.metrics import catalogue, frame_features, pixels
from evatok.metrics import codebook as code_metrics
from evatok.metrics.bootstrap import bootstrap, bootstrap_statistic
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.metrics.fvd_extrapolation import extrapolated_fvd
from evatok.metrics.kernel_distance import kernel_distance
from evatok.metrics.motion import correlation_of, ratio_of
from evatok.metrics.structural_similarity import ssim
from evatok.storage.records import Metric
from evatok.storage.shards import Arrays

PERCEPTUAL = {entry.name: entry.network for entry in catalogue.METRICS if entry.network and entry.per == "clip"}
"""Perceptual metrics, one value per clip, and the network of each."""
PIXELS = {"psnr": pixels.psnr, "ssim": ssim, "l1": pixels.l1, "mse": pixels.mse}
"""Pixel metrics, one value per clip."""

PER_CLIP = (*PIXELS, *PERCEPTUAL)
DISTRIBUTION = {entry.name: entry.network for entry in catalogue.METRICS if entry.network and entry.per == "set"}
"""Metrics of sets, and the network whose features they compare."""

MOTION = {"motion_ratio": ratio_of, "motion_correlation": correlation_of}
"""Motion metrics of every evaluation of reconstructions, as functions of the moments of all clips."""

LEVEL = 0.95  # for the bootstrap intervals


def per_clip_arrays(arrays: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Per-clip values of each metric, PSNR capped at PSNR_CEILING, and tokens if there are any."""
    values = {name: _below_ceiling(arrays[name], name) for name in names if name in PER_CLIP}
    return {**values, "tokens": arrays["lengths"].sum(1)} if "lengths" in arrays else values


def ceiling_facts(arrays: Arrays) -> dict[str, Any]:
    """The PSNR at which values are capped, and how many clips reached it; {} if no PSNR was measured."""
    if "psnr" not in arrays:
        return {}
    return {"psnr_ceiling": {"dB": pixels.PSNR_CEILING, "clips": int((arrays["psnr"] >= pixels.PSNR_CEILING).sum())}}


def _below_ceiling(values: np.ndarray, name: str) -> np.ndarray:
    return np.minimum(values, pixels.PSNR_CEILING) if name == "psnr" else values


def kept_arrays(arrays: Arrays, names: Sequence[str]) -> Arrays:
    """Select what a paired comparison needs of every clip, by the names of `evatok.evaluation.per_clip`."""
    kept = dict(per_clip_arrays(arrays, names))
    features = {fake: f"features.{name}" for name, (fake, _) in per_clip.EXTRACTED.items()}
    sources = {per_clip.MOTION: "motion", **features}
    return kept | {name: arrays[source] for name, source in sources.items() if source in arrays}


def per_clip_values(arrays: Arrays, names: Sequence[str]) -> tuple[dict[str, Metric], dict[str, tuple[float, float]]]:
    """Means with half their bootstrap interval; neither a single clip nor an infinite mean has an interval."""
    metrics: dict[str, Metric] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name in (name for name in names if name in PER_CLIP):
        values, spread = _below_ceiling(arrays[name], name), None
        if len(values) > 1 and np.isfinite(values).all():
            interval = bootstrap(values, level=LEVEL)
            intervals[name], spread = (interval.low, interval.high), (interval.high - interval.low) / 2
        metrics[name] = catalogue.of(name).measured(float(values.mean()), len(values), spread)
    return metrics, intervals


def motion_values(arrays: Arrays) -> tuple[dict[str, Metric], dict[str, tuple[float, float]]]:
    """Compute how much motion is reconstructed, and how much of it is correct, with half their bootstrap interval.

    NaN if no clip moves; neither NaN nor a single clip has an interval.
    """
    metrics: dict[str, Metric] = {}
    intervals: dict[str, tuple[float, float]] = {}
    if "motion" not in arrays:
        return metrics, intervals
    moments = arrays["motion"]
    for name, statistic in MOTION.items():
        value, spread = statistic(moments), None
        if len(moments) > 1 and np.isfinite(value):
            interval = bootstrap_statistic(moments, statistic, level=LEVEL)
            intervals[name], spread = (interval.low, interval.high), (interval.high - interval.low) / 2
        metrics[name] = catalogue.of(name).measured(value, len(moments), spread)
    return metrics, intervals


def distribution_values(arrays: Arrays, references: Arrays, names: Sequence[str]) -> dict[str, Metric]:
    """Distances between sets, each with its sample size: clips, or frames for networks of frames.

    Raises EvaluationError for too few samples.
    """
    values = {}
    for name in (name for name in names if name in DISTRIBUTION):
        real, fake = references[DISTRIBUTION[name]], arrays[f"features.{DISTRIBUTION[name]}"]
        try:
            values[name] = catalogue.of(name).measured(_distance(name, real, fake), len(fake))
        except ValueError as error:  # usually too few samples
            raise EvaluationError(f"{name} of {len(fake)} samples: {error}; measure more, or leave it out") from error
    return values


def _distance(name: str, real: np.ndarray, fake: np.ndarray) -> float:
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    if name == "kvd" or name.endswith("kd_efficientnet"):
        return float(kernel_distance(real, fake))
    if name in frame_features.DISTANCES:
        return frame_features.DISTANCES[name](real, fake)
    if name == "rfvd_extrapolated":
        return float(extrapolated_fvd(real, fake).value)
    # FID's covariances divide by N - 1, as in the original; FVD's by N, as in LARP.
    return float(frechet_distance_of_features(real, fake, ddof=0 if name.endswith("fvd") else 1))


def token_values(arrays: Arrays, system: System, real: Any) -> dict[str, Metric]:
    """Mean tokens, bits per pixel and codebook use, of systems that return tokens."""
    if "lengths" not in arrays:
        return {}
    tokens = arrays["lengths"].sum(1)
    values = {"mean_tokens": float(tokens.mean())}
    if system.codebook_size is not None:
        shape = (real.shape[1], real.shape[2], real.shape[3])
        rate = code_metrics.bits_per_pixel(arrays["lengths"], system.codebook_size, system.length_levels, shape)
        values["bits_per_pixel"] = float(rate.mean())
    metrics = {name: catalogue.of(name).measured(value, len(tokens)) for name, value in values.items()}
    if system.codebook_size is not None and "codes" in arrays:
        codes, size = arrays["codes"], system.codebook_size
        use = {
            "codebook_usage": float(code_metrics.codebook_usage(codes, size)),
            "codebook_perplexity": float(code_metrics.codebook_perplexity(codes, size)),
        }
        metrics |= {name: catalogue.of(name).measured(value, len(codes)) for name, value in use.items()}
    return metrics


def length_facts(arrays: Arrays) -> dict[str, Any]:
    """Mean tokens, in all and per block, and a histogram of tokens per clip."""
    if "lengths" not in arrays:
        return {}
    lengths = arrays["lengths"]
    return {
        "mean_tokens": code_metrics.mean_tokens(lengths),
        "tokens_per_block": lengths.mean(0).tolist(),
        "histogram": {str(tokens): clips for tokens, clips in code_metrics.length_histogram(lengths).items()},
    }
