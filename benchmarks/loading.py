"""Training over many files: how soon it starts, its memory, and how fast workers decode."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.ratios import Ratio
from benchmarks.setting import Setting
from evatok.data.decoding import Request, decode_clip
from evatok.data.sets import clip_set
from evatok.data.streaming import StreamedClips, Streaming
from evatok.training.loop import batch_indices

FRAMES = 20  # of a file
DISTINCT = 5  # listed files per distinct file: the others are links


def many_files(setting: Setting) -> list[Ratio]:
    """Read a listing of `setting.files` small videos batch by batch, as training does."""
    with tempfile.TemporaryDirectory() as folder, _cache_in(Path(folder) / "cache"):
        listing = make_listing(Path(folder), setting.files, 2 * setting.tokenizer.size)
        before = resident()
        first, _ = seconds_to_first_batch(listing, setting, workers=2)
        cached, clips = seconds_to_first_batch(listing, setting, workers=2)
        plain = decoded_one_by_one(clips, setting)
        one, _ = seconds_per_clip(listing, setting, 1)
        two, after = seconds_per_clip(listing, setting, 2)
        held = max(1, after - before)
    decoded = setting.files * setting.tokenizer.frames * setting.tokenizer.size**2 * 3
    of = f"{setting.files:,} files, on {len(os.sched_getaffinity(0))} cores"
    return [
        Ratio("many_files", "wall_seconds_to_first_batch", first, cached, f"{of}, none probed before, against all"),
        Ratio("many_files", "bytes_held", decoded, held, f"{of} decoded into memory, against what reading them adds"),
        Ratio("many_files", "wall_seconds_per_clip_one_worker", plain, one, f"{of} one by one, against one worker"),
        Ratio("many_files", "wall_seconds_per_clip_two_workers", one, two, f"{of}, one worker against two"),
    ]


def make_listing(folder: Path, files: int, size: int) -> Path:
    """Write the files and a manifest of them; returns its path."""
    generator = np.random.default_rng(0)
    originals = [folder / "files" / f"{number:06d}.mp4" for number in range(-(-files // DISTINCT))]
    originals[0].parent.mkdir()
    for path in originals:
        make_file(path, size, generator)
    paths = [*originals]
    for number in range(len(originals), files):
        paths.append(folder / "files" / f"{number:06d}.mp4")
        os.link(originals[number % len(originals)], paths[-1])
    listing = folder / "listing.csv"
    rows = "".join(f"files/{path.name},train\n" for path in paths)
    listing.write_text(f"path,split\n{rows}")
    return listing


def make_file(path: Path, size: int, generator: np.random.Generator) -> None:
    """Write a video of a small random pattern that drifts."""
    picture = np.kron(
        generator.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((size // 4, size // 4, 1), np.uint8)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(20), options={"preset": "ultrafast"})
        stream.width = stream.height = picture.shape[0]
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            shown = np.ascontiguousarray(np.roll(picture, number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


def seconds_to_first_batch(listing: Path, setting: Setting, workers: int) -> tuple[float, StreamedClips]:
    """Seconds from the listing's name to the first decoded batch, and the clips."""
    began = time.perf_counter()
    clips = opened(listing, setting, workers)
    next(batches(clips, setting))
    return time.perf_counter() - began, clips


def seconds_per_clip(listing: Path, setting: Setting, workers: int) -> tuple[float, int]:
    """Return seconds per clip over some batches, once the workers are running, and bytes in use at the end."""
    clips = opened(listing, setting, workers)
    made, count = batches(clips, setting), 4 * setting.repeats
    next(made)
    began = time.perf_counter()
    for _ in range(count):
        next(made)
    return (time.perf_counter() - began) / (count * setting.batch), resident()


def decoded_one_by_one(clips: StreamedClips, setting: Setting) -> float:
    """Seconds per clip of plain decoding in this process."""
    numbers = batch_indices(clips.listed, setting.batch, 1, 0)
    shape, began = setting.tokenizer, time.perf_counter()
    for number in numbers.tolist():
        first = clips.decode.ends[number - 1] if number else 0
        path = Path(os.fsdecode(clips.decode.names[first : clips.decode.ends[number]]))
        decode_clip(Request(path, shape.frames, shape.size, None, 0.0))
    return (time.perf_counter() - began) / len(numbers)


def opened(listing: Path, setting: Setting, workers: int) -> StreamedClips:
    shape = setting.tokenizer
    found = clip_set(listing, "train", 0, size=shape.size, frames=shape.frames, streaming=Streaming(workers))
    assert isinstance(found.clips, StreamedClips)
    return found.clips


def batches(clips: StreamedClips, setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return clips.batches(lambda step: (0, batch_indices(clips.listed, setting.batch, step, 0)), 0)


def resident() -> int:
    """Return bytes of this process and its children, shared memory counted once; on Linux."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == os.getpgrp():
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):  # it ended meanwhile
            continue
    return total


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("EVATOK_CACHE")
    os.environ["EVATOK_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("EVATOK_CACHE")
        if before is not None:
            os.environ["EVATOK_CACHE"] = before
