"""Clip sets on disk: one memory-mapped array, a row of labels per clip, one manifest that says what made them.

Legend of shapes: N clips, T frames, H x W pixels; clips are uint8 RGB (N, T, H, W, 3) on disk and float
(B, 3, T, H, W) in [0, 1] for a network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from tqdm import tqdm

from evatok.errors import EvatokError, end_quietly
from evatok.storage.files import cache_folder, disk_of, memory_bytes, replacing, reserve, sha256_file, told_bytes

SPLITS = ("train", "validation", "test")

MOST_CLIPS = 1_000_000
"""Clips of an embedded set, ten times as many as the paper scores: more are a slip of the pen, and days of work."""

_LABELS, _SEAL = "labels.csv", "labels_and_manifest_sha256"
_log = logging.getLogger(__name__)

Reel = tuple[np.ndarray, list[dict[str, Any]]]


class ClipSetError(EvatokError, ValueError):
    """A clip set is missing, incomplete or not what its manifest says."""


@dataclass(frozen=True)
class ClipSource:
    """A source that makes clips from numbers.

    Attributes:
        name: the set's name.
        reel_length: clips a reel; a reel is the smallest piece that can be made on its own.
        reel: (stream, number, size, frames) -> (uint8 (reel_length, T, H, W, 3), one dict of labels per clip).
            A module-level function, so that worker processes can import it.
        recipe: every constant that decides the pixels.
        versions: versions of the packages that decide the pixels.
    """

    name: str
    reel_length: int
    reel: Callable[[int, int, int, int], Reel]
    recipe: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class ClipSet:
    """N clips with their labels, the manifest that says where they come from, and the folder they lie in."""

    clips: np.ndarray
    labels: pd.DataFrame
    manifest: dict[str, Any]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def sha256(self) -> str:
        """Hash of all pixels: the set's identity in records."""
        return str(self.manifest["sha256"])

    def head(self, count: int) -> ClipSet:
        """The first `count` clips, under their own hash. Raises ClipSetError for none, or more than there are."""
        if not 1 <= count <= len(self):
            raise ClipSetError(f"clip set {self.name}: {count} clips asked, it has {len(self)}")
        if count == len(self):
            return self
        clips = self.clips[:count]
        manifest = {
            **self.manifest,
            "clips": count,
            "shape": list(clips.shape),
            "sha256": pixels_sha256(clips),
        }
        return ClipSet(clips, self.labels.iloc[:count], manifest, self.folder)


def to_network(clips: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B, 3, T, H, W) in [0, 1]."""
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ClipSetError(f"clips must be uint8 (B, T, H, W, 3), got {clips.dtype} {clips.shape}")
    pixels = torch.from_numpy(np.array(clips)).to(device)
    return rearrange(pixels, "b t h w c -> b c t h w").float().div_(255)


def from_network(pixels: torch.Tensor) -> np.ndarray:
    """Clips (B, 3, T, H, W) in [0, 1] -> uint8 (B, T, H, W, 3), rounded."""
    eight_bits = pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return rearrange(eight_bits, "b c t h w -> b t h w c").cpu().numpy()


def network_batches(
    clips: np.ndarray, batch: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield uint8 clips (N, T, H, W, 3) as float32 (B, 3, T, H, W) in [0, 1], with their indices (B,)."""
    for start in range(0, len(clips), batch):
        pixels = to_network(clips[start : start + batch], device)
        yield pixels, np.arange(start, start + len(pixels))


def pixels_sha256(clips: np.ndarray) -> str:
    """sha256 of shape and pixels, read in pieces so that a memory map stays on disk."""
    digest = hashlib.sha256(str(clips.shape).encode())
    for start in range(0, len(clips), 256):
        digest.update(np.ascontiguousarray(clips[start : start + 256]).data)
    return digest.hexdigest()


def build(
    source: ClipSource,
    split: str,
    count: int,
    *,
    size: int = 64,
    frames: int = 16,
    seed: int = 0,
    workers: int = 2,
    cache: Path | None = None,
) -> ClipSet:
    """The first `count` clips of a split, from the cache or made now; a killed build resumes.

    Splits are separate random streams, so their clips never overlap; a longer set begins with the shorter one.
    Several processes may build the same set at once: each reel is whole or absent, and the last one wins.
    Raises ClipSetError for an unknown split, a negative seed and less than one clip.
    """
    if count < 1:
        raise ClipSetError(f"clip set {source.name}: {count} clips asked, a set has at least one")
    found = cached(source, split, count, size=size, frames=frames, seed=seed, cache=cache)
    if found is not None:
        return load(found).head(count)
    _refuse_too_large(source, count, size, frames, workers, cache or cache_folder())
    folder = (cache or cache_folder()) / f"{_stem(source, split, size, frames, seed)}-{count}"
    manifest = {
        "name": source.name,
        "split": split,
        "seed": seed,
        "recipe": source.recipe,
        "versions": source.versions,
    }
    try:
        labels = _make_reels(source, folder, stream(split, seed), count, size, frames, workers)
        _merge_reels(folder, count, labels, manifest)
    except FileNotFoundError:
        if not (folder / "manifest.json").exists():
            raise  # else another process has finished the same set and cleared its reels away
    shutil.rmtree(folder / "reels", ignore_errors=True)
    return load(folder)


