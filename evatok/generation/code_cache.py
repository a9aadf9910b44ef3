"""Cache of the codes of complete clip sets, a generator's training data.

Shards of codes are keyed by tokenizer, assignment rule, precision and pixels, so an interrupted encoding resumes where
it stopped and nothing stale is ever read. A clip may be encoded twice, plain and mirrored; which of the two an epoch
uses depends only on (seed, epoch).

Legend: N clips, V variants (1, or 2 with mirroring), K temporal blocks, B clips of a batch, L codes of its
longest clip, M codes in all. Clips are uint8 (N, T, H, W, 3) in a set and float (B, 3, T, H, W) for networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.assignments.rules import Rule
from evatok.data.clips import ClipSet, network_batches, range_sha256
from evatok.errors import EvatokError
from evatok.metrics.features import Sliceable
from evatok.models.precision import autocast
from evatok.storage.files import cache_folder, sha256_file
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, concatenated, digest, ranges
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import AdaptiveTokenizer

VARIANTS_RULE = (
    "variant of clip i in epoch e: the i-th of numpy default_rng(SeedSequence([seed, e, 2])).random(N); below 0.5 the "
    "mirrored one"
)
"""Description of `variants_of_epoch`, for records."""

DECIDING = (
    "assignments/rules.py",
    "models/attention.py",
    "models/convolutions.py",
    "models/dropout.py",
    "models/precision.py",
    "models/quantisers.py",
    "models/trained.py",
    "routing/networks.py",
    "routing/rules.py",
    "routing/statistics.py",
    "routing/trained_router.py",
    "tokenizers/codes.py",
    "tokenizers/config.py",
    "tokenizers/evatok.py",
    "tokenizers/grouping.py",
    "tokenizers/layout.py",
    "tokenizers/networks.py",
    "tokenizers/pooling.py",
)
"""Modules that determine codes: the tokenizer's encoder, and the rules and routers that assign lengths."""
_GROUPS = 4  # groups of clips of similar length per batch


class CodingError(EvatokError, ValueError):
    """Clips that cannot be encoded, have no label, or were not encoded as requested."""


@dataclass(frozen=True)
class Coder:
    """An encoder plus the identity that keys its cache.

    Attributes:
        encode: clips (B, 3, T, H, W) in [0, 1] to codes.
        made_by: identity in JSON types.
    """

    encode: Callable[[torch.Tensor], Codes]
    made_by: dict[str, Any]


@dataclass(frozen=True)
class CodedSet:
    """Codes of N clips in V variants.

    Attributes:
        codes: (M,) of all clips without padding, clip after clip, the plain variant first.
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
        """Mean tokens per clip, over all variants."""
        return float(self.lengths.sum(2).mean())

    @cached_property
    def _starts(self) -> np.ndarray:
        """(V, N) offset of each clip's first code."""
        totals = self.lengths.sum(2).ravel()
        return (np.cumsum(totals) - totals).reshape(self.lengths.shape[:2])

    def batch(self, rows: np.ndarray, variants: np.ndarray | int = 0) -> Codes:
        """Codes (B, L) and lengths (B, K) of clips `rows` (B,), each in its variant (B,): 0 plain, 1 mirrored.

        Raises:
            CodingError: no clip, or a clip or variant out of range.
        """
        rows = np.asarray(rows)
        variants = np.broadcast_to(np.asarray(variants), rows.shape)
        if not (len(rows) and _within(rows, len(self)) and _within(variants, self.variants)):
            raise CodingError(
                f"clips {rows.tolist()} in variants {variants.tolist()} are out of range: there are {len(self)} coded "
                f"clips in {self.variants} variants (the mirrored variant needs flip)"
            )
        lengths = self.lengths[variants, rows]
        totals = lengths.sum(1)
        column = np.arange(totals.max())
        offsets = np.minimum(self._starts[variants, rows][:, None] + column, len(self.codes) - 1)
        codes = np.where(column < totals[:, None], self.codes[offsets], 0).astype(np.int64)
        return Codes(torch.from_numpy(codes), torch.from_numpy(lengths.astype(np.int64)))


def _within(values: np.ndarray, count: int) -> bool:
    return bool(values.min() >= 0 and values.max() < count)


def clip_coder(module: AdaptiveTokenizer, sha256: str, rule: Rule, *, bf16: bool = False) -> Coder:
    """Make an encoder of complete clips from a tokenizer, by its sha256, and an assignment rule."""

    def encode(clips: torch.Tensor) -> Codes:
        lengths = rule(clips)
        with autocast(clips.device, bf16):
            return module.encode(clips, lengths, groups=min(_GROUPS, len(clips)))

    return Coder(encode, made_by(sha256, rule.identity, bf16))


