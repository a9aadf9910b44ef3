"""Embedded sets, rendered reel by reel in worker processes; a killed build resumes.

A reel is a fixed number of clips drawn from one random stream.

Legend: N clips, T frames, H x W pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import multiprocessing
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from evatok.data.clips import SPLITS, ClipSet, ClipSetError, load, seal
from evatok.errors import end_quietly
from evatok.storage.files import cache_folder, disk_of, memory_bytes, replacing, reserve, told_bytes

MOST_CLIPS = 1_000_000
"""Maximum clips of an embedded set, ten times as many as the paper scores: more are a typo, and days of work."""
_ENDS = 30.0  # seconds for a rendering process to clean up and end

Reel = tuple[np.ndarray, list[dict[str, Any]]]


@dataclass(frozen=True)
class ClipSource:
    """A source that renders clips from indices.

    Attributes:
        name: the set's name.
        reel_length: clips per reel, the smallest unit that can be rendered on its own.
        reel: (stream, number, size, frames) -> (uint8 (reel_length, T, H, W, 3), one dict of labels per clip).
            A module-level function, so that worker processes can import it.
        recipe: every constant that determines the pixels.
        versions: versions of the packages that determine the pixels.
    """

    name: str
    reel_length: int
    reel: Callable[[int, int, int, int], Reel]
    recipe: dict[str, Any]
    versions: dict[str, str]


class Job(NamedTuple):
    """A reel to render, and its folder."""

    make: Callable[[int, int, int, int], Reel]
    stream: int
    number: int
    size: int
    frames: int
    folder: Path


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
    """Return the first `count` clips of a split, cached or rendered now; a killed build resumes.

    Splits are separate random streams, so their clips never overlap; a longer set begins with the shorter one. Several
    processes may build the same set at once: each reel is complete or absent, and the last one wins. Raises
    ClipSetError for an unknown split, a negative seed and fewer than one clip.
    """
    if count < 1:
        raise ClipSetError(f"clip set {source.name}: the number of clips must be at least 1, got {count}")
    found = cached(source, split, count, size=size, frames=frames, seed=seed, cache=cache)
    if found is not None:
        shutil.rmtree(found / "reels", ignore_errors=True)  # left by a build killed at its end
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
            raise  # otherwise another process has finished the same set and removed its reels
    shutil.rmtree(folder / "reels", ignore_errors=True)
    return load(folder)


def _refuse_too_large(source: ClipSource, count: int, size: int, frames: int, workers: int, cache: Path) -> None:
    """Raise ClipSetError, before rendering, for a set that exceeds memory or disk."""
    asked = f"clip set {source.name}: {count} clips of {frames} frames, {size} x {size} pixels"
    if count > MOST_CLIPS:
        raise ClipSetError(f"{asked}: a set has at most {MOST_CLIPS}; request fewer")
    clip = frames * size * size * 3
    reel = clip * source.reel_length * min(workers, -(-count // source.reel_length))
    if reel > (memory := memory_bytes()):
        told = f"the reels made at once take {told_bytes(reel)}, this machine has {told_bytes(memory)}"
        raise ClipSetError(f"{asked}: {told}; use fewer frames, pixels or workers")
    while not cache.exists():
        cache = cache.parent
    needed, free = 2 * clip * count, shutil.disk_usage(cache).free  # as reels, then in one file
    if needed > free:
        told = f"making them takes {told_bytes(needed)}, the disk at {disk_of(cache)} has {told_bytes(free)} left"
        raise ClipSetError(
            f"{asked}: {told}, {told_bytes(needed - free)} are missing; request fewer clips, or free some space"
        )


def stream(split: str, seed: int) -> int:
    """Return the index of the random stream of a split's reels: no two splits share one."""
    if split not in SPLITS:
        raise ClipSetError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ClipSetError(f"seed is {seed}: it must be 0 or more")
    return seed * len(SPLITS) + SPLITS.index(split)