def _refuse_too_large(source: ClipSource, count: int, size: int, frames: int, workers: int, cache: Path) -> None:
    """Raise ClipSetError, before anything is made, for a set that memory or disk cannot hold."""
    asked = f"clip set {source.name}: {count} clips of {frames} frames, {size} x {size} pixels"
    if count > MOST_CLIPS:
        raise ClipSetError(f"{asked}: a set has {MOST_CLIPS} at most; ask for fewer clips")
    clip = frames * size * size * 3
    reel = clip * source.reel_length * min(workers, -(-count // source.reel_length))
    if reel > (memory := memory_bytes()):
        told = f"the reels made at once take {told_bytes(reel)}, this machine has {told_bytes(memory)}"
        raise ClipSetError(f"{asked}: {told}; ask for fewer frames or pixels, or fewer workers")
    while not cache.exists():
        cache = cache.parent
    needed, free = 2 * clip * count, shutil.disk_usage(cache).free  # as reels, then in one file
    if needed > free:
        told = f"making them takes {told_bytes(needed)}, the disk at {disk_of(cache)} has {told_bytes(free)} left"
        raise ClipSetError(f"{asked}: {told}, {told_bytes(needed - free)} are missing; ask for less, or make room")


def stream(split: str, seed: int) -> int:
    """The number of the random stream from which a split's reels are made: no two share one."""
    if split not in SPLITS:
        raise ClipSetError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ClipSetError(f"seed is {seed}: it must be 0 or more")
    return seed * len(SPLITS) + SPLITS.index(split)


def split_of(stream: int) -> str:
    """The split that a random stream belongs to: the inverse of `stream` for any seed."""
    return SPLITS[stream % len(SPLITS)]


def cached(
    source: ClipSource,
    split: str,
    count: int,
    *,
    size: int = 64,
    frames: int = 16,
    seed: int = 0,
    cache: Path | None = None,
) -> Path | None:
    """The shortest complete set in the cache that begins with these clips; None where there is none.

    Raises ClipSetError for an unknown split and a negative seed.
    """
    stream(split, seed)
    cache, stem = cache or cache_folder(), _stem(source, split, size, frames, seed)
    counts = [int(path.parent.name.rsplit("-", 1)[1]) for path in cache.glob(f"{stem}-*/manifest.json")]
    enough = [n for n in counts if n >= count]
    return cache / f"{stem}-{min(enough)}" if enough else None


def save(folder: Path | str, clips: np.ndarray, labels: pd.DataFrame, manifest: dict[str, Any]) -> ClipSet:
    """Write clips from anywhere (decoded videos, say) as a set; the manifest gains shape and hash."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "clips.npy", size=clips.nbytes) as partial, partial.open("wb") as file:
        np.save(file, clips)
    _seal(folder, labels, manifest)
    return load(folder)


def load(folder: Path | str) -> ClipSet:
    """Open a set, and compare every pixel with the manifest's hash, once per process, and the labels with theirs.

    Labels are as they were written: what looks like a number in the column `label` stays a word.

    Raises:
        ClipSetError: no set there, or arrays or labels are not what the manifest says.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        shape, sha256 = manifest["shape"], manifest["sha256"]
        clips = np.load(folder / "clips.npy", mmap_mode="r")
        labels = pd.read_csv(folder / _LABELS, index_col="clip", dtype={"label": str}, keep_default_na=False)
        seal = manifest.pop(_SEAL, None)  # what tells sets apart in records are their pixels
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        told = f"no complete clip set ({type(error).__name__}: {error})"
        raise ClipSetError(f"{folder}: {told}; delete the folder and build it again") from error
    if list(clips.shape) != shape or len(labels) != len(clips):
        raise ClipSetError(f"{folder}: clips {clips.shape}, labels {len(labels)}, manifest says {shape}")
    if _sha256_of_file(folder / "clips.npy", clips) != sha256:
        raise ClipSetError(f"{folder}: pixels do not match the manifest's sha256; delete the folder and build it again")
    if seal is None:
        _log.info("%s was written before sets had a hash of their labels: they cannot be verified", folder)
    elif seal != _seal_of(folder, manifest):
        raise ClipSetError(
            f"{folder}: labels or manifest are not what was written, by the manifest's {_SEAL}; delete the folder and "
            "build it again"
        )
    return ClipSet(clips, labels, manifest, folder)


_hashed: dict[tuple[str, int, int, int], str] = {}


def _sha256_of_file(path: Path, clips: np.ndarray) -> str:
    """`pixels_sha256` of the clips that a file holds, computed once per process for each state of the file."""
    state = path.stat()
    key = (str(path.absolute()), state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _hashed:
        _hashed[key] = pixels_sha256(clips)
    return _hashed[key]


def _stem(source: ClipSource, split: str, size: int, frames: int, seed: int) -> str:
    """The folder's name but for the number of clips."""
    recipe = json.dumps([source.recipe, source.versions], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return f"{source.name}-{key}-{frames}x{size}-{split}-{seed}"


def _make_reels(
    source: ClipSource, folder: Path, stream: int, count: int, size: int, frames: int, workers: int
) -> pd.DataFrame:
    """Make the reels that are not there yet and return the labels of the first `count` clips."""
    reels = folder / "reels"
    reels.mkdir(parents=True, exist_ok=True)
    total = -(-count // source.reel_length)
    jobs = [(source.reel, stream, number, size, frames, reels) for number in range(total)]
    todo = [job for job in jobs if not _is_made(reels, job[2])]
    with tqdm(total=total, initial=total - len(todo), desc=f"{source.name} reels", disable=None) as bar:
        if workers > 1 and len(todo) > 1:
            with multiprocessing.get_context("spawn").Pool(min(workers, len(todo)), end_quietly) as pool:
                for _ in pool.imap_unordered(_make_reel, todo):
                    bar.update()
        else:
            for job in todo:
                _make_reel(job)
                bar.update()
    tables = [pd.read_csv(_reel_path(reels, number).with_suffix(".csv")) for number in range(total)]
    return pd.concat(tables, ignore_index=True).iloc[:count]


def _make_reel(job: tuple[Callable[[int, int, int, int], Reel], int, int, int, int, Path]) -> None:
    make, stream, number, size, frames, reels = job
    clips, labels = make(stream, number, size, frames)
    path = _reel_path(reels, number)
    with replacing(path, size=clips.nbytes) as partial, partial.open("wb") as file:
        np.save(file, clips)
    with replacing(path.with_suffix(".csv")) as partial:
        pd.DataFrame(labels).to_csv(partial, index=False)


def _reel_path(reels: Path, number: int) -> Path:
    return reels / f"{number:06d}.npy"


def _is_made(reels: Path, number: int) -> bool:
    path = _reel_path(reels, number)
    return path.exists() and path.with_suffix(".csv").exists()


def _merge_reels(folder: Path, count: int, labels: pd.DataFrame, manifest: dict[str, Any]) -> None:
    reels = folder / "reels"
    first = np.load(_reel_path(reels, 0), mmap_mode="r")
    shape = (count, *first.shape[1:])
    with replacing(folder / "clips.npy", beside=reels, size=math.prod(shape)) as partial:
        merged = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        reserve(partial, partial.stat().st_size)
        for start in range(0, count, len(first)):
            reel = np.load(_reel_path(reels, start // len(first)))
            merged[start : start + len(reel)] = reel[: count - start]
        merged.flush()
        del merged
    _seal(folder, labels, manifest)


def _seal_of(folder: Path, manifest: dict[str, Any]) -> str:
    """Hash of a set's labels and of all else that its manifest says."""
    told = json.dumps(json.loads(json.dumps(manifest)), sort_keys=True).encode()  # as it is read again
    return hashlib.sha256(sha256_file(folder / _LABELS).encode() + told).hexdigest()


def _seal(folder: Path, labels: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Write the labels and, last, the manifest, whose presence marks the set as complete."""
    clips = np.load(folder / "clips.npy", mmap_mode="r")
    whole = {
        **manifest,
        "clips": len(clips),
        "shape": list(clips.shape),
        "sha256": _sha256_of_file(folder / "clips.npy", clips),
    }
    with replacing(folder / _LABELS) as partial:
        labels.rename_axis("clip").to_csv(partial)
    whole[_SEAL] = _seal_of(folder, whole)
    with replacing(folder / "manifest.json") as partial:
        partial.write_text(json.dumps(whole, indent=2) + "\n")
