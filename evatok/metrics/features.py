"""Features of clips by a frozen network, computed once and cached in shards.

A shard is keyed by the pixels, the preprocessing, the extractor with its weights and code, and the precision. As keys
contain the pixels, a longer set reuses the shards of a shorter one, and an interrupted computation resumes.

Legend: N clips, B clips of a batch, R rows of features per clip (1 for I3D, T for networks of frames), D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from evatok.data.clips import pixels_sha256, to_network
from evatok.storage.shards import Arrays, FeatureError, ShardStore, Tick, code_version, computed, ranges


class Extractor(Protocol):
    """A frozen network that maps clips (B, 3, T, H, W) in [0, 1] to features (B * R, D)."""

    name: str
    weights_sha256: dict[str, str]

    def __call__(self, clips: torch.Tensor, /) -> torch.Tensor: ...


class Sliceable(Protocol):
    """Clips that can be sliced as uint8 (n, T, H, W, 3): an array, or a folder that is read on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> np.ndarray: ...


def description(extractor: Extractor, precision: str = "fp32") -> dict[str, Any]:
    """Identity of an extractor: name, weights, code, precision.

    Raises:
        FeatureError: the extractor has no name or no hashes of its weights.
    """
    missing = [name for name in ("name", "weights_sha256") if not hasattr(extractor, name)]
    if missing:
        raise FeatureError(
            f"the extractor {type(extractor).__name__} lacks {missing[0]}: features cannot be cached without the "
            "identity of their extractor"
        )
    weights = dict(extractor.weights_sha256)
    return {"name": extractor.name, "weights": weights, "code": code_version(extractor), "precision": precision}


def clip_features(
    extractor: Extractor,
    clips: Sliceable,
    store: ShardStore,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    precision: str = "fp32",
    batch: int = 8,
    shard_length: int = 64,
    device: torch.device | str = "cpu",
    tick: Tick | None = None,
) -> np.ndarray:
    """(N * R, D) float32 features of uint8 clips (N, T, H, W, 3), reading shards that the store already holds.

    Args:
        prepare: maps clips (B, 3, T, H, W) in [0, 1] to the extractor's inputs; `preprocessing` describes it in the
        key. tick: called with the number of clips done.

    Raises:
        FeatureError: features that are not finite or not (B * R, D).
    """
    made = {"extractor": description(extractor, precision), "preprocessing": dict(preprocessing or {})}

    def key(piece: np.ndarray) -> dict[str, Any]:
        return {**made, "pixels": pixels_sha256(piece)}

    def make(piece: np.ndarray, tick: Tick) -> Arrays:
        rows = []
        for start, stop in ranges(len(piece), batch):
            pixels = to_network(piece[start:stop], device)
            rows.append(extract(extractor, prepare(pixels) if prepare else pixels))
            tick(stop - start)
        return {"features": np.concatenate(rows)}

    pieces = (clips[start:stop] for start, stop in ranges(len(clips), shard_length))
    return computed(store, pieces, key, make, tick=tick).joined()["features"]


@torch.no_grad()
def extract(extractor: Extractor, clips: torch.Tensor) -> np.ndarray:
    """(B * R, D) float32 features of clips (B, 3, T, H, W). Raises FeatureError for other shapes and NaN."""
    features = extractor(clips).float().cpu().numpy()
    if features.ndim != 2 or len(features) % len(clips) or not len(features):
        raise FeatureError(
            f"{extractor.name} returned features {features.shape} for {len(clips)} clips, not rows of features per clip"
        )
    if not np.isfinite(features).all():
        raise FeatureError(f"{extractor.name} returned features that are not finite")
    return features
