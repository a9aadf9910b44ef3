"""Measure pairs of clip and assignment, every pair once, in shards that survive an interruption.

Legend: N clips, M pairs, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from evatok.assignments.rules import Listed
from evatok.data.clips import pixels_sha256, to_network
from evatok.evaluation import protocols
from evatok.evaluation.folders import EvaluationError
from evatok.evaluation.measuring import checked_output
from evatok.evaluation.networks import load_networks
from evatok.evaluation.operating_points import Pairs
from evatok.evaluation.per_clip import DISTANCES
from evatok.evaluation.summary import PERCEPTUAL, PIXELS
from evatok.evaluation.systems import Adaptive
from evatok.metrics.features import clip_features, description, extract
from evatok.metrics.i3d import load_i3d
from evatok.storage.shards import Arrays, ShardStore, Tick, code_version, computed, concatenated, ranges
from evatok.tokenizers.evatok import AdaptiveTokenizer

METRICS = (*PIXELS, *PERCEPTUAL, *DISTANCES)


@dataclass(frozen=True, eq=False)
class Networks:
    """Metrics and the frozen networks they need; `i3d_precision` is "fp32" or "bf16"."""

    metrics: tuple[str, ...]
    networks: dict[str, Any]
    i3d_precision: str

    @classmethod
    def load(cls, metrics: Sequence[str], device: str, i3d_bf16: bool = False) -> Networks:
        """Load the networks for some of METRICS.

        Raises:
            EvaluationError: no metric, or one that cannot be measured for pairs.
            WeightsError: network weights that are not available.
        """
        check_metrics(metrics)
        half = i3d_bf16 and "rfvd" in metrics
        given = {"i3d": load_i3d(device, torch.bfloat16)} if half else {}
        return cls(tuple(metrics), load_networks(metrics, device, given), "bf16" if half else "fp32")

    @property
    def per_clip(self) -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """Functions that compute one value per clip, by metric."""
        return {name: PIXELS.get(name) or self.networks[name] for name in self.metrics if name not in DISTANCES}

    @property
    def weights(self) -> dict[str, dict[str, str]]:
        """sha256 of the networks' weights."""
        return {name: dict(network.weights_sha256) for name, network in self.networks.items()}

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the metrics: weights and code."""
        extractor, images = self.networks.get("i3d"), self.networks.get("efficientnet")
        return {
            "metrics": {name: code_version(function) for name, function in self.per_clip.items()},
            "weights": self.weights,
            "extractor": None if extractor is None else description(extractor, self.i3d_precision),
            **({} if images is None else {"images": description(images)}),
        }

    @property
    def extractors(self) -> list[str]:
        """Names of the networks whose features distances compare."""
        return [DISTANCES[name][0] for name in self.metrics if name in DISTANCES]

    def precision(self, extractor: str) -> str:
        return self.i3d_precision if extractor == "i3d" else "fp32"


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise EvaluationError for no metric, and for one that cannot be measured for pairs."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        cause = f"{unknown[0]!r} cannot be measured" if unknown else "no metric to measure"
        raise EvaluationError(f"{cause} for pairs of clip and assignment: choose from {', '.join(METRICS)}")


def features_of(extractor: str) -> str:
    """Name of an extractor's features among the arrays of pairs."""
    return "features" if extractor == "i3d" else f"features.{extractor}"


@dataclass(frozen=True)
class Measured:
    """Measurements of all pairs.

    Attributes:
        arrays: (M,) float64 values of each per-clip metric and features (M, F) of each extractor.
        resumed: number of pairs that an earlier run had measured.
        damaged: number of shards of that run that were damaged and recomputed.
    """

    arrays: Arrays
    resumed: int
    damaged: int


@dataclass(frozen=True, eq=False)
class PairRunner:
    """Measures pairs with one tokenizer.

    Attributes:
        identity: of the tokenizer, including the hash of its weights.
        clips: uint8 (N, T, H, W, 3).
        batch: pairs per batch.
        shard_length: pairs per shard, the most that an interruption loses.
    """

    tokenizer: AdaptiveTokenizer
    identity: dict[str, Any]
    clips: np.ndarray
    pairs: Pairs
    networks: Networks
    batch: int = 16
    shard_length: int = 64
    bf16: bool = False
    device: str = "cpu"

    def measure_all(self, kept: ShardStore) -> Measured:
        """Measure every pair, reading those that the store already holds."""
        pieces = (np.arange(*shard) for shard in self.pairs.shards(self.shard_length))
        with tqdm(total=len(self.pairs), desc="pairs", unit="clip", disable=None) as bar:
            measured = computed(kept, pieces, self.made_by, self.measure, tick=bar.update)
        return Measured(measured.joined(), measured.resumed, len(kept.damaged))

    def measure(self, numbers: np.ndarray, tick: Tick) -> Arrays:
        """Measure consecutive pairs, batch by batch."""
        parts = []
        for start, stop in ranges(len(numbers), self.batch):
            parts.append(self._measure_batch(numbers[start:stop]))
            tick(stop - start)
        return concatenated(parts)

    @torch.no_grad()
    def _measure_batch(self, numbers: np.ndarray) -> Arrays:
        real = to_network(self.clips[self.pairs.clips[numbers]], self.device)
        fake = checked_output(real, self._system(real, numbers), int(numbers[0]))
        fake = (fake * 255).round() / 255  # 8 bit, as in every protocol of ours
        arrays = {name: f(real, fake).double().cpu().numpy() for name, f in self.networks.per_clip.items()}
        for name in self.networks.extractors:
            arrays[features_of(name)] = extract(self.networks.networks[name], fake)
        return arrays

    @property
    def _system(self) -> Adaptive:
        assignments = self.tokenizer.config.candidates.row(self.pairs.candidates)
        return Adaptive(self.tokenizer, Listed(assignments), self.identity, bf16=self.bf16)

    def made_by(self, numbers: np.ndarray) -> dict[str, Any]:
        """Key of a shard: everything that determines its values."""
        return {
            "system": self._system.identity,
            "pixels": pixels_sha256(self.clips[self.pairs.clips[numbers]]),
            "candidates": self.pairs.candidates[numbers].tolist(),
            **self.networks.identity,
            "code": code_version(self),
        }

    def real_features(self, extractor: str) -> np.ndarray:
        """(N, F) features of the real clips, from the cache that evaluations share."""
        with tqdm(total=len(self.clips), desc=f"{extractor} of the reference", unit="clip", disable=None) as bar:
            return clip_features(
                self.networks.networks[extractor],
                self.clips,
                ShardStore.of_features(),
                preprocessing=protocols.get("embedded-reconstruction").preprocessing,
                precision=self.networks.precision(extractor),
                batch=self.batch,
                shard_length=self.shard_length,
                device=self.device,
                tick=bar.update,
            )
