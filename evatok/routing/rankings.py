"""Rankings of candidates for a set of clips by routers, each computed once and optionally stored.

Legend: N clips, B clips of a batch, K temporal blocks, A candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evatok import models, routing
from evatok.data.clips import range_sha256, to_network
from evatok.routing.networks import StatisticsRouter
from evatok.routing.trained_router import Router, finite, ranking
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, length_of, package_version, ranges


class Rankings:
    """Rankings of one set of clips, uint8 (N, T, H, W, 3), by several routers.

    Routers of one kind and shape compute the same statistics of a clip, the dominant cost: they are computed once for
    all of them, and each router's ranking once.

    Args:
        store: where rankings of these pixels by these weights are looked up and kept; None keeps nothing.
        batch: clips per pass, and per shard of the store.
    """

    def __init__(self, clips: np.ndarray, store: ShardStore | None = None, batch: int = 64) -> None:
        self.clips, self.store = clips, store
        self._batches = ranges(len(clips), batch)
        self._pixels: dict[tuple[int, int], str] = {}
        self._seen: dict[tuple[Any, ...], torch.Tensor] = {}
        self._ranked: dict[str, np.ndarray] = {}

    def by(self, router: Router) -> np.ndarray:
        """Return (N, A) candidates, most probable first; see `Router.ranking`."""
        sha256 = router.checkpoint.sha256
        if sha256 not in self._ranked:
            self._ranked[sha256] = self._ranking(router)
        return self._ranked[sha256]

    def assignments(self, router: Router) -> np.ndarray:
        """Return (N, K) tokens per block."""
        return router.config.candidates.row(self.by(router)[:, 0])

    def _ranking(self, router: Router) -> np.ndarray:
        def key(batch: tuple[int, int]) -> dict[str, Any]:
            if batch not in self._pixels:
                self._pixels[batch] = range_sha256(self.clips, *batch)
            return {"ranking": router.checkpoint.sha256, "pixels": self._pixels[batch], "code": code}

        def make(batch: tuple[int, int], tick: Tick) -> Arrays:
            return {"ranking": ranking(finite(self._logits(router, batch))).astype(np.int32)}

        code = "" if self.store is None else package_version(models, routing)
        return computed(self.store, self._batches, key, make, size=length_of).joined()["ranking"]

    @torch.no_grad()
    def _logits(self, router: Router, batch: tuple[int, int]) -> torch.Tensor:
        """Compute (B, A) logits, on the CPU."""
        module, pixels = router.module, self.clips[slice(*batch)]
        device = next(module.parameters()).device
        if not isinstance(module, StatisticsRouter):
            return module(to_network(pixels, device)).cpu()
        key = (router.config.kind, router.config.blocks, str(device), batch)
        if key not in self._seen:
            self._seen[key] = module.see(module.checked(to_network(pixels, device)))
        return module.decide(self._seen[key]).cpu()
