"""Codes of whole clip sets, made once: what a generator learns from.

Shards of codes lie in a cache, each named after the tokenizer, the rule of assignment, the precision and the pixels
that made it, so an interrupted coding goes on where it stopped and nothing stale is ever read. A clip may be coded
twice, plain and mirrored; which of the two an epoch takes is a function of (seed, epoch) alone.

Legend: N clips, V variants (1, or 2 with the mirrored one), K temporal blocks, B clips of a batch, L codes of its
longest clip, M codes in all. Clips are uint8 (N, T, H, W, 3) in a set and float (B, 3, T, H, W) for a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.assignments.rules import Rule
from evatok.data.clips import ClipSet, pixels_sha256, to_network
from evatok.errors import EvatokError
from evatok.metrics.features import Sliceable
from evatok.models.precision import autocast
from evatok.storage.files import cache_folder, sha256_file
from evatok.storage.shards import Arrays, ShardStore, digest
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import AdaptiveTokenizer

VARIANTS_RULE = (
    "variant of clip i in epoch e: the i-th of numpy default_rng(SeedSequence([seed, e, 2])).random(N); below 0.5 the "
    "mirrored one"
)
"""What `variants_of_epoch` does, in words, for a record."""

DECIDING = (
    "assignments/rules.py",
    "models/attention.py",
    "models/precision.py",
    "models/quantisers.py",
    "routing/networks.py",
    "routing/rules.py",
    "routing/statistics.py",
    "routing/trained_router.py",
    "tokenizers/evatok.py",
    "tokenizers/layout.py",
    "tokenizers/pooling.py",
)
"""Modules that decide codes: a tokenizer's way to them and a router's to assignments."""
_GROUPS = 4  # clips of like length are coded together, in so many groups a batch


class CodingError(EvatokError, ValueError):
    """Clips that cannot be coded, labelled or taken as asked."""


@dataclass(frozen=True)
class Coder:
    """Something that turns clips (B, 3, T, H, W) in [0, 1] into codes, with all that tells it from another.

    Attributes:
        encode: its function.
        made_by: identity in JSON types, for the cache's key.
    """

    encode: Callable[[torch.Tensor], Codes]
    made_by: dict[str, Any]


@dataclass(frozen=True)
class CodedSet:
    """Codes of N clips in V variants.

    Attributes:
        codes: (M,) of all clips without padding: clip after clip, the plain ones first.
        lengths: (V, N, K) tokens per block.
    """

    codes: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return self.lengths.shape[1]

    @property
    def variants(self) -> int:
        return self.lengths.shape[0]

    @property
    def mean_tokens(self) -> float:
        """Tokens a clip, over all variants."""
        return float(self.lengths.sum(2).mean())

    @cached_property
    def _starts(self) -> np.ndarray:
        """(V, N) place of each clip's first code."""
        totals = self.lengths.sum(2).ravel()
        return (np.cumsum(totals) - totals).reshape(self.lengths.shape[:2])

    def batch(self, rows: np.ndarray, variants: np.ndarray | int = 0) -> Codes:
        """Codes (B, L) and lengths (B, K) of clips `rows` (B,), each in its variant (B,): 0 plain, 1 mirrored.

        Raises:
            CodingError: a clip or a variant that there is not.
        """
        rows = np.asarray(rows)
        which = np.broadcast_to(np.asarray(variants), rows.shape)
        if (
            not len(rows)
            or rows.min() < 0
            or rows.max() >= len(self)
            or which.min() < 0
            or which.max() >= self.variants
        ):
            raise CodingError(
                f"{len(rows)} clips up to number {rows.max(initial=0)}, variants up to {which.max(initial=0)} asked of "
                f"{len(self)} coded clips in {self.variants} variants (mirrored ones need the flip)"
            )
        lengths = self.lengths[which, rows]
        totals = lengths.sum(1)
        column = np.arange(totals.max())
        places = np.minimum(self._starts[which, rows][:, None] + column, len(self.codes) - 1)
        codes = np.where(column < totals[:, None], self.codes[places], 0).astype(np.int64)
        return Codes(torch.from_numpy(codes), torch.from_numpy(lengths.astype(np.int64)))


def clip_coder(module: AdaptiveTokenizer, sha256: str, rule: Rule, *, bf16: bool = False) -> Coder:
    """Codes of whole clips by the tokenizer of that hash, under a rule."""

    def encode(clips: torch.Tensor) -> Codes:
        lengths = rule(clips)
        with autocast(clips.device, bf16):
            return module.encode(clips, lengths, groups=min(_GROUPS, len(clips)))

    return Coder(encode, made_by(sha256, rule.identity, bf16))


