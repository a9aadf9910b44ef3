"""Alignment targets of a training set, computed once: a frozen encoder costs more than a toy training step.

Features are stored in float16, plain and mirrored, since training with `flip` sees each clip both ways. Shards are
keyed by pixels, encoder, grid and precision, so trainings on one set share them.

Legend: N clips, V variants (1, or 2 with mirroring), B clips of a batch, T' latent frames, P patches, S values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from evatok import models
from evatok.data.clips import network_batches, pixels_sha256
from evatok.models.precision import autocast
from evatok.storage.files import cache_folder
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, package_version, ranges
from evatok.storage.transfer import moved
from evatok.training.flextok_alignment import Teacher

_OF_THE_GRID = ("frames", "size", "patch", "stride")


class StoredTargets:
    """Standardised targets of a set's clips, by index.

    Attributes:
        features: a list of V arrays (N, T', P, S) in float16, not standardised.
    """

    def __init__(self, teacher: Teacher, features: list[np.ndarray]) -> None:
        self.teacher, self.features = teacher, features

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        clips: np.ndarray,
        *,
        mirrored: bool,
        bf16: bool = False,
        device: torch.device | str = "cpu",
        store: ShardStore | None = None,
        shard_length: int = 256,
        batch: int = 16,
        tick: Tick | None = None,
    ) -> StoredTargets:
        """Compute features of uint8 clips (N, F, H, W, 3), reading those the store already holds.

        Args:
            mirrored: also for every clip mirrored left to right.
            bf16: autocast of the encoder.
            store: `alignment` in the cache folder by default.
            tick: called with the number of clips and variants done.
        """
        made = {**_identity(teacher), "precision": "bf16" if bf16 else "fp32"}
        make = _maker(teacher, bf16, batch, device)
        variants = []
        for flipped in (False, True)[: 1 + mirrored]:
            seen = clips[:, :, :, ::-1] if flipped else clips
            pieces = (np.ascontiguousarray(seen[start:stop]) for start, stop in ranges(len(clips), shard_length))
            found = computed(
                store or ShardStore(cache_folder() / "alignment"),
                pieces,
                lambda piece: {**made, "pixels": pixels_sha256(piece)},
                make,
                tick=tick,
            )
            variants.append(found.joined()["features"])
        return cls(teacher, variants)

    def targets(self, rows: np.ndarray, mirrored: np.ndarray, device: torch.device | str) -> torch.Tensor:
        """Return (B, T', P, S) of clips `rows` (B,), mirrored where `mirrored` (B,) is True."""
        pairs = zip(rows.tolist(), mirrored.tolist(), strict=True)
        raw = np.stack([self.features[int(flipped)][row] for row, flipped in pairs])
        return self.teacher.standardised(moved(torch.from_numpy(raw), device).float())


def _maker(
    teacher: Teacher, bf16: bool, batch: int, device: torch.device | str
) -> Callable[[np.ndarray, Tick], Arrays]:
    def make(piece: np.ndarray, tick: Tick) -> Arrays:
        parts = []
        for clips, numbers in network_batches(piece, batch, device):
            with autocast(clips.device, bf16):
                parts.append(teacher.raw(clips).half().cpu().numpy())
            tick(len(numbers))
        return {"features": np.concatenate(parts)}

    return make


def _identity(teacher: Teacher) -> dict[str, Any]:
    """Return everything but pixels and precision that determines a teacher's features."""
    shape = asdict(teacher.config)
    return {
        "what": "alignment",
        "encoder": teacher.encoder.weights_sha256,
        "resize": teacher.encoder.resize,
        "grid": {name: shape[name] for name in _OF_THE_GRID},
        "code": package_version(models),
    }
