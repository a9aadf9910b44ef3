"""Reels of noise, apart from the tests: a worker process that makes them imports no more than this."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

from evatok.data.clips import ClipSetError
from evatok.data.reels import ClipSource, Reel

MADE: list[tuple[int, int]] = []  # (stream, reel) in the order of making, by this process


def noise_reel(stream: int, number: int, size: int, frames: int) -> Reel:
    """Four clips of noise, a function of (stream, number) alone."""
    MADE.append((stream, number))
    rng = np.random.default_rng((stream, number))
    labels: list[dict[str, Any]] = [{"motion": "noise", "place": f"{number}/{clip}"} for clip in range(4)]
    return rng.integers(256, size=(4, frames, size, size, 3), dtype=np.uint8), labels


def killing_reel(stream: int, number: int, size: int, frames: int) -> Reel:
    """The same clips, but for the fourth reel's process, which is killed as by a kernel without memory."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return noise_reel(stream, number, size, frames)


def failing_reel(stream: int, number: int, size: int, frames: int) -> Reel:
    """The same clips, but for the fourth reel, which fails."""
    if number == 3:
        raise ClipSetError("reel 3 cannot be drawn")
    return noise_reel(stream, number, size, frames)


NOISE = ClipSource("noise", reel_length=4, reel=noise_reel, recipe={"version": 1}, versions={})
