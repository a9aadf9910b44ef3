"""A user's own videos, decoded during training: for sets larger than memory.

`StreamedClips` is indexed like the array (N, T, H, W, 3) of a decoded set. Training takes its batches from `batches`,
which worker processes decode ahead. A batch depends only on the seed, the epoch and the clips' listing indices: not on
the number of workers or on interruptions, and a broken file only affects its own position, which another clip takes.

Legend: L listed clips, N of them readable, B clips of a batch, T frames, H x W pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch

from evatok.data import splits
from evatok.data.clips import ClipSet, ClipSetError
from evatok.data.decoding import Request, check_sampling, decode_clip
from evatok.data.file_probe import Held, held_by
from evatok.data.image_folder import images_in, read_frames_folder
from evatok.data.manifest import few, readable
from evatok.data.probe import VideoError
from evatok.data.workers import Work, in_order
from evatok.storage.files import cache_folder, replacing

SHORT = ("skip", "pad")
_TRIES = 100  # clips tried in place of an undecodable one
_FEW = 16  # clips up to which starting workers does not pay off
_log = logging.getLogger(__name__)

Draw = Callable[[int], tuple[int, np.ndarray]]
"""Step -> its epoch, and the listing indices (B,) of its clips."""


@dataclass(frozen=True)
class Streaming:
    """How a set is streamed.

    Attributes:
        workers: processes that decode.
        random_start: a random part of every video in each epoch, as in LARP and AdapTok; else from its start.
        short: how to treat videos shorter than a clip: "skip", or "pad" with their last frame, as LARP does.
        seed: for the random starts.
    """

    workers: int
    random_start: bool = False
    short: str = "skip"
    seed: int = 0


class _Clip(NamedTuple):
    number: int  # in the listing
    place: float | None


class _Read(NamedTuple):
    """A clip (T, H, W, 3) uint8, or why there is none."""

    number: int
    pixels: torch.Tensor | None
    reason: str


class Decode(Work[_Clip, _Read]):
    """Decodes clips of a listing; paths are concatenated bytes, because workers get a copy."""

    def __init__(self, rows: pd.DataFrame, shape: tuple[int, int], fps: float | None, pad: bool) -> None:
        names = [os.fsencode(path) for path in rows["path"]]
        self.names, self.ends = b"".join(names), np.cumsum([len(name) for name in names])
        self.starts = rows["start"].astype(float).to_numpy()
        (self.frames, self.size), self.fps, self.pad = shape, fps, pad

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, item: _Clip) -> str:
        first = self.ends[item.number - 1] if item.number else 0
        return os.fsdecode(self.names[first : self.ends[item.number]])

    def failed(self, item: _Clip, reason: str) -> _Read:
        return _Read(item.number, None, reason)

    def __call__(self, item: _Clip) -> _Read:
        path, start = Path(self.path(item)), self.starts[item.number]
        try:
            if path.is_dir():
                pixels = self._images(path, int(start), item.place)
            else:
                request = Request(path, self.frames, self.size, self.fps, float(start), item.place, self.pad)
                pixels = decode_clip(request)
            return _Read(item.number, torch.from_numpy(np.ascontiguousarray(pixels)), "")
        except VideoError as error:
            return self.failed(item, error.reason)
        except OSError as error:
            return self.failed(item, error.strerror or "it cannot be read")

    def _images(self, path: Path, start: int, place: float | None) -> np.ndarray:
        if self.fps is not None:
            raise VideoError(path, f"a folder of images has no timestamps to sample at {self.fps:g} fps; set fps=None")
        held = len(images_in(path)) - start
        if place is not None:
            start += int(place * (max(0, held - self.frames) + 1))
        frames = min(held, self.frames) if self.pad else self.frames
        pixels = read_frames_folder(path, frames=frames, size=self.size, start=start)
        return np.pad(pixels, ((0, self.frames - frames), *((0, 0),) * 3), mode="edge")


class StreamedClips:
    """N readable clips of L listed ones, uint8 (N, T, H, W, 3) when indexed."""

    ndim, dtype = 5, np.dtype(np.uint8)

    def __init__(self, decode: Decode, readable: np.ndarray, how: Streaming, identity: str) -> None:
        """`readable`: (N,) listing indices; `identity`: of the set, replacing a hash of its pixels."""
        self.decode, self.readable, self.how, self.identity = decode, readable, how, identity
        self.row_of = np.full(len(decode), -1)  # set row of each listing index
        self.row_of[readable] = np.arange(len(readable))
        self.broken: dict[str, str] = {}  # found while decoding, not by the probe
        self._series: tuple[int, Iterator[_Read]] | None = None  # the row it yields next

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        size = self.decode.size
        return (len(self), self.decode.frames, size, size, 3)

    @property
    def listed(self) -> int:
        return len(self.decode)

    def __len__(self) -> int:
        return len(self.readable)

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        """Decode clips from their starts. Raises VideoError for one that cannot be decoded."""
        rows = np.arange(len(self))[key]
        if rows.ndim == 0:
            return self[rows[None]][0]
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, read in enumerate(itertools.islice(self._reads(rows), len(rows))):
            if read.pixels is None:
                path = self.decode.path(_Clip(read.number, None))
                raise VideoError(path, f"{read.reason}; leave it out of the listing")
            pixels[place] = read.pixels.numpy()
        return pixels

    def batches(self, draw: Draw, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield clips (B, T, H, W, 3) and their rows (B,) in the set, step by step from `start`, endlessly."""
        numbers = len(draw(start)[1])
        items = (item for step in itertools.count(start) for item in self._items(*draw(step)))
        reads = in_order(self.decode, items, self.how.workers, ahead=2 * numbers)
        for step in itertools.count(start):
            epoch, drawn = draw(step)
            pixels, rows = np.empty((len(drawn), *self.shape[1:]), np.uint8), np.empty(len(drawn), np.int64)
            for place, read in enumerate(itertools.islice(reads, len(drawn))):
                number, found = self._surely(read, epoch)
                pixels[place], rows[place] = found.numpy(), self.row_of[number]
            yield pixels, rows

    def _items(self, epoch: int, numbers: np.ndarray) -> Iterator[_Clip]:
        for number in numbers.tolist():
            chosen = number if self.row_of[number] >= 0 else self._instead(number, epoch, 0)
            yield _Clip(chosen, self._place(chosen, epoch))

    def _place(self, number: int, epoch: int) -> float | None:
        return self._draw(epoch, number, 0) / 2**32 if self.how.random_start else None

    def _instead(self, number: int, epoch: int, attempt: int) -> int:
        """Return the replacement of a broken clip in an epoch."""
        return int(self.readable[self._draw(epoch, number, 1 + attempt) % len(self)])

    def _draw(self, *what: int) -> int:
        return int(np.random.SeedSequence([self.how.seed, *what, 3]).generate_state(1)[0])

    def _surely(self, read: _Read, epoch: int) -> tuple[int, torch.Tensor]:
        """Return the clip, or its replacement if it cannot be decoded after all."""
        number = read.number
        for attempt in range(_TRIES):
            if read.pixels is not None:
                return read.number, read.pixels
            self._note(read)
            other = self._instead(number, epoch, 1 + attempt)
            (read,) = in_order(self.decode, [_Clip(other, self._place(other, epoch))], 0, ahead=1)
        raise ClipSetError(f"{_TRIES} clips in a row cannot be decoded, {self.decode.path(_Clip(number, None))} first")

    def _note(self, read: _Read) -> None:
        path = readable(self.decode.path(_Clip(read.number, None)))
        if path not in self.broken:
            self.broken[path] = read.reason
            _log.warning("%s: %s; another clip takes its place (%d so far)", path, read.reason, len(self.broken))

    def _reads(self, rows: np.ndarray) -> Iterator[_Read]:
        """Read rows of the set; for sequential reads, the next ones are decoded ahead."""
        consecutive = len(rows) > 1 and bool((np.diff(rows) == 1).all())
        if not consecutive:
            items = [_Clip(int(self.readable[row]), None) for row in rows]
            yield from in_order(self.decode, items, self.how.workers if len(rows) > _FEW else 0, ahead=64)
            return
        following, reads = self._series or (-1, iter(()))
        if following != rows[0]:
            rest = (_Clip(int(number), None) for number in self.readable[rows[0] :])
            reads = in_order(self.decode, rest, self.how.workers if len(rows) > _FEW else 0, ahead=64)
        self._series = None
        yield from itertools.islice(reads, len(rows))
        if rows[-1] + 1 < len(self):
            self._series = (int(rows[-1]) + 1, reads)

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamedClips, (self.decode, self.readable, self.how, self.identity)


