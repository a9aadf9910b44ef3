"""Samples of a generator: drawn in shards that an interruption leaves behind, and measured like reconstructions.

A sample depends on its own seed, its class or given frames, and the way of sampling, so shards are named after these
and a longer draw begins with the shorter one. Shards that are missing side by side are drawn by one call, so that the
samples of the next take the room of those that are whole; each is kept as soon as its own samples are. Wall time is
that of the sampling alone: a shard's is the time since the one kept before it.

Legend: N samples, K temporal blocks, M codes in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from evatok import generation, models, tokenizers
from evatok.data.clips import pixels_sha256, to_network
from evatok.evaluation.folders import EvaluationError
from evatok.evaluation.systems import Output, System
from evatok.generation import video_generator
from evatok.generation.grammar import packed_left
from evatok.generation.sampling import Sampling
from evatok.generation.video_generator import VideoGenerator
from evatok.models.precision import autocast
from evatok.search.candidate_table import ranges
from evatok.storage.shards import ShardStore, package_version
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import AdaptiveTokenizer


@dataclass(frozen=True)
class Wish:
    """What is asked of a generator: a class a sample, or clips to go on from, with the seeds and how to sample.

    Attributes:
        classes: (N,) class numbers; None for frame prediction.
        clips: uint8 (N, T, H, W, 3), of which the first frames are given; None for classes.
        seed: of all; sample i draws from (seed, i).
        bf16: autocast of generator and tokenizer.
    """

    video: VideoGenerator
    count: int
    classes: Sequence[int] | None
    clips: np.ndarray | None
    seed: int
    how: Sampling
    batch: int = 64
    cached: bool = True
    bf16: bool = False

    def draw(
        self,
        start: int,
        stop: int,
        tick: Callable[[int], Any] | None = None,
        whole: Callable[[list[int], Codes], Any] | None = None,
    ) -> Codes:
        """Codes of samples [start, stop); `tick` and `whole`, which counts from `start`, as of `sampling.sample`."""
        seeds = [sample_seed(self.seed, number) for number in range(start, stop)]
        more: dict[str, Any] = {"batch": self.batch, "cached": self.cached, "tick": tick, "whole": whole}
        with autocast(self.video.device, self.bf16):
            if self.classes is not None:
                return self.video.generate(self.classes[start:stop], seeds, self.how, **more)
            if self.clips is not None:
                return self.video.predict(self.clips[start:stop], seeds, self.how, **more)
        raise EvaluationError("a wish names classes, or clips to go on from")

    def identity(self) -> dict[str, Any]:
        """What all samples have in common."""
        return {
            "sha256": self.video.checkpoint.sha256,
            "tokenizer": self.video.tokenizer_checkpoint.sha256,
            **asdict(self.how),
            "seed": self.seed,
            "precision": "bf16" if self.bf16 else "fp32",
        }

    def made_by(self, start: int, stop: int) -> dict[str, Any]:
        """Everything that decides samples [start, stop), for the name of their shard, with what decides their time."""
        asked: Any = list(self.classes[start:stop]) if self.classes is not None else None
        if self.clips is not None:
            asked = pixels_sha256(self.clips[start:stop, : video_generator.GIVEN])
        code = package_version(models, tokenizers, generation)
        device = self.video.device.type
        pace = {"batch": self.batch, "cached": self.cached, "device": device, "threads": torch.get_num_threads()}
        return {"what": "samples", "first": start, "asked": asked, **self.identity(), **pace, "code": code}


@dataclass(frozen=True)
class Samples:
    """Codes (N, L) with lengths (N, K), the seconds that sampling them took, and how many an earlier run had left."""

    codes: Codes
    seconds: float
    resumed: int

    @property
    def tokens(self) -> np.ndarray:
        """(N, K) tokens per block."""
        return self.codes.lengths.numpy()


def sample_seed(seed: int, number: int) -> int:
    """The seed of one sample of a draw."""
    return seed * 2**32 + number


def draw(
    wish: Wish,
    store: ShardStore | None = None,
    *,
    shard_length: int = 64,
    tick: Callable[[int], Any] | None = None,
) -> Samples:
    """All samples of a wish, those of `store` taken from there.

    Args:
        tick: called with the number of samples that became whole.

    Raises:
        GenerationError, SamplingError, GrammarError: a wish that the generator cannot grant.
    """
    shards = ranges(wish.count, shard_length)
    found = {shard: store.get(wish.made_by(*shard)) if store else None for shard in shards}
    kept = {shard: arrays for shard, arrays in found.items() if arrays is not None}
    resumed = sum(stop - start for start, stop in kept)
    if tick and resumed:
        tick(resumed)

    def keep(shard: tuple[int, int], arrays: dict[str, np.ndarray]) -> None:
        kept[shard] = arrays
        if store:
            store.put(wish.made_by(*shard), arrays)

    for stretch in _stretches([shard for shard in shards if shard not in kept]):
        wish.draw(stretch[0][0], stretch[-1][1], tick, _Stretch(stretch, keep).add)
    codes, lengths, seconds = (np.concatenate([kept[shard][name] for shard in shards]) for name in _ARRAYS)
    return Samples(packed(codes, lengths), float(seconds.sum()), resumed)


_ARRAYS = ("codes", "lengths", "seconds")


def _stretches(shards: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Shards that are neighbours, together."""
    stretches: list[list[tuple[int, int]]] = []
    for shard in shards:
        if stretches and stretches[-1][-1][1] == shard[0]:
            stretches[-1].append(shard)
        else:
            stretches.append([shard])
    return stretches


