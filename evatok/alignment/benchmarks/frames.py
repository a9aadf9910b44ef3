"""Evenly spaced frames of a user's video, at its own size and aspect ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evatok.alignment.benchmarks.items import BenchmarkError, Item
from evatok.data.containers import VIDEO_SUFFIXES
from evatok.data.probe import VideoError, opened, probe, tick, upright


def video_of(item: Item, folder: Path) -> Path:
    """Return the file of a question's video.

    Raises:
        BenchmarkError: no such file in the folder.
    """
    path = folder / item.video
    if path.is_file():
        return path
    found = sorted(other for other in path.parent.glob(f"{path.name}.*") if other.suffix.lower() in VIDEO_SUFFIXES)
    if found:
        return found[0]
    below = sorted(folder.rglob(path.name)) + sorted(
        other for other in folder.rglob(f"{path.name}.*") if other.suffix.lower() in VIDEO_SUFFIXES
    )
    if len(below) == 1:
        return below[0]
    told = "no video" if not below else f"{len(below)} videos"
    raise BenchmarkError(f"{folder}: {told} called {item.video} for question {item.name}")


def even_frames(path: Path, count: int, start: float = 0.0, end: float = np.inf) -> np.ndarray:
    """Read `count` frames (T, H, W, 3) uint8 between seconds `start` and `end`, first and last included.

    A video with fewer frames yields all of them.

    Raises:
        VideoError: a file that cannot be read, or none of its frames in these seconds.
    """
    held = probe(path)
    inside = np.flatnonzero((held.times >= start) & (held.times <= end))
    if not len(inside):
        raise VideoError(path, f"no frame between {start:g} and {end:g} seconds")
    picks = inside[np.unique(np.rint(np.linspace(0, len(inside) - 1, min(count, len(inside)))).astype(int))]
    wanted = {int(held.pts[index]) for index in picks}
    key = int(held.keys[held.keys <= min(wanted)].max(initial=held.pts[0]))
    found: dict[int, np.ndarray] = {}
    with opened(path) as (container, stream):
        if key > held.pts[0]:
            container.seek(key, stream=stream)
        for frame in container.decode(stream):
            moment = tick(path, frame)
            if moment in wanted:
                found[moment] = upright(frame)
            if moment >= max(wanted):
                break
    if len(found) < len(wanted):
        raise VideoError(path, f"{len(wanted) - len(found)} of {len(wanted)} chosen frames cannot be decoded")
    return np.stack([found[moment] for moment in sorted(found)])