def stream(
    path: Path | str, split: str, how: Streaming, *, size: int, frames: int, fps: float | None, count: int = 0
) -> ClipSet:
    """Stream the clips of a split of a manifest or a folder of class folders.

    The files are probed first, once (`file_probe`); those that are missing, broken or, unless padded, too short are
    counted and named, and left out. The set's identity is that of its listing, sizes and lengths, not of its pixels.

    Args:
        count: the first readable clips; 0: all.

    Raises:
        ManifestError, ClipSetError: as `splits.rows_of` does; a set none of whose files can be read, or fewer clips
            than asked.
    """
    check_sampling(frames=frames, size=size, fps=fps)
    rows, made_by = splits.rows_of(path, split, missing=True)
    held = held_by(rows, frames=frames, fps=fps, workers=how.workers)
    least = 1 if how.short == "pad" else frames
    found = np.flatnonzero(held.frames >= least)
    if count:
        if len(found) < count:
            told = f"{count} clips requested, it has {len(found)} of {frames} frames ({len(rows)} files are listed)"
            raise ClipSetError(f"clip set {splits.name_of(path)}: {told}")
        rows, found = rows.iloc[: found[count - 1] + 1], found[:count]
    failures = _failures(rows, held, least)
    if not len(found):
        first, reason = failures.iloc[0]
        raise ClipSetError(f"{path}: none of {len(rows)} clips can be read; the first, {readable(first)}: {reason}")
    facts: dict[str, Any] = {
        "name": splits.name_of(path),
        "split": split,
        "splits_by": made_by,
        "fps": fps,
        "failures": len(failures),
    }
    facts |= {"streamed": {"listed": len(rows), "random_start": how.random_start, "short": how.short}}
    facts |= {"clips": len(found), "shape": [len(found), frames, size, size, 3]}
    facts["sha256"] = identity = _identity(path, rows, held, facts)
    _tell(path, failures, rows, found, identity)
    clips = StreamedClips(Decode(rows, (frames, size), fps, how.short == "pad"), found, how, identity)
    labels = rows.iloc[found].drop(columns="path").reset_index(drop=True).rename_axis("clip")
    return ClipSet(cast(np.ndarray, clips), labels, facts)


