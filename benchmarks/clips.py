"""Clips into memory: decoding of files, and making of embedded ones."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.ratios import Ratio, interleaved, once
from benchmarks.setting import Setting
from evatok.data import clips
from evatok.data.video import ClipReader

RATE, SECONDS, GAP = 30, 20, 30  # of the file: frames a second, length, frames from one keyframe to the next


def decoding(setting: Setting) -> list[Ratio]:
    """One clip from near the end of a file, and one from its beginning."""
    shape = setting.tokenizer
    with tempfile.TemporaryDirectory() as folder, ClipReader() as reader:
        path = Path(folder) / "made.mp4"
        make_video(path, size=2 * shape.size)
        found = []
        for place, start in (("start", 0.0), ("end", SECONDS - 1.5 * shape.frames / RATE)):
            first = round(start * RATE)
            plain, ours = interleaved(
                lambda first=first: read_from_the_beginning(path, first, shape.frames),  # type: ignore[misc]
                lambda start=start: reader.read(path, frames=shape.frames, size=shape.size, start=start),  # type: ignore[misc]
                repeats=setting.repeats,
                at_least=setting.at_least,
            )
            note = "every frame of the file decoded up to the clip's last, against frames chosen by presentation time, "
            found.append(Ratio("video_decode", f"wall_seconds_{place}", plain, ours, note + "probed, resized and cut"))
    return found


def embedded(setting: Setting) -> list[Ratio]:
    """Two reels of embedded clips by one process and by two, each with its start."""

    def make(workers: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            shape, count = setting.tokenizer, 2 * setting.source.reel_length
            arguments = {"size": shape.size, "frames": shape.frames, "workers": workers, "cache": Path(folder)}
            return once(lambda: clips.build(setting.source, "train", count, **arguments)) / count  # type: ignore[arg-type]

    one, two = make(1), make(2)
    note = f"clips of {setting.source.name} made by one process, against two"
    return [Ratio("embedded_clips", "wall_seconds_per_clip", one, two, note)]


def make_video(path: Path, size: int) -> None:
    """A file of SECONDS seconds: a coloured pattern that drifts, H.264."""
    y, x = np.mgrid[:size, :size]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options={"g": str(GAP)})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(RATE * SECONDS):
            shades = [127 + 120 * np.sin((x * a + y * b + number * c) / 9) for a, b, c in _WAVES]
            picture = np.stack(shades, -1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


_WAVES = ((1.0, 0.3, 0.7), (0.4, 1.1, -0.5), (0.8, -0.6, 1.3))


def read_from_the_beginning(path: Path, first: int, frames: int) -> np.ndarray:
    """Frames first .. first + frames - 1 as a simple reader gets them: all frames before them are decoded too."""
    with av.open(str(path)) as container:
        pictures = []
        for number, frame in enumerate(container.decode(video=0)):
            pictures.append(frame.to_ndarray(format="rgb24"))
            if number + 1 == first + frames:
                break
    return np.stack(pictures[first:])
