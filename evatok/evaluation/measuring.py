"""The loop of an evaluation: clips stream through a system in shards, and what they give is kept.

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
from evatok.evaluation.protocols import Protocol
from evatok.evaluation.summary import (
    DISTRIBUTION,
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
from evatok.metrics.i3d import load_i3d
from evatok.metrics.inception import load_inception
from evatok.metrics.motion import motion_moments
from evatok.metrics.perceptual import perceptual_metric
from evatok.search.candidate_table import ranges
from evatok.storage.records import Metric
from evatok.storage.shards import Arrays, ShardStore, code_version


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: values for a record; the spread of a per-clip mean, or of motion, is half its 95 % bootstrap interval.
        intervals: (low, high) of these intervals.
        per_clip: (N,) values of each per-clip metric, and `tokens` where there are any.
        kept: what a paired comparison needs of every clip, as `evatok.evaluation.per_clip` names it: the values of
            `per_clip`, moments of motion, and I3D's features of what was measured.
        reference: I3D's features of the real clips, under the name `evatok.evaluation.per_clip.REAL`.
        protocol: a record's entry `protocol`.
        model: what was measured, as `System.identity`, with its mean tokens and their histogram, how many clips have
            a PSNR of 100 dB or more, which counts as 100, the networks' weights, and the values that are infinite or
            NaN (motion of clips that do not move) and so in no record.
        resumed: clips whose measurements an earlier run had left.
        damaged: shards, of that run or of the feature cache, that were damaged and made again.
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
    """Measure what `reconstruct` makes of a protocol's clips.

    Besides the metrics, motion is measured wherever clips are reconstructed, and tokens wherever a system gives them.

    Args:
        reconstruct: see `as_system`. Its networks run in evaluation mode meanwhile, and are left as they were.
        clips: the protocol's clips (`protocols.clips_of`), or a folder's.
        metrics: less or, of the optional ones, more than the protocol's own.
        limit: measure the first so many clips alone; the record then says that it cannot be compared.
        networks: frozen networks in place of the published ones, by the name of the perceptual metric, "i3d" or
            "inception"; for tests and for sharing one among several evaluations.
        batch: clips per batch; moves no number by more than rounding.
        work: where measured shards are kept for a later run.
        shard_length: clips a shard, the most that an interruption loses.

    Raises:
        EvaluationError: fewer or more clips than the protocol's without a limit, a metric it lacks, output that is no
            clip in [0, 1].
        WeightsError: a network whose weights cannot be had.
    """
    system, names = as_system(reconstruct), chosen_metrics(protocol, metrics)
    real, facts = _reference(clips, protocol, limit)
    system.check(len(real), limit is not None)
    system.pair(clips.names[: len(real)] if isinstance(clips, FolderClips) and clips.names else None)
    if work is not None and not system.identity:
        raise EvaluationError("only what has an identity can be resumed: Foreign(function, {'name': ...}), or no work")
    nets = load_networks(names, device, networks or {})
    job = _Job(system, real, protocol, names, nets, batch, device)
    kept, cache = ShardStore(work) if work else None, ShardStore.of_features()
    parts = ranges(len(real), shard_length)
    bar = tqdm(total=len(real), desc=f"evaluate {protocol.name}", unit="clip", disable=None)
    with bar, in_evaluation_mode(reconstruct):
        shards = [job.shard(start, stop, kept, bar.update) for start, stop in parts]
    together = _concatenated([arrays for arrays, _ in shards])
    references = {name: job.reference(name, cache, shard_length) for name in _extractors(names)}
    values, intervals = per_clip_values(together, names)
    values |= distribution_values(together, references, names)
    moving, ends = motion_values(together)
    values, intervals = values | moving, intervals | ends
    values |= token_values(together, system, real)
    infinite = {name: str(metric.value) for name, metric in values.items() if not math.isfinite(metric.value)}
    return Evaluation(
        metrics={name: metric for name, metric in values.items() if name not in infinite},
        intervals=intervals,
        per_clip=per_clip_arrays(together, names),
        kept=kept_arrays(together, names),
        reference={per_clip.REAL: references["i3d"]} if "i3d" in references else {},
        protocol=protocol.to_record(facts, len(real), limit),
        model={
            **system.identity,
            **length_facts(together),
            **ceiling_facts(together),
            "networks": {name: dict(net.weights_sha256) for name, net in nets.items()},
            "infinite": infinite,
        },
        resumed=sum(stop - start for (start, stop), (_, found) in zip(parts, shards, strict=True) if found),
        damaged=len(cache.damaged) + len(kept.damaged if kept else []),
    )


def chosen_metrics(protocol: Protocol, metrics: Sequence[str]) -> tuple[str, ...]:
    """The protocol's metrics, or those asked for. Raises EvaluationError for one the protocol does not define."""
    known = (*protocol.metrics, *protocol.optional)
    if "accuracy" in known:
        raise EvaluationError(
            f"protocol {protocol.name} asks questions, which a tokenizer does not answer: see "
            "evatok.experiments.vtok_understanding and python -m evatok.alignment"
        )
    odd = [name for name in metrics if name not in known]
    if odd:
        raise EvaluationError(f"protocol {protocol.name} does not define {odd[0]!r}: it has {', '.join(known)}")
    return tuple(dict.fromkeys(metrics)) or protocol.metrics