def _failures(rows: pd.DataFrame, held: Held, least: int) -> pd.DataFrame:
    """Return path and reason of each row without a clip."""
    frames, reasons = held.frames[: len(rows)], held.reasons[: len(rows)]
    out = np.flatnonzero(frames < least)
    told = [reasons[row] or f"it holds {frames[row]} of the {least} frames needed" for row in out]
    return pd.DataFrame({"path": rows["path"].iloc[out].to_numpy(dtype=object), "reason": told})


def _tell(path: Path | str, failures: pd.DataFrame, rows: pd.DataFrame, found: np.ndarray, sha256: str) -> None:
    """Log what is skipped and where it is listed, and classes without any clip left."""
    if failures.empty:
        return
    listing = cache_folder() / "probes" / f"{sha256[:16]}-failures.csv"
    with replacing(listing) as partial:
        failures.to_csv(partial, index=False, errors="replace")
    named = few([f"{Path(readable(file)).name} ({reason})" for file, reason in failures.head(4).to_numpy()])
    _log.warning("%s: %d of %d clips are left out, listed in %s: %s", path, len(failures), len(rows), listing, named)
    bare = sorted(set(rows["label"]) - set(rows["label"].iloc[found]))
    if bare:
        _log.warning("%s: no clip is left of %s", path, few(bare))


def _identity(path: Path | str, rows: pd.DataFrame, held: Held, facts: dict[str, Any]) -> str:
    """Hash everything that determines the set's clips, independent of its folder's location."""
    root = splits.root_of(path)
    told = {key: facts[key] for key in ("split", "fps", "streamed", "clips", "shape")}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for file, start, label, state in zip(
        rows["path"], rows["start"], rows["label"], zip(held.sizes, held.frames, strict=True), strict=False
    ):
        digest.update(b"%s %r %d %d " % (os.fsencode(os.path.relpath(file, root)), float(start), *state))
        digest.update(str(label).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
