"""Draw samples from a generator in shards that survive an interruption, and measure them like reconstructions.

A sample depends on its seed, its class or given frames, and the sampling options, so shards are keyed by these and a
longer draw reuses the shards of a shorter one. Adjacent missing shards are drawn in one continuous batch; each is
stored as soon as its own samples are finished. Wall time is that of sampling only: a shard's is the time since the
previous one was stored.

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
from evatok.generation import conditions
from evatok.generation.order import OrderedGrammar
from evatok.generation.sampling import Sampling
from evatok.generation.video_generator import VideoGenerator
from evatok.models.precision import autocast
from evatok.storage import ranks
from evatok.storage.shards import ShardStore, Tick, package_version, ranges
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.videoflextok import VideoFlexTok


@dataclass(frozen=True)
class SampleRequest:
    """What to sample: a class or a caption per sample, or clips to continue, with the seed and sampling options.

    Attributes:
        classes: (N,) class indices; None for frame prediction.
        clips: uint8 (N, T, H, W, 3) whose first frames are given; None for classes.
        captions: (N,) texts; None for other tasks.
        seed: of the complete draw; sample i draws from (seed, i).
        bf16: generator weights in bfloat16, and autocast for the tokenizer.
    """

    video: VideoGenerator
    count: int
    classes: Sequence[int] | None
    clips: np.ndarray | None
    seed: int
    options: Sampling
    batch: int = 64
    cached: bool = True
    bf16: bool = False
    captions: Sequence[str] | None = None

    def draw(
        self,
        start: int,
        stop: int,
        tick: Tick | None = None,
        finished: Callable[[list[int], Codes], Any] | None = None,
    ) -> Codes:
        """Draw samples [start, stop); see `sampling.sample` for `tick` and `finished` (indices count from `start`)."""
        seeds = [sample_seed(self.seed, number) for number in range(start, stop)]
        batching: dict[str, Any] = {"batch": self.batch, "cached": self.cached, "tick": tick, "finished": finished}
        video = self.video.in_bf16() if self.bf16 else self.video
        with autocast(video.device, self.bf16):
            if self.classes is not None:
                return video.generate(self.classes[start:stop], seeds, self.options, **batching)
            if self.clips is not None:
                return video.predict(self.clips[start:stop], seeds, self.options, **batching)
            if self.captions is not None:
                return video.illustrate(self.captions[start:stop], seeds, self.options, **batching)
        raise EvaluationError("a sample request needs classes, captions, or clips to continue")

    def identity(self) -> dict[str, Any]:
        """Identity of what all samples share."""
        return {
            "sha256": self.video.checkpoint.sha256,
            "tokenizer": self.video.tokenizer.checkpoint.sha256,
            **asdict(self.options),
            **self._sequences(),
            "seed": self.seed,
            "precision": "bf16" if self.bf16 else "fp32",
        }

    def _sequences(self) -> dict[str, Any]:
        """Return order and length of sequences without length symbols, whose length is requested."""
        grammar = self.video.grammar
        return {"order": grammar.order, "kept": grammar.kept} if isinstance(grammar, OrderedGrammar) else {}

    def made_by(self, start: int, stop: int) -> dict[str, Any]:
        """Key of the shard of samples [start, stop): everything that determines their content and their wall time."""
        asked: Any = list(self.classes[start:stop]) if self.classes is not None else None
        if self.captions is not None:
            asked = list(self.captions[start:stop])
        if self.clips is not None:
            asked = pixels_sha256(self.clips[start:stop, : conditions.GIVEN])
        code = package_version(models, tokenizers, generation)
        device = self.video.device.type
        speed = {"batch": self.batch, "cached": self.cached, "device": device, "threads": torch.get_num_threads()}
        return {"what": "samples", "first": start, "asked": asked, **self.identity(), **speed, "code": code}


@dataclass(frozen=True)
class Samples:
    """A finished draw.

    Attributes:
        codes: (N, L) with lengths (N, K).
        seconds: wall time of the sampling.
        resumed: number of samples that an earlier run had stored.
    """

    codes: Codes
    seconds: float
    resumed: int

    @property
    def tokens(self) -> np.ndarray:
        """(N, K) tokens per block."""
        return self.codes.lengths.numpy()


def sample_seed(seed: int, number: int) -> int:
    """Return the seed of one sample of a draw."""
    return seed * 2**32 + number


def draw(
    request: SampleRequest,
    store: ShardStore | None = None,
    *,
    shard_length: int = 64,
    tick: Tick | None = None,
) -> Samples:
    """Draw all samples of a request, reading those that `store` already holds.

    With several ranks (`evatok.storage.ranks`), each draws its share of the shards and reads the others': a sample
    depends on its own number, not on who draws it.

    Args:
        tick: called with the number of samples that have just finished.

    Raises:
        GenerationError, SamplingError, GrammarError: a request that the generator cannot serve.
    """
    shards = ranges(request.count, shard_length)
    done = _stored(request, store, shards)
    resumed = sum(stop - start for start, stop in done)
    mine = shards if store is None else ranks.part_of(shards)
    ranks.wait()  # otherwise shards drawn meanwhile by other ranks would count as resumed
    if tick and resumed:
        tick(resumed)

    def keep(shard: tuple[int, int], arrays: dict[str, np.ndarray]) -> None:
        done[shard] = arrays
        if store:
            store.put(request.made_by(*shard), arrays)

    for group in _adjacent([shard for shard in mine if shard not in done]):
        request.draw(group[0][0], group[-1][1], tick, ShardGroup(group, keep).add)
    ranks.wait()
    done |= _stored(request, store, [shard for shard in shards if shard not in done])
    codes, lengths, seconds = (np.concatenate([done[shard][name] for shard in shards]) for name in _ARRAYS)
    return Samples(packed(codes, lengths), float(seconds.sum()), resumed)


def _stored(
    request: SampleRequest, store: ShardStore | None, shards: list[tuple[int, int]]
) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Return the stored shards."""
    found = {shard: store.get(request.made_by(*shard)) if store else None for shard in shards}
    return {shard: arrays for shard, arrays in found.items() if arrays is not None}


