"""Losses of a tokenizer's blocks at full length, which published rules depend on (`evatok.assignments.published`).

They take as long as the routers such rules are compared with, and depend only on tokenizer and pixels: a store caches
them.

Legend: N clips, K temporal blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evatok import models, tokenizers
from evatok.data.clips import network_batches, range_sha256
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, length_of, package_version, ranges
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer

_CLIPS = 64  # per shard


def full_length_losses(
    tokenizer: AdaptiveTokenizer, clips: np.ndarray, store: ShardStore | None = None, *, batch: int = 16
) -> np.ndarray:
    """Compute (N, K) squared errors of each block of uint8 clips (N, T, H, W, 3), all blocks at the highest level.

    Args:
        store: caches the losses of a saved tokenizer; None keeps nothing.
    """

    def make(piece: tuple[int, int], tick: Tick) -> Arrays:
        return {"losses": _losses(tokenizer, clips[slice(*piece)], batch)}

    def key(piece: tuple[int, int]) -> dict[str, Any]:
        return {"full_length": tokenizer.checkpoint.sha256, "pixels": range_sha256(clips, *piece), "code": code}

    code = "" if store is None else package_version(models, tokenizers)
    shards = computed(store, ranges(len(clips), _CLIPS), key, make, size=length_of)
    return shards.joined()["losses"]


@torch.no_grad()
def _losses(tokenizer: AdaptiveTokenizer, clips: np.ndarray, batch: int) -> np.ndarray:
    blocks, device = tokenizer.config.candidates.blocks, next(tokenizer.parameters()).device
    longest = (tokenizer.config.levels[-1],) * blocks
    parts = []
    for real, _ in network_batches(clips, batch, device):
        fake = tokenizer(real, expand_assignment(longest, len(real)).to(device)).clips.clamp(0, 1)
        parts.append((fake - real).square().unflatten(2, (blocks, -1)).mean(dim=(1, 3, 4, 5)).cpu().numpy())
    return np.concatenate(parts)
