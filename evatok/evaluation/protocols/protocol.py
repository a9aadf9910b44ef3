"""What a protocol is, and in what a measurement may differ from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evatok.data import sets
from evatok.errors import EvatokError

CHOICES = ("made", "first", "random-start", "windows")
RESIZES = {"bilinear-antialias": "bilinear", "bicubic-antialias": "bicubic", "made-at-size": None}


class ProtocolError(EvatokError, ValueError):
    """A protocol that is not known, contradicts itself, or cannot be met with what was given."""


@dataclass(frozen=True)
class Protocol:
    """What is measured, on which clips, made how.

    Attributes:
        name, version: a name means the same for ever; a change of any field is another version.
        data: an embedded set ("freedoom", "arcade") or the name of a data set that the user brings.
        data_version: version of an embedded set's recipe; None for brought data.
        split: the part of it.
        clip_choice: "made" (clips of an embedded set, in order), "first" (the start of each video),
            "random-start" (one clip a video, its start drawn from the seed and the video's index), "windows" (drawn
            without replacement from all windows that do not overlap).
        clip_seed: of the choice, or of an embedded set.
        clips: N; None where it is not known, and then no measurement is comparable.
        frames: T.
        fps: frames a second picked from a video; None: its own.
        stride: every how manieth of these frames is taken.
        size: pixels a side after resizing the shorter side and cutting out the centre.
        resize: a key of RESIZES.
        padded: whether a video that is too short repeats its last frame (else it is an error).
        measured_size: pixels a side to which both sides are brought before anything is measured; None: `size`.
        rounding: whether reconstructions are rounded to 8 bit before measuring.
        metrics: what is measured unless less is asked for.
        optional: what may be asked for besides.
        networks: (metric, network) of every metric that has one.
        reference: which clips the reference statistics are of.
        unknown: what the source leaves open, so that the value here is ours.
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
            raise ProtocolError(f"protocol {self.name}: no clip choice {self.clip_choice!r} or resize {self.resize!r}")
        if (self.clip_choice == "made") != self.embedded:
            raise ProtocolError(f"protocol {self.name}: embedded sets, and they alone, come with clip_choice made")
        if self.clip_choice == "windows" and self.clips is None:
            raise ProtocolError(f"protocol {self.name}: windows are drawn, so their number must be known")

    @property
    def embedded(self) -> bool:
        return self.data in sets.EMBEDDED

    @property
    def reconstructs(self) -> bool:
        """Whether what is measured are reconstructions of these very clips, and not samples of a generator."""
        return "gfvd" not in self.metrics

    @property
    def hash(self) -> str:
        """sha256 over every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to the pixels of a chosen clip before a metric's network sees them."""
        return {"measured_size": self.measured_size, "range": "[0, 1]"}

    def to_record(self, clips_manifest: Mapping[str, Any], count: int, limit: int | None) -> dict[str, Any]:
        """The entry `protocol` of a record: all fields, the hash, the clips measured, and whether that meets it."""
        odd = deviations(self, clips_manifest, count, limit)
        return {
            **asdict(self),
            "hash": self.hash,
            "measured_clips": count,
            "limit": limit,
            "manifest": dict(clips_manifest),
            "deviations": odd,
            "comparable": not odd,
        }


def deviations(
    protocol: Protocol, clips_manifest: Mapping[str, Any], count: int, limit: int | None = None
) -> list[str]:
    """In what `count` clips with this manifest differ from what the protocol asks, a sentence each; [] in nothing."""
    told = [f"limited to {limit} clips"] if limit is not None else []
    if protocol.clips is None:
        told.append("the protocol's number of clips is not known")
    elif count != protocol.clips:
        told.append(f"{count} clips instead of {protocol.clips}")
    found, wanted = _facts(clips_manifest), _wanted(protocol)
    told += [f"{key} is {found[key]!r} instead of {value!r}" for key, value in wanted.items() if found[key] != value]
    return told


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


def _wanted(protocol: Protocol) -> dict[str, Any]:
    """What `_facts` should be; an embedded set is what its recipe says, brought videos are what we made of them."""
    wanted = {
        "data": protocol.data,
        "split": protocol.split,
        "clip seed": protocol.clip_seed,
        "shape of a clip": [protocol.frames, protocol.size, protocol.size, 3],
    }
    if protocol.embedded:
        return {**wanted, "recipe version": protocol.data_version}
    return {**wanted, "protocol that chose and resized the clips": protocol.hash[:12]}