_ARRAYS = ("codes", "lengths", "seconds")


def _adjacent(shards: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group adjacent shards."""
    groups: list[list[tuple[int, int]]] = []
    for shard in shards:
        if groups and groups[-1][-1][1] == shard[0]:
            groups[-1].append(shard)
        else:
            groups.append([shard])
    return groups


class ShardGroup:
    """Adjacent shards drawn in one batch: `keep` is called with each as soon as its samples are finished."""

    def __init__(
        self, shards: list[tuple[int, int]], keep: Callable[[tuple[int, int], dict[str, np.ndarray]], None]
    ) -> None:
        self.first, self.pending, self.keep = shards[0][0], list(shards), keep
        self.finished: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.started = time.perf_counter()

    def add(self, indices: list[int], codes: Codes) -> None:
        """Add finished samples, their indices counted from the group's first, and keep the shards they complete."""
        for index, row, lengths in zip(indices, codes.codes.cpu().numpy(), codes.lengths.cpu().numpy(), strict=True):
            self.finished[self.first + index] = row[: lengths.sum()], lengths
        for shard in [shard for shard in self.pending if all(index in self.finished for index in range(*shard))]:
            self.pending.remove(shard)
            self._keep(shard)

    def _keep(self, shard: tuple[int, int]) -> None:
        codes, lengths = zip(*(self.finished.pop(index) for index in range(*shard)), strict=True)
        seconds = np.array([time.perf_counter() - self.started])
        self.keep(shard, {"codes": np.concatenate(codes), "lengths": np.stack(lengths), "seconds": seconds})
        self.started = time.perf_counter()  # storing the shard does not count as sampling


def packed(codes: np.ndarray, lengths: np.ndarray) -> Codes:
    """Pad codes (M,) of N clips, stored one after another, to (N, L) by their lengths (N, K)."""
    return Codes.of_flat(torch.from_numpy(codes).long(), torch.from_numpy(lengths).long())


class Generated(System):
    """Generated clips, measured like reconstructions: sample i is compared with the protocol's clip i."""

    def __init__(
        self,
        clips: np.ndarray,
        samples: Samples,
        tokenizer: AdaptiveTokenizer | VideoFlexTok,
        identity: dict[str, Any],
    ) -> None:
        self.clips, self.codes = clips, samples.codes
        self.identity = {"system": "generator", **identity, "pixels": pixels_sha256(clips)}
        self.codebook_size = tokenizer.config.codebook_size
        self.length_levels = 1 if isinstance(tokenizer, VideoFlexTok) else len(tokenizer.config.levels)

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        codes = Codes(self.codes.codes[indices], self.codes.lengths[indices])
        return Output(to_network(self.clips[indices], clips.device), codes.flat, codes.lengths)

    def check(self, count: int, limited: bool) -> None:
        if count != len(self.clips):
            raise EvaluationError(f"{len(self.clips)} samples for {count} real clips: the numbers must be equal")
