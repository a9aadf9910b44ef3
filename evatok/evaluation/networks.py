"""The frozen networks that metrics need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evatok.evaluation.summary import DISTRIBUTION, PERCEPTUAL
from evatok.metrics.frame_features import load_frame_features
from evatok.metrics.i3d import load_i3d
from evatok.metrics.image_features import load_image_features
from evatok.metrics.inception import load_inception
from evatok.metrics.perceptual import perceptual_metric


def load_networks(metrics: Sequence[str], device: torch.device | str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Load the frozen networks that these metrics need, in float32; `given` ones are used as they are.

    Raises:
        WeightsError: weights that are not available.
    """
    needed = [name for name in metrics if name in PERCEPTUAL] + extractors(metrics)
    return {name: given[name] if name in given else _load(name, device) for name in needed}


def _load(name: str, device: torch.device | str) -> Any:
    if name == "i3d":
        return load_i3d(device)
    if name == "inception":
        return load_inception(device)
    if name == "frames":
        return load_frame_features(device)
    if name == "efficientnet":
        return load_image_features(device)
    return perceptual_metric(PERCEPTUAL[name], device)


def extractors(metrics: Sequence[str]) -> list[str]:
    """Names of the feature extractors that these metrics of sets need."""
    return list(dict.fromkeys(DISTRIBUTION[name] for name in metrics if name in DISTRIBUTION))