class _Stretch:
    """Neighbouring shards that are drawn at once: `keep` is called with each, as soon as its samples are whole."""

    def __init__(
        self, shards: list[tuple[int, int]], keep: Callable[[tuple[int, int], dict[str, np.ndarray]], None]
    ) -> None:
        self.first, self.left, self.keep = shards[0][0], list(shards), keep
        self.whole: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.opened = time.perf_counter()

    def add(self, numbers: list[int], codes: Codes) -> None:
        """Samples `numbers` of the stretch are whole."""
        for number, row, lengths in zip(numbers, codes.codes.cpu().numpy(), codes.lengths.cpu().numpy(), strict=True):
            self.whole[self.first + number] = row[: lengths.sum()], lengths
        for shard in [shard for shard in self.left if all(number in self.whole for number in range(*shard))]:
            self.left.remove(shard)
            self._finish(shard)

    def _finish(self, shard: tuple[int, int]) -> None:
        codes, lengths = zip(*(self.whole.pop(number) for number in range(*shard)), strict=True)
        seconds = np.array([time.perf_counter() - self.opened])
        self.keep(shard, {"codes": np.concatenate(codes), "lengths": np.stack(lengths), "seconds": seconds})
        self.opened = time.perf_counter()  # writing the shard is no sampling


def packed(codes: np.ndarray, lengths: np.ndarray) -> Codes:
    """Codes (M,) of N clips one after another, as codes (N, L) padded with 0, and their lengths (N, K)."""
    counts = torch.from_numpy(lengths).long()
    return Codes(packed_left(torch.from_numpy(codes).long(), counts.sum(1)), counts)


class Generated(System):
    """Generated clips where reconstructions are measured: sample i stands beside the protocol's clip i."""

    def __init__(
        self, clips: np.ndarray, samples: Samples, tokenizer: AdaptiveTokenizer, identity: dict[str, Any]
    ) -> None:
        self.clips, self.codes = clips, samples.codes
        self.identity = {"system": "generator", **identity, "pixels": pixels_sha256(clips)}
        self.codebook_size = tokenizer.config.codebook_size
        self.length_levels = len(tokenizer.config.levels)

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        lengths = self.codes.lengths[indices]
        valid = torch.arange(self.codes.codes.shape[1]) < lengths.sum(1, keepdim=True)
        return Output(to_network(self.clips[indices], clips.device), self.codes.codes[indices][valid], lengths)

    def check(self, count: int, limited: bool) -> None:
        if count != len(self.clips):
            raise EvaluationError(f"{len(self.clips)} samples stand against {count} real clips: take as many of each")
