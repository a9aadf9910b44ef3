"""The evaluation loop: clips stream through a system in shards, and the measurements of each shard are stored.

Legend: N clips, B clips of a batch, R rows of features per clip, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from tqdm import tqdm

from evatok.data.clips import ClipSet, pixels_sha256, to_network
from evatok.evaluation import per_clip
from evatok.evaluation.folders import EvaluationError, FolderClips
from evatok.evaluation.modules import in_evaluation_mode
from evatok.evaluation.networks import extractors, load_networks
from evatok.evaluation.protocols import Protocol
from evatok.evaluation.reference import reference_clips
from evatok.evaluation.summary import (
    PER_CLIP,
    PERCEPTUAL,
    PIXELS,
    ceiling_facts,
    distribution_values,
    kept_arrays,
    length_facts,
    motion_values,
    per_clip_arrays,
    per_clip_values,
    token_values,
)
from evatok.evaluation.systems import Output, System, as_system
from evatok.metrics import pixels
from evatok.metrics.features import clip_features, description, extract
from evatok.metrics.motion import motion_moments
from evatok.storage.records import Metric
from evatok.storage.shards import Arrays, ShardStore, Tick, code_version, computed, concatenated, ranges


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: values for a record; the spread of a per-clip mean, or of motion, is half its 95 % bootstrap interval.
        intervals: (low, high) of these intervals.
        per_clip: (N,) values of each per-clip metric, and `tokens` if the system returns tokens.
        kept: what a paired comparison needs of every clip, by the names of `evatok.evaluation.per_clip`: the values of
            `per_clip`, moments of motion, and features of the reconstructions.
        reference: features of the real clips, under their names in `evatok.evaluation.per_clip.EXTRACTED`.
        protocol: a record's entry `protocol`.
        model: a record's entry `model`: `System.identity`, mean tokens and their histogram, the number of clips with a
            PSNR of 100 dB or more (counted as 100), the networks' weights, and values that are infinite or NaN (such as
            motion of still clips) and therefore not in the record.
        resumed: number of clips that an earlier run had measured.
        damaged: number of shards, of that run or of the feature cache, that were damaged and recomputed.
    """

    metrics: dict[str, Metric]
    intervals: dict[str, tuple[float, float]]
    per_clip: dict[str, np.ndarray]
    kept: Arrays
    reference: Arrays
    protocol: dict[str, Any]
    model: dict[str, Any]
    resumed: int
    damaged: int


