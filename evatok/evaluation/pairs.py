"""Measures pairs of clip and assignment: every pair reconstructed once, in shards that outlive an interruption.

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
from evatok.evaluation.measuring import checked_output, load_networks
from evatok.evaluation.operating_points import Pairs
from evatok.evaluation.summary import PERCEPTUAL, PIXELS
from evatok.evaluation.systems import Adaptive
from evatok.metrics.features import clip_features, description, extract
from evatok.metrics.i3d import load_i3d
from evatok.search.candidate_table import ranges
from evatok.storage.shards import Arrays, ShardStore, code_version
from evatok.tokenizers.evatok import AdaptiveTokenizer

METRICS = (*PIXELS, *PERCEPTUAL, "rfvd")


@dataclass(frozen=True, eq=False)
class Networks:
    """The metrics to measure and the frozen networks they need; `i3d_precision` is "fp32" or "bf16"."""

    metrics: tuple[str, ...]
    networks: dict[str, Any]
    i3d_precision: str

    @classmethod
    def load(cls, metrics: Sequence[str], device: str, i3d_bf16: bool = False) -> Networks:
        """Networks for some of METRICS.

        Raises:
            EvaluationError: a metric that is none of these, or no metric.
            WeightsError: a network whose weights cannot be had.
        """
        odd = [name for name in metrics if name not in METRICS]
        if odd or not metrics:
            told = repr(odd[0]) if odd else "nothing"
            raise EvaluationError(f"{told} cannot be measured of pairs: choose of {', '.join(METRICS)}")
        low = i3d_bf16 and "rfvd" in metrics
        given = {"i3d": load_i3d(device, torch.bfloat16)} if low else {}
        return cls(tuple(metrics), load_networks(metrics, device, given), "bf16" if low else "fp32")

    @property
    def per_clip(self) -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """What gives one value per clip, by metric."""
        return {name: PIXELS.get(name) or self.networks[name] for name in self.metrics if name != "rfvd"}

    @property
    def weights(self) -> dict[str, dict[str, str]]:
        """sha256 of the networks' weights."""
        return {name: dict(network.weights_sha256) for name, network in self.networks.items()}

    @property
    def identity(self) -> dict[str, Any]:
        """Weights and code of everything that measures."""
        extractor = self.networks.get("i3d")
        return {
            "metrics": {name: code_version(function) for name, function in self.per_clip.items()},
            "weights": self.weights,
            "extractor": None if extractor is None else description(extractor, self.i3d_precision),
        }


@dataclass(frozen=True)
class Measured:
    """What was measured of all pairs.

    Attributes:
        arrays: (M,) float64 values of each per-clip metric and, for rfvd, `features` (M, F).
        resumed: pairs that an earlier run had left.
        damaged: shards of that run that were damaged and made again.
    """

    arrays: Arrays
    resumed: int
    damaged: int


@dataclass(frozen=True, eq=False)
class PairBench:
    """A tokenizer, clips, the pairs asked for, and what they are measured with.

    Attributes:
        identity: what the tokenizer is, down to the hash of its weights.
        clips: uint8 (N, T, H, W, 3).
        batch: pairs a batch.
        shard_length: pairs a shard, the most that an interruption loses.
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
        """Every pair, from the store or measured and kept now."""
        shards: list[Arrays] = []
        resumed = 0
        with tqdm(total=len(self.pairs), desc="pairs", unit="clip", disable=None) as bar:
            for start, stop in self.pairs.shards(self.shard_length):
                made_by = self.made_by(start, stop)
                found = kept.get(made_by)
                resumed += stop - start if found else 0
                if found is None:
                    found = self.measure(start, stop)
                    kept.put(made_by, found)
                shards.append(found)
                bar.update(stop - start)
        return Measured(_concatenated(shards), resumed, len(kept.damaged))

    def measure(self, start: int, stop: int) -> Arrays:
        """Values of pairs [start, stop), batch by batch."""
        batches = ranges(stop - start, self.batch)
        return _concatenated([self._measure_batch(np.arange(start + low, start + high)) for low, high in batches])

    @torch.no_grad()
    def _measure_batch(self, numbers: np.ndarray) -> Arrays:
        real = to_network(self.clips[self.pairs.clips[numbers]], self.device)
        fake = checked_output(real, self._system(real, numbers), int(numbers[0]))
        fake = (fake * 255).round() / 255  # what a video could hold, as in every protocol of ours
        arrays = {name: f(real, fake).double().cpu().numpy() for name, f in self.networks.per_clip.items()}
        if "i3d" in self.networks.networks:
            arrays["features"] = extract(self.networks.networks["i3d"], fake)
        return arrays

    @property
    def _system(self) -> Adaptive:
        chosen = self.tokenizer.config.candidates.row(self.pairs.candidates)
        return Adaptive(self.tokenizer, Listed(chosen), self.identity, bf16=self.bf16)

    def made_by(self, start: int, stop: int) -> dict[str, Any]:
        """Everything that decides a shard's numbers."""
        return {
            "system": self._system.identity,
            "pixels": pixels_sha256(self.clips[self.pairs.clips[start:stop]]),
            "candidates": self.pairs.candidates[start:stop].tolist(),
            **self.networks.identity,
            "code": code_version(self),
        }

    def real_features(self) -> np.ndarray:
        """(N, F) features of the clips themselves, from the cache that evaluations fill or computed now."""
        with tqdm(total=len(self.clips), desc="i3d of the reference", unit="clip", disable=None) as bar:
            return clip_features(
                self.networks.networks["i3d"],
                self.clips,
                ShardStore.of_features(),
                preprocessing=protocols.get("embedded-reconstruction").preprocessing,
                precision=self.networks.i3d_precision,
                batch=self.batch,
                shard_length=self.shard_length,
                device=self.device,
                tick=bar.update,
            )


def _concatenated(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