def split_of(stream: int) -> str:
    """Return the split of a random stream: the inverse of `stream` for any seed."""
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
    """Return the shortest complete cached set that starts with these clips; None if there is none.

    Raises ClipSetError for an unknown split and a negative seed.
    """
    stream(split, seed)
    cache, stem = cache or cache_folder(), _stem(source, split, size, frames, seed)
    counts = [int(path.parent.name.rsplit("-", 1)[1]) for path in cache.glob(f"{stem}-*/manifest.json")]
    enough = [n for n in counts if n >= count]
    return cache / f"{stem}-{min(enough)}" if enough else None


def _stem(source: ClipSource, split: str, size: int, frames: int, seed: int) -> str:
    """Return the folder's name without the number of clips."""
    recipe = json.dumps([source.recipe, source.versions], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return f"{source.name}-{key}-{frames}x{size}-{split}-{seed}"


def _make_reels(
    source: ClipSource, folder: Path, stream: int, count: int, size: int, frames: int, workers: int
) -> pd.DataFrame:
    """Render the missing reels and return the labels of the first `count` clips."""
    reels = folder / "reels"
    reels.mkdir(parents=True, exist_ok=True)
    total = -(-count // source.reel_length)
    jobs = [Job(source.reel, stream, number, size, frames, reels) for number in range(total)]
    todo = [job for job in jobs if not _is_made(reels, job.number)]
    with tqdm(total=total, initial=total - len(todo), desc=f"{source.name} reels", disable=None) as bar:
        for _ in _in_processes(todo, workers) if workers > 1 and len(todo) > 1 else map(_make_reel, todo):
            bar.update()
    tables = [pd.read_csv(_reel_path(reels, number).with_suffix(".csv")) for number in range(total)]
    return pd.concat(tables, ignore_index=True).iloc[:count]


def _in_processes(todo: list[Job], workers: int) -> Iterator[None]:
    """Render reels in processes, each with its own pipe; yields as each reel is finished.

    Neither standard library pool works: one waits forever for the reel of a killed worker, the other's workers outlive
    a killed parent. Raises what making a reel raises, and ClipSetError where a process ends before its reel is made.
    """
    context = multiprocessing.get_context("spawn")  # forking after torch started its threads can deadlock
    makers: dict[Connection, BaseProcess] = {}
    under_way: dict[Connection, Job] = {}
    waiting = iter(todo)

    def ask(pipe: Connection) -> None:
        for job in itertools.islice(waiting, 1):
            under_way[pipe] = job
            with suppress(OSError):  # its process is gone, which is reported when its answer is read
                pipe.send(job)

    try:
        for _ in range(min(workers, len(todo))):
            ours, theirs = context.Pipe()
            makers[ours] = context.Process(target=_make_as_asked, args=(theirs,), daemon=True)
            makers[ours].start()
            theirs.close()  # so that the pipe closes when its process ends
            ask(ours)
        while under_way:
            for pipe in wait(list(under_way)):
                assert isinstance(pipe, Connection)
                _raise_failure(pipe, makers[pipe], under_way.pop(pipe))
                yield
                ask(pipe)
    finally:
        for pipe, maker in makers.items():
            pipe.close()
            if pipe in under_way:
                maker.terminate()
        for maker in makers.values():
            maker.join(_ENDS)
            maker.kill()
            maker.join()


def _raise_failure(pipe: Connection, maker: BaseProcess, job: Job) -> None:
    """Raise what a process reports as its failure, if anything."""
    try:
        error = pipe.recv()
    except (EOFError, OSError):
        maker.join()
        code = maker.exitcode or 0
        told = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        way_out = "the reels that are made are kept: run the command again, with fewer workers if memory was short"
        raise ClipSetError(f"the process that made reel {job.number} {told}; {way_out}") from None
    if error is not None:
        raise error


def _make_as_asked(pipe: Connection) -> None:
    """In a worker: render the requested reels, answering None or the error for each, until the pipe closes."""
    end_quietly()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        error = None
        try:
            _make_reel(job)
        except Exception as raised:
            raised.add_note(traceback.format_exc())  # traceback objects cannot be sent
            error = raised
        with suppress(OSError):  # the parent is gone; the closed pipe ends the loop above
            pipe.send(error)


def _make_reel(job: Job) -> None:
    clips, labels = job.make(job.stream, job.number, job.size, job.frames)
    path = _reel_path(job.folder, job.number)
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
    seal(folder, labels, manifest)