def made_by(sha256: str, rule: dict[str, Any], bf16: bool) -> dict[str, Any]:
    """The cache's key, but for the pixels, of a tokenizer of that hash under that rule."""
    precision = "bf16" if bf16 else "fp32"
    return {"what": "codes", "tokenizer": sha256, "rule": rule, "precision": precision, "code": _code()}


def code_set(
    coder: Coder,
    clips: Sliceable,
    *,
    mirrored: bool,
    store: ShardStore | None = None,
    batch: int = 64,
    shard_length: int = 256,
    device: torch.device | str = "cpu",
    tick: Callable[[int], Any] | None = None,
) -> CodedSet:
    """Codes of a set, from the cache or made and kept now.

    Args:
        mirrored: code every clip mirrored left to right as well.
        store: where shards lie; `code_store()` by default.
        shard_length: clips whose coding an interruption loses at most.
        tick: called with the number of clips done.
    """
    store = store or code_store()
    parts: list[list[Arrays]] = [[] for _ in range(1 + mirrored)]
    for start in range(0, len(clips), shard_length):
        piece = clips[start : start + shard_length]
        pixels = pixels_sha256(piece)
        for variant, shards in enumerate(parts):
            key = {**coder.made_by, "pixels": pixels, "mirrored": bool(variant)}
            found = store.get(key)
            if found is None:
                found = _coded(coder, piece[:, :, :, ::-1] if variant else piece, batch, device)
                store.put(key, found)
            shards.append(found)
        if tick:
            tick(len(piece))
    whole = [_joined(shards) for shards in parts]
    codes = np.concatenate([part["codes"] for part in whole])
    return CodedSet(codes, np.stack([part["lengths"] for part in whole]))


def code_store() -> ShardStore:
    """The cache of codes."""
    return ShardStore(cache_folder() / "codes")


@lru_cache(maxsize=2)
def _draws(count: int, epoch: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(np.random.SeedSequence([seed, epoch, 2])).random(count) < 0.5).astype(np.int64)


def variants_of_epoch(count: int, epoch: int, seed: int, flip: bool) -> np.ndarray:
    """(count,) variants that an epoch takes of the clips, 0 plain and 1 mirrored, by VARIANTS_RULE; 0 without flip."""
    return _draws(count, epoch, seed).copy() if flip else np.zeros(count, dtype=np.int64)


def labels_of(clips: ClipSet, column: str) -> np.ndarray:
    """(N,) class names of a set's clips.

    Args:
        column: of the set's labels. Of several, as in "motion+game", a clip takes the last that it has a word in:
            the game of an Arcade clip, the motion of a Freedoom clip.

    Raises:
        CodingError: a set without such a column, or a clip without a word in it.
    """
    names = np.full(len(clips), "", dtype=object)
    for part in column.split("+"):
        if part not in clips.labels:
            known = ", ".join(map(str, clips.labels.columns))
            raise CodingError(f"clip set {clips.name} has no label column {part!r}: it has {known}; set label to one")
        words = clips.labels[part].fillna("").astype(str).str.strip().to_numpy()
        names = np.where(words != "", words, names)
    missing = np.flatnonzero(names == "")
    if len(missing):
        raise CodingError(f"clip set {clips.name}: clip {missing[0]} and {len(missing) - 1} more have no {column}")
    return names.astype(str)


@lru_cache(maxsize=1)
def _code() -> str:
    folder = Path(__file__).parents[1]
    return digest({name: sha256_file(folder / name) for name in DECIDING})


def _coded(coder: Coder, piece: np.ndarray, batch: int, device: torch.device | str) -> Arrays:
    """codes (M,) without padding and lengths (n, K) of a piece."""
    codes, lengths = [], []
    for first in range(0, len(piece), batch):
        made = coder.encode(to_network(piece[first : first + batch], device))
        valid = torch.arange(made.codes.shape[1], device=made.codes.device) < made.lengths.sum(1, keepdim=True)
        codes.append(made.codes[valid].cpu().numpy().astype(np.int32))
        lengths.append(made.lengths.cpu().numpy().astype(np.int32))
    return {"codes": np.concatenate(codes), "lengths": np.concatenate(lengths)}


def _joined(shards: list[Arrays]) -> Arrays:
    return {name: np.concatenate([shard[name] for shard in shards]) for name in ("codes", "lengths")}