def evaluate(
    reconstruct: Any,
    clips: ClipSet | FolderClips | np.ndarray,
    protocol: Protocol,
    *,
    metrics: Sequence[str] = (),
    limit: int | None = None,
    networks: Mapping[str, Any] | None = None,
    batch: int = 16,
    device: torch.device | str = "cpu",
    work: Path | None = None,
    shard_length: int = 64,
) -> Evaluation:
    """Measure the reconstructions of a protocol's clips.

    Besides the metrics, motion is measured whenever clips are reconstructed, and tokens whenever a system returns them.

    Args:
        reconstruct: see `as_system`. Its networks run in eval mode, and have their own mode again afterwards.
        clips: the protocol's clips (`protocols.clips_of`), or a folder's.
        metrics: a selection of the protocol's metrics, the optional ones included; by default all but the optional.
        limit: measure only the first `limit` clips; the record then states that it is not comparable.
        networks: frozen networks to use instead of the published ones, by the name of the perceptual metric, "i3d",
            "inception" or "efficientnet"; for tests, and to share them between evaluations.
        batch: clips per batch; changes values only by rounding.
        work: folder in which measured shards are stored, so that a later run can resume.
        shard_length: clips per shard, the most that an interruption loses.

    Raises:
        EvaluationError: not the protocol's number of clips without a limit, a metric it does not define, or output that
            is not clips in [0, 1].
        WeightsError: network weights that are not available.
    """
    system, names = as_system(reconstruct), chosen_metrics(protocol, metrics)
    real, facts = reference_clips(clips, protocol, limit)
    system.check(len(real), limit is not None)
    system.pair(clips.names[: len(real)] if isinstance(clips, FolderClips) and clips.names else None)
    if work is not None and not system.identity:
        raise EvaluationError("resuming (work) needs a system with an identity: use Foreign(function, {'name': ...})")
    nets = load_networks(names, device, networks or {})
    job = _Job(system, real, protocol, names, nets, batch, device)
    kept, cache = ShardStore(work) if work else None, ShardStore.of_features()
    bar = tqdm(total=len(real), desc=f"evaluate {protocol.name}", unit="clip", disable=None)
    with bar, in_evaluation_mode(reconstruct):
        pieces = (_Piece(start, real[start:stop]) for start, stop in ranges(len(real), shard_length))
        measured = computed(kept, pieces, job.made_by, job.shard, tick=bar.update)
    arrays = measured.joined()
    references = {name: job.reference(name, cache, shard_length) for name in extractors(names)}
    values, intervals = _values(arrays, references, names)
    values |= token_values(arrays, system, real)
    infinite = {name: str(metric.value) for name, metric in values.items() if not math.isfinite(metric.value)}
    return Evaluation(
        metrics={name: metric for name, metric in values.items() if name not in infinite},
        intervals=intervals,
        per_clip=per_clip_arrays(arrays, names),
        kept=kept_arrays(arrays, names),
        reference={real: references[name] for name, (_, real) in per_clip.EXTRACTED.items() if name in references},
        protocol=protocol.to_record(facts, len(real), limit),
        model={
            **system.identity,
            **length_facts(arrays),
            **ceiling_facts(arrays),
            "networks": {name: dict(net.weights_sha256) for name, net in nets.items()},
            "infinite": infinite,
        },
        resumed=measured.resumed,
        damaged=len(cache.damaged) + len(kept.damaged if kept else []),
    )


def _values(
    arrays: Arrays, references: dict[str, np.ndarray], names: tuple[str, ...]
) -> tuple[dict[str, Metric], dict[str, tuple[float, float]]]:
    """All metrics but those of tokens, and the intervals of those that have one."""
    values, intervals = per_clip_values(arrays, names)
    motion, motion_intervals = motion_values(arrays)
    return values | distribution_values(arrays, references, names) | motion, intervals | motion_intervals