def made_by(sha256: str, rule: dict[str, Any], bf16: bool) -> dict[str, Any]:
    """Key of a tokenizer (sha256) under a rule in the cache, without the pixels."""
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
    tick: Tick | None = None,
) -> CodedSet:
    """Encode a clip set, reading shards that are already cached.

    Args:
        mirrored: encode every clip mirrored left to right as well.
        store: the cache; `code_store()` by default.
        shard_length: clips per shard, the most that an interruption loses.
        tick: called with the number of clips done.
    """

    def key(piece: _Piece) -> dict[str, Any]:
        return {**coder.made_by, "pixels": piece.clips.sha256, "mirrored": piece.mirrored}

    def make(piece: _Piece, tick: Tick) -> Arrays:
        pixels = piece.clips.pixels
        arrays = _encoded(coder, pixels[:, :, :, ::-1] if piece.mirrored else pixels, batch, device)
        tick(size(piece))
        if piece.mirrored == mirrored:  # its last variant
            piece.clips.let_go()
        return arrays

    def size(piece: _Piece) -> int:
        return len(piece.clips) if piece.mirrored == mirrored else 0  # a clip is done with its last variant

    pieces = _pieces(clips, shard_length, (False, True) if mirrored else (False,))
    shards = computed(store or code_store(), pieces, key, make, size=size, tick=tick).shards
    variants = [concatenated(shards[first :: 1 + mirrored]) for first in range(1 + mirrored)]
    codes = np.concatenate([arrays["codes"] for arrays in variants])
    return CodedSet(codes, np.stack([arrays["lengths"] for arrays in variants]))


def code_store() -> ShardStore:
    """The cache of codes."""
    return ShardStore(cache_folder() / "codes")


@lru_cache(maxsize=2)
def _draws(count: int, epoch: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(np.random.SeedSequence([seed, epoch, 2])).random(count) < 0.5).astype(np.int64)


def variants_of_epoch(count: int, epoch: int, seed: int, flip: bool) -> np.ndarray:
    """(count,) variants of the clips in an epoch, 0 plain and 1 mirrored, by VARIANTS_RULE; all 0 without flip."""
    return _draws(count, epoch, seed).copy() if flip else np.zeros(count, dtype=np.int64)


def labels_of(clips: ClipSet, column: str) -> np.ndarray:
    """(N,) class names of a set's clips.

    Args:
        column: of the set's labels. Of several, as in "motion+game", the last one that is not empty for a clip counts:
            the game of an Arcade clip, the motion of a Freedoom clip.

    Raises:
        CodingError: a column that the set does not have, or a clip for which it is empty.
    """
    names = np.full(len(clips), "", dtype=object)
    for part in column.split("+"):
        if part not in clips.labels:
            known = ", ".join(map(str, clips.labels.columns))
            raise CodingError(f"clip set {clips.name} has no label column {part!r}: set label to one of {known}")
        words = clips.labels[part].fillna("").astype(str).str.strip().to_numpy()
        names = np.where(words != "", words, names)
    missing = np.flatnonzero(names == "")
    if len(missing):
        raise CodingError(f"clip set {clips.name}: clip {missing[0]} and {len(missing) - 1} others have no {column}")
    return names.astype(str)


@lru_cache(maxsize=1)
def _code() -> str:
    folder = Path(__file__).parents[1]
    return digest({name: sha256_file(folder / name) for name in DECIDING})


def _encoded(coder: Coder, piece: np.ndarray, batch: int, device: torch.device | str) -> Arrays:
    """Codes (M,) without padding and lengths (n, K) of n clips."""
    codes, lengths = [], []
    for pixels, _ in network_batches(piece, batch, device):
        encoded = coder.encode(pixels)
        codes.append(encoded.flat.cpu().numpy().astype(np.int32))
        lengths.append(encoded.lengths.cpu().numpy().astype(np.int32))
    return {"codes": np.concatenate(codes), "lengths": np.concatenate(lengths)}


@dataclass(frozen=True)
class _Piece:
    """Consecutive clips, to be encoded as they are or mirrored."""

    clips: _Range
    mirrored: bool


@dataclass(frozen=True)
class _Range:
    """Clips [start, stop) of a set, which all variants of a piece share, so that they are read once."""

    of: Sliceable
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def pixels(self) -> np.ndarray:
        """Return uint8 (n, T, H, W, 3)."""
        return self.of[self.start : self.stop]

    def let_go(self) -> None:
        """Free the pixels."""
        self.__dict__.pop("pixels", None)

    @cached_property
    def sha256(self) -> str:
        return range_sha256(self.of, self.start, self.stop)


def _pieces(clips: Sliceable, length: int, variants: tuple[bool, ...]) -> Iterator[_Piece]:
    """Cut a set into pieces, each in all its variants, one after the other."""
    for start, stop in ranges(len(clips), length):
        piece = _Range(clips, start, stop)
        yield from (_Piece(piece, variant) for variant in variants)
