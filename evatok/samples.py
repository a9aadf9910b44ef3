"""Samples of a generator: drawn in shards that an interruption leaves behind, and measured like reconstructions.

A sample depends on its own seed, its class or given frames, and the way of sampling, so shards are named after these
and a longer draw begins with the shorter one. Wall time is that of the sampling alone, kept with each shard.

Legend: N samples, K temporal blocks, M codes in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from evatok import generation, models, sampling
from evatok.curation import ranges
from evatok.data.clips import pixels_sha256, to_network
from evatok.evaluation.folders import EvaluationError
from evatok.evaluation.systems import Output, System
from evatok.features import ShardStore, code_version, package_version
from evatok.generation import VideoGenerator
from evatok.models.tokenizer import AdaptiveTokenizer, Codes
from evatok.sampling import Sampling


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

    def draw(self, start: int, stop: int, tick: Callable[[int], Any] | None = None) -> Codes:
        """Codes of samples [start, stop)."""
        seeds = [sample_seed(self.seed, number) for number in range(start, stop)]
        more: dict[str, Any] = {"batch": self.batch, "cached": self.cached, "tick": tick}
        with autocast(self.video, self.bf16):
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
            asked = pixels_sha256(self.clips[start:stop, : generation.GIVEN])
        code = [package_version(models), code_version(sampling.sample), code_version(generation.condition_codes)]
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
        """(N, K) tokens a block."""
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
    codes, lengths, seconds, resumed = [], [], 0.0, 0
    for start, stop in ranges(wish.count, shard_length):
        made_by = wish.made_by(start, stop)
        found = store.get(made_by) if store else None
        if found is None:
            found = _drawn(wish, start, stop, tick)
            if store:
                store.put(made_by, found)
        else:
            resumed += stop - start
            if tick:
                tick(stop - start)
        codes.append(found["codes"])
        lengths.append(found["lengths"])
        seconds += float(found["seconds"][0])
    return Samples(packed(np.concatenate(codes), np.concatenate(lengths)), seconds, resumed)


def _drawn(wish: Wish, start: int, stop: int, tick: Callable[[int], Any] | None) -> dict[str, np.ndarray]:
    opened = time.perf_counter()
    made = wish.draw(start, stop, tick)
    codes, lengths = made.codes.cpu(), made.lengths.cpu()  # waits for the device
    seconds = time.perf_counter() - opened
    valid = torch.arange(codes.shape[1]) < lengths.sum(1, keepdim=True)
    return {"codes": codes[valid].numpy(), "lengths": lengths.numpy(), "seconds": np.array([seconds])}


def packed(codes: np.ndarray, lengths: np.ndarray) -> Codes:
    """Codes (M,) of N clips one after another, as codes (N, L) padded with 0, and their lengths (N, K)."""
    counts = torch.from_numpy(lengths).sum(1)
    valid = torch.arange(int(counts.max())) < counts[:, None]
    padded = torch.zeros(valid.shape, dtype=torch.int64)
    padded[valid] = torch.from_numpy(codes).long()
    return Codes(padded, torch.from_numpy(lengths).long())


def autocast(video: VideoGenerator, bf16: bool) -> AbstractContextManager[Any]:
    """bfloat16 autocast on the generator's device if `bf16`."""
    return torch.autocast(video.device.type, torch.bfloat16, enabled=bf16)


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