def chosen_metrics(protocol: Protocol, metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the requested metrics, by default the protocol's. Raises EvaluationError for one it does not define."""
    known = (*protocol.metrics, *protocol.optional)
    if "accuracy" in known:
        raise EvaluationError(
            f"protocol {protocol.name} asks questions, which a tokenizer cannot answer: see "
            "evatok.experiments.vtok_understanding and python -m evatok.alignment"
        )
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise EvaluationError(f"protocol {protocol.name} does not define {unknown[0]!r}: it has {', '.join(known)}")
    return tuple(dict.fromkeys(metrics)) or protocol.metrics


@dataclass(frozen=True)
class _Piece:
    """Consecutive reference clips, uint8 (n, T, H, W, 3), the first of which has the index `start`."""

    start: int
    real: np.ndarray

    def __len__(self) -> int:
        return len(self.real)


@dataclass(frozen=True)
class _Job:
    """One system, the reference clips, and everything needed to measure them."""

    system: System
    real: Any
    protocol: Protocol
    names: tuple[str, ...]
    nets: dict[str, Any]
    batch: int
    device: torch.device | str

    def shard(self, piece: _Piece, tick: Tick) -> Arrays:
        """Measure clips: per-clip values, features, codes and lengths."""
        parts = []
        for start, stop in ranges(len(piece), self.batch):
            parts.append(self.measure(piece.real[start:stop], piece.start + start))
            tick(stop - start)
        return concatenated(parts)

    @torch.no_grad()
    def measure(self, real_NTHWC: np.ndarray, start: int) -> Arrays:
        """Measure one batch."""
        real = to_network(real_NTHWC, self.device)
        output = self.system(real.clone(), np.arange(start, start + len(real)))
        fake = checked_output(real, output, start)
        if self.protocol.rounding:
            fake = (fake * 255).round() / 255
        arrays: Arrays = {}
        for name, tokens in (("codes", output.codes), ("lengths", output.lengths)):
            if tokens is not None:
                arrays[name] = tokens.cpu().numpy().astype(np.int64)
        real, fake = self.prepare(real), self.prepare(fake)
        for name in self.names:
            if name in PER_CLIP:
                arrays[name] = self.per_clip(name)(real, fake).double().cpu().numpy()
        if self.measures_motion:
            arrays["motion"] = motion_moments(real, fake).cpu().numpy()
        for name in extractors(self.names):
            arrays[f"features.{name}"] = extract(self.nets[name], fake)
        return arrays

    @property
    def measures_motion(self) -> bool:
        """Whether motion can be compared: only of reconstructions with more than one frame."""
        return self.protocol.reconstructs and self.protocol.frames > 1

    def prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """Resize clips (B, 3, T, H, W) to the size at which the protocol measures."""
        size = self.protocol.measured_size
        if size is None or clips.shape[-1] == size:
            return clips
        frames = rearrange(clips, "b c t h w -> (b t) c h w")
        frames = F.interpolate(frames, (size, size), mode="bilinear", align_corners=False, antialias=True)
        return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips)).clamp(0, 1)

    def per_clip(self, name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the function of real and fake clips that computes one value per clip."""
        if name in PERCEPTUAL:
            return self.nets[name]
        return PIXELS[name]

    def reference(self, name: str, cache: ShardStore, shard_length: int) -> np.ndarray:
        """(N * R, D) features of the real clips, from the cache if they are there."""
        with tqdm(total=len(self.real), desc=f"{name} of the reference", unit="clip", disable=None) as bar:
            return clip_features(
                self.nets[name],
                self.real,
                cache,
                preprocessing=self.protocol.preprocessing,
                prepare=self.prepare,
                batch=self.batch,
                shard_length=shard_length,
                device=self.device,
                tick=bar.update,
            )

    def made_by(self, piece: _Piece) -> dict[str, Any]:
        """Key of a shard: everything that determines its values."""
        functions = {name: self.per_clip(name) for name in self.names if name in PER_CLIP}
        return {
            "protocol": self.protocol.hash,
            "system": self.system.identity,
            "first": piece.start,
            "pixels": pixels_sha256(piece.real),
            "metrics": {name: code_version(function) for name, function in functions.items()},
            "motion": code_version(motion_moments) if self.measures_motion else None,
            "weights": {name: dict(net.weights_sha256) for name, net in self.nets.items()},
            "extractors": {name: description(self.nets[name]) for name in extractors(self.names)},
            "code": code_version(evaluate),
        }


def checked_output(real: torch.Tensor, output: Output, start: int) -> torch.Tensor:
    """Check an output and return its clips, clamped to [0, 1].

    Raises:
        EvaluationError: clips that are not a tensor, or have the wrong shape, NaN or values outside [0, 1]; lengths or
            codes that do not match the clips.
    """
    where = f"the reconstruction of clips {start}..{start + len(real) - 1}"
    if not isinstance(output.clips, torch.Tensor):
        raise EvaluationError(f"{where} is a {type(output.clips).__name__}, not a tensor (B, 3, T, H, W)")
    try:
        pixels.check_clips(real, output.clips.to(real.device))
    except ValueError as error:
        raise EvaluationError(f"{where}: {error}") from error
    lengths, codes = output.lengths, output.codes
    if lengths is not None and (lengths.ndim != 2 or len(lengths) != len(real)):
        raise EvaluationError(f"{where}: lengths must be (B, K) for {len(real)} clips, got {tuple(lengths.shape)}")
    if codes is not None and (lengths is None or codes.shape != (int(lengths.sum()),)):
        raise EvaluationError(
            f"{where}: codes {tuple(codes.shape)} do not match the lengths, which ask for one code per token"
        )
    return output.clips.to(real.device).float().clamp(0, 1)
