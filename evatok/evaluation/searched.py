"""A set's clips with a proxy that scores on demand: what a beam visits, and individual choices.

Legend: N clips, K temporal blocks, A candidates, M pairs of clip and candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from evatok import models, search, tokenizers
from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import weighed
from evatok.data.clips import ClipSet, pixels_sha256
from evatok.evaluation.full_length import full_length_losses
from evatok.metrics import catalogue
from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.routing.rankings import Rankings
from evatok.routing.trained_router import OperatingPoint
from evatok.search.beam import PAYBACK, search_set
from evatok.search.listed import score_pairs
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, length_of, package_version, ranges
from evatok.tokenizers.evatok import AdaptiveTokenizer

WIDTH = 3
"""Prefixes the beam keeps per clip: with the toy proxy, within 0.2 points of the best percentile."""
_CLIPS, _PAIRS = 16, 128  # per shard


@dataclass(frozen=True, eq=False)
class Searched:
    """Clips and their proxy; every pair is scored once, in shards that a rerun reuses.

    Attributes:
        perceptual: by name, the metrics of rewards that need a network.
        perceptual_frames: frames per block to measure them on; 0: all.
        store: None caches nothing.
        bf16: the precision of the proxy.
    """

    clips: ClipSet
    tokenizer: AdaptiveTokenizer
    perceptual: Mapping[str, PerceptualDistance | SomeFrames]
    perceptual_frames: int
    store: ShardStore | None
    bf16: bool
    _known: dict[str, dict[int, float]] = field(default_factory=dict, init=False)

    @property
    def candidates(self) -> CandidateSet:
        return self.tokenizer.config.candidates

    @cached_property
    def rankings(self) -> Rankings:
        """Return rankings of the clips by routers, each computed once."""
        return Rankings(self.clips.clips, self.store)

    @cached_property
    def losses(self) -> np.ndarray:
        """(N, K) losses of the proxy's blocks at full length."""
        return full_length_losses(self.tokenizer, self.clips.clips, self.store)

    def found(self, point: OperatingPoint) -> np.ndarray:
        """Return (N,) candidates the beam finds for a reward."""

        def make(piece: tuple[int, int], tick: Tick) -> Arrays:
            pixels, perceptual = self.clips.clips[slice(*piece)], self.perceptual.get(point.metric)
            result = search_set(self.tokenizer, pixels, point, width=WIDTH, bf16=self.bf16, perceptual=perceptual)
            return {"assignments": result.assignments}

        def key(piece: tuple[int, int]) -> dict[str, Any]:
            beam = {"width": WIDTH, "payback": PAYBACK, "point": asdict(point)}
            return {**self._made_by(self.clips.clips[slice(*piece)], point.metric), "beam": beam}

        shards = computed(self.store, ranges(len(self.clips), _CLIPS), key, make, size=length_of)
        return self.candidates.index(shards.joined()["assignments"])

    def rewards(self, point: OperatingPoint, choices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return rewards (N,) of choices (N,), by name."""
        first = np.arange(len(self.clips)) * len(self.candidates)
        known = self._scored(point.metric, np.unique(np.concatenate([first + choice for choice in choices.values()])))
        rewards = {}
        for name, choice in choices.items():
            quality = np.array([known[pair] for pair in (first + choice).tolist()])
            rewards[name] = weighed(quality, self.candidates.totals[choice], point.scale, point.w_q)
        return rewards

    def _scored(self, metric: str, pairs: np.ndarray) -> dict[int, float]:
        """Return qualities by pair, clip * A + candidate, of these (M,) and all pairs scored before."""
        known = self._known.setdefault(metric, {})
        new = pairs[[pair not in known for pair in pairs.tolist()]]
        new = new[np.argsort(self.candidates.totals[new % len(self.candidates)], kind="stable")]
        if len(new):
            shards = computed(
                self.store,
                [new[slice(*piece)] for piece in ranges(len(new), _PAIRS)],
                lambda some: {**self._made_by(self._pixels(some), metric), "candidates": self._chosen(some).tolist()},
                lambda some, tick: self._score(some, metric),
            )
            known.update(zip(new.tolist(), catalogue.quality(shards.joined()[metric], metric).tolist(), strict=True))
        return known

    def _score(self, pairs: np.ndarray, metric: str) -> Arrays:
        rows, perceptual = self.candidates.row(self._chosen(pairs)), self.perceptual.get(metric)
        how: dict[str, Any] = {"bf16": self.bf16, "perceptual": perceptual, "name": metric}
        return {metric: score_pairs(self.tokenizer, self._pixels(pairs), rows, **how)[metric]}

    def _pixels(self, pairs: np.ndarray) -> np.ndarray:
        return np.asarray(self.clips.clips[pairs // len(self.candidates)])

    def _chosen(self, pairs: np.ndarray) -> np.ndarray:
        return pairs % len(self.candidates)

    @cached_property
    def _code(self) -> str:
        return package_version(models, tokenizers, search)

    def _made_by(self, pixels: np.ndarray, metric: str) -> dict[str, Any]:
        """Return the key of a shard: everything that determines its scores."""
        network = self.perceptual.get(metric)
        return {
            "proxy": self.tokenizer.checkpoint.sha256,
            "pixels": pixels_sha256(pixels),
            "metric": metric,
            **({} if network is None else {"weights": dict(network.weights_sha256), "frames": self.perceptual_frames}),
            "precision": "bf16" if self.bf16 else "fp32",
            "code": self._code,
        }