def load_networks(metrics: Sequence[str], device: torch.device | str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The frozen networks that these metrics need, in float32; `given` ones are taken as they are.

    Raises:
        WeightsError: weights that cannot be had.
    """
    needed = [name for name in metrics if name in PERCEPTUAL] + _extractors(metrics)
    return {name: given[name] if name in given else _load(name, device) for name in needed}


def _load(name: str, device: torch.device | str) -> Any:
    if name == "i3d":
        return load_i3d(device)
    if name == "inception":
        return load_inception(device)
    return perceptual_metric(PERCEPTUAL[name], device)


def _extractors(metrics: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(DISTRIBUTION[name] for name in metrics if name in DISTRIBUTION))


def _reference(
    clips: ClipSet | FolderClips | np.ndarray, protocol: Protocol, limit: int | None
) -> tuple[Any, dict[str, Any]]:
    """The clips to measure, sliceable to uint8 (n, T, H, W, 3), and their manifest; their number is settled here."""
    held, asked = len(clips), protocol.clips
    if limit is not None and not 1 <= limit <= held:
        raise EvaluationError(f"limit={limit} of {held} clips: it must lie between 1 and the number there is")
    if limit is None and asked is not None and held != asked:
        raise EvaluationError(
            f"protocol {protocol.name} measures {asked} clips, {held} were given: give limit={min(held, asked)} for a "
            "run whose numbers stand in no table"
        )
    count = held if limit is None else limit
    if isinstance(clips, ClipSet):
        part = clips.head(count)
        return part.clips, part.manifest
    if isinstance(clips, FolderClips):
        if clips[:1].dtype != np.uint8:
            raise EvaluationError(f"{clips.folder}: reference clips must be uint8, as videos are")
        return _Head(clips, count), {"name": clips.folder.name, **clips.identity, "shape": [count, *clips.shape]}
    array = clips[:count]
    return array, {"name": "array", "shape": list(array.shape), "sha256": pixels_sha256(array)}


class _Head:
    """The first clips of a folder."""

    def __init__(self, clips: FolderClips, count: int) -> None:
        self.clips, self.count = clips, count
        self.shape = (count, *clips.shape)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, where: slice) -> np.ndarray:
        return self.clips[slice(*where.indices(self.count))]


@dataclass(frozen=True)
class _Job:
    """One system, the reference clips, and everything they are measured with."""

    system: System
    real: Any
    protocol: Protocol
    names: tuple[str, ...]
    nets: dict[str, Any]
    batch: int
    device: torch.device | str

    def shard(self, start: int, stop: int, kept: ShardStore | None, tick: Callable[[int], Any]) -> tuple[Arrays, bool]:
        """Per-clip values, features, codes and lengths of clips [start, stop), and whether they were kept before."""
        real = self.real[start:stop]
        made_by = self.made_by(start, real) if kept else {}
        found = kept.get(made_by) if kept else None
        if found is not None:
            tick(len(real))
            return found, True
        parts = []
        for first in range(0, len(real), self.batch):
            parts.append(self.measure(real[first : first + self.batch], start + first))
            tick(len(real[first : first + self.batch]))
        whole = _concatenated(parts)
        if kept:
            kept.put(made_by, whole)
        return whole, False

    @torch.no_grad()
    def measure(self, real_NTHWC: np.ndarray, start: int) -> Arrays:
        """Everything that is kept of one batch."""
        real = to_network(real_NTHWC, self.device)
        output = self.system(real.clone(), np.arange(start, start + len(real)))
        fake = checked_output(real, output, start)
        if self.protocol.rounding:
            fake = (fake * 255).round() / 255
        arrays: Arrays = {}
        for name, piece in (("codes", output.codes), ("lengths", output.lengths)):
            if piece is not None:
                arrays[name] = piece.cpu().numpy().astype(np.int64)
        real, fake = self.prepare(real), self.prepare(fake)
        for name in self.names:
            if name in PER_CLIP:
                arrays[name] = self.per_clip(name)(real, fake).double().cpu().numpy()
        if self.moves:
            arrays["motion"] = motion_moments(real, fake).cpu().numpy()
        for name in _extractors(self.names):
            arrays[f"features.{name}"] = extract(self.nets[name], fake)
        return arrays

    @property
    def moves(self) -> bool:
        """Whether there is motion to compare: of reconstructions, and of more than one frame."""
        return self.protocol.reconstructs and self.protocol.frames > 1

    def prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (B, 3, T, H, W) at the size at which the protocol measures."""
        size = self.protocol.measured_size
        if size is None or clips.shape[-1] == size:
            return clips
        frames = rearrange(clips, "b c t h w -> (b t) c h w")
        frames = F.interpolate(frames, (size, size), mode="bilinear", align_corners=False, antialias=True)
        return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips)).clamp(0, 1)

    def per_clip(self, name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The function of real and fake clips that gives one value per clip."""
        if name in PERCEPTUAL:
            return self.nets[name]
        return PIXELS[name]

    def reference(self, name: str, cache: ShardStore, shard_length: int) -> np.ndarray:
        """(N * R, D) features of the real clips, from the cache where they are there."""
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

    def made_by(self, start: int, real: np.ndarray) -> dict[str, Any]:
        """Everything that decides a shard's numbers."""
        functions = {name: self.per_clip(name) for name in self.names if name in PER_CLIP}
        return {
            "protocol": self.protocol.hash,
            "system": self.system.identity,
            "first": start,
            "pixels": pixels_sha256(real),
            "metrics": {name: code_version(function) for name, function in functions.items()},
            "motion": code_version(motion_moments) if self.moves else None,
            "weights": {name: dict(net.weights_sha256) for name, net in self.nets.items()},
            "extractors": {name: description(self.nets[name]) for name in _extractors(self.names)},
            "code": code_version(evaluate),
        }


def checked_output(real: torch.Tensor, output: Output, start: int) -> torch.Tensor:
    """The clips of an output, clamped to [0, 1], after making sure that they are such clips.

    Raises:
        EvaluationError: no tensor, another shape, NaN, values outside [0, 1]; lengths that are not one row per clip.
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
        raise EvaluationError(f"{where}: lengths {tuple(lengths.shape)} for {len(real)} clips, (B, K) is needed")
    if codes is not None and (lengths is None or codes.shape != (int(lengths.sum()),)):
        raise EvaluationError(f"{where}: codes {tuple(codes.shape)}, the lengths ask for one per token")
    return output.clips.to(real.device).float().clamp(0, 1)


def _concatenated(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
