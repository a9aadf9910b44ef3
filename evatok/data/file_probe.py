"""What each file of a listing holds, probed once by several processes and cached.

The cache identifies a file by path, size and modification time, so that only new and changed ones are probed again, and
is written during probing: an interrupted probe resumes.

Legend: N rows of a listing.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evatok.data import containers
from evatok.data.decoding import pick_frames
from evatok.data.image_folder import images_in
from evatok.data.probe import VideoError, probe
from evatok.data.workers import Work, in_order
from evatok.storage.files import cache_folder, ordinary, replacing

_STATE = ["path", "start", "size", "changed"]  # identifies a row of the cache
_FOUND = ["held", "reason"]
_UNKNOWN, _NOT_NOW = -2, -1  # in place of a number of frames; neither is cached
_OFTEN = 30.0  # seconds between writes of the cache


@dataclass(frozen=True)
class Held:
    """What the N rows of a listing hold.

    Attributes:
        frames: (N,) frames available from each row's start, no more than asked; 0 for a broken file.
        reasons: (N,) why a file is unreadable; "" if it is readable.
        sizes: (N,) bytes of each file.
    """

    frames: np.ndarray
    reasons: np.ndarray
    sizes: np.ndarray


def held_by(rows: pd.DataFrame, *, frames: int, fps: float | None, workers: int) -> Held:
    """Probe the files of a listing for clips of `frames` at `fps`, unless the cache knows them."""
    states = _states(rows)
    cache = _cache_of(states, frames, fps)
    known = states.merge(_read(cache), how="left", on=_STATE)
    held, reasons = known["held"].fillna(_UNKNOWN).astype(int).to_list(), known["reason"].fillna("").to_list()
    for row in np.flatnonzero(states["changed"].to_numpy() < 0).tolist():
        held[row], reasons[row] = _NOT_NOW, "there is no such file"
    items = [(row, (states["path"][row], states["start"][row])) for row, found in enumerate(held) if found == _UNKNOWN]
    todo, written = _Probing(frames, fps), time.monotonic()
    results = in_order(todo, [item for _, item in items], min(workers, -(-len(items) // 8)), ahead=64)
    for (row, _), result in zip(items, tqdm(results, "probe", len(items), unit="file", disable=None), strict=True):
        held[row], reasons[row] = result
        if time.monotonic() - written > _OFTEN:
            _write(cache, states, held, reasons)
            written = time.monotonic()
    if items:
        _write(cache, states, held, reasons)
    return Held(np.array(held).clip(0), np.array(reasons, dtype=object), states["size"].to_numpy(dtype=np.int64))


class _Probing(Work[tuple[bytes, float], tuple[int, str]]):
    """(path, start) -> frames available from there, and why there are none."""

    def __init__(self, frames: int, fps: float | None) -> None:
        self.frames, self.fps = frames, fps

    def __call__(self, item: tuple[bytes, float]) -> tuple[int, str]:
        path, start = Path(os.fsdecode(item[0])), item[1]
        try:
            if path.is_dir():
                return min(max(0, len(images_in(path)) - int(start)), self.frames), ""
            held = probe(path)
        except VideoError as error:
            return 0, error.reason
        except OSError as error:
            return _NOT_NOW, error.strerror or "it cannot be read"
        return len(pick_frames(held.times, frames=self.frames, fps=self.fps, start=start, lasts=held.lasts)), ""

    def path(self, item: tuple[bytes, float]) -> str:
        return os.fsdecode(item[0])

    def failed(self, item: tuple[bytes, float], reason: str) -> tuple[int, str]:
        return 0, reason


def _states(rows: pd.DataFrame) -> pd.DataFrame:
    sizes, changed = zip(*map(_state, rows["path"]), strict=True)
    paths = [os.fsencode(path) for path in rows["path"]]  # bytes: names need not be UTF-8
    starts = rows["start"].astype(float).to_numpy()
    return pd.DataFrame({"path": pd.Series(paths, dtype=object), "start": starts, "size": sizes, "changed": changed})


def _state(path: str) -> tuple[int, int]:
    """Return size and modification time of a file; -1, -1 if missing."""
    try:
        return containers.state(Path(path))
    except (OSError, ValueError):
        return -1, -1


def _cache_of(states: pd.DataFrame, frames: int, fps: float | None) -> Path:
    """Return one cache file per set of paths: a longer listing has its own, but reuses what a shorter one probed."""
    key = hashlib.sha256(f"{frames} {fps} ".encode())
    key.update(os.path.commonpath(states["path"].tolist()))
    return cache_folder() / "probes" / f"{key.hexdigest()[:16]}.parquet"


def _read(path: Path) -> pd.DataFrame:
    nothing = pd.DataFrame({name: pd.Series(dtype=object) for name in _STATE + _FOUND})
    nothing = nothing.astype({"start": float, "size": np.int64, "changed": np.int64})
    if not path.exists():
        return nothing
    try:
        return pd.read_parquet(ordinary(path))[_STATE + _FOUND]
    except (OSError, ValueError, KeyError):  # damaged: everything is probed again
        return nothing


def _write(path: Path, states: pd.DataFrame, held: list[int], reasons: list[str]) -> None:
    """Add new probe results to the cache."""
    found = states.assign(held=held, reason=reasons)
    both = pd.concat([_read(path), found[found["held"] >= 0]])
    newest = both.drop_duplicates(_STATE[:2], keep="last").astype({"held": np.int64, "reason": str})
    with replacing(path) as partial:
        newest.to_parquet(partial, index=False)
