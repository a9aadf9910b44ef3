"""The fields of a protocol, and how a measurement may deviate from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evatok.data import sets
from evatok.errors import EvatokError
from evatok.metrics.catalogue import OF_SAMPLES

CHOICES = ("made", "first", "random-start", "windows")
RESIZES = {"bilinear-antialias": "bilinear", "bicubic-antialias": "bicubic", "made-at-size": None}


class ProtocolError(EvatokError, ValueError):
    """A protocol that is unknown, inconsistent, or cannot be met with the given data."""


@dataclass(frozen=True)
class Protocol:
    """What to measure, on which clips, and how to prepare them.

    Attributes:
        name, version: a name never changes its meaning; a change of any field is a new version.
        data: an embedded set ("freedoom", "images") or the name of a data set that the user provides.
        data_version: version of an embedded set's recipe; None for user data.
        split: split of the data set.
        clip_choice: "made" (clips of an embedded set, in order), "first" (the start of each video),
            "random-start" (one clip per video, its start drawn from the seed and the video's index), "windows" (drawn
            without replacement from all non-overlapping windows).
        clip_seed: seed of the choice, or of an embedded set.
        clips: N; None if unknown, in which case no measurement is comparable.
        frames: T; 1 for images.
        fps: frames per second picked from a video; None: its own rate.
        stride: take every `stride`-th of these frames.
        size: side in pixels after resizing the shorter side and cropping the centre.
        resize: a key of RESIZES.
        padded: whether a video that is too short repeats its last frame (otherwise it is an error).
        measured_size: side in pixels to which real and reconstructed clips are resized before measuring; None: `size`.
        rounding: whether reconstructions are rounded to 8 bit before measuring.
        metrics: measured by default.
        optional: measured on request.
        networks: (metric, network) of every metric that has one.
        reference: clips of the reference statistics.
        unknown: fields that the source does not state, so that their value is our choice.
        note, citation: for the reader.
    """

    name: str
    version: int
    data: str
    data_version: int | None
    split: str
    clip_choice: str
    clip_seed: int
    clips: int | None
    frames: int
    fps: float | None
    stride: int
    size: int
    resize: str
    padded: bool
    measured_size: int | None
    rounding: bool
    metrics: tuple[str, ...]
    optional: tuple[str, ...]
    networks: tuple[tuple[str, str], ...]
    reference: str
    unknown: tuple[str, ...]
    note: str
    citation: str

    def __post_init__(self) -> None:
        if self.clip_choice not in CHOICES or self.resize not in RESIZES:
            raise ProtocolError(
                f"protocol {self.name}: unknown clip choice {self.clip_choice!r} or resize {self.resize!r}"
            )
        if (self.clip_choice == "made") != self.embedded:
            raise ProtocolError(
                f'protocol {self.name}: clip_choice must be "made" for embedded sets, and only for them'
            )
        if self.clip_choice == "windows" and self.clips is None:
            raise ProtocolError(f"protocol {self.name}: windows are drawn, so their number must be known")

    @property
    def embedded(self) -> bool:
        return self.data in sets.EMBEDDED

    @property
    def reconstructs(self) -> bool:
        """Whether it measures reconstructions of these clips, not samples of a generator."""
        return not set(OF_SAMPLES) & set(self.metrics)

    @property
    def hash(self) -> str:
        """sha256 over every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How the pixels of a clip are prepared for a metric's network."""
        return {"measured_size": self.measured_size, "range": "[0, 1]"}

    def to_record(self, clips_manifest: Mapping[str, Any], count: int, limit: int | None) -> dict[str, Any]:
        """Entry `protocol` of a record: all fields, the hash, the measured clips, and deviations from the protocol."""
        deviating = deviations(self, clips_manifest, count, limit)
        return {
            **asdict(self),
            "hash": self.hash,
            "measured_clips": count,
            "limit": limit,
            "manifest": dict(clips_manifest),
            "deviations": deviating,
            "comparable": not deviating,
        }


def deviations(
    protocol: Protocol, clips_manifest: Mapping[str, Any], count: int, limit: int | None = None
) -> list[str]:
    """List, a phrase each, how `count` clips with this manifest deviate from the protocol."""
    reasons = [f"limited to {limit} clips"] if limit is not None else []
    if protocol.clips is None:
        reasons.append("the protocol's number of clips is not known")
    elif count != protocol.clips:
        reasons.append(f"{count} clips instead of {protocol.clips}")
    actual, expected = _facts(clips_manifest), _expected(protocol)
    differing = [key for key, value in expected.items() if actual[key] != value]
    return reasons + [f"{key} is {actual[key]!r} instead of {expected[key]!r}" for key in differing]


def _facts(clips_manifest: Mapping[str, Any]) -> dict[str, Any]:
    recipe = clips_manifest.get("recipe") or {}
    return {
        "data": clips_manifest.get("name"),
        "split": clips_manifest.get("split"),
        "clip seed": clips_manifest.get("seed"),
        "recipe version": recipe.get("version"),
        "shape of a clip": list(clips_manifest.get("shape", []))[1:],
        "protocol that chose and resized the clips": str(clips_manifest.get("protocol", "none"))[:12],
    }


def _expected(protocol: Protocol) -> dict[str, Any]:
    """Expected `_facts`: of an embedded set its recipe's version, of user videos the protocol that prepared them."""
    expected = {
        "data": protocol.data,
        "split": protocol.split,
        "clip seed": protocol.clip_seed,
        "shape of a clip": [protocol.frames, protocol.size, protocol.size, 3],
    }
    if protocol.embedded:
        return {**expected, "recipe version": protocol.data_version}
    return {**expected, "protocol that chose and resized the clips": protocol.hash[:12]}
