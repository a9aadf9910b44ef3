"""Decode one clip, (T, H, W, 3) uint8 RGB, in this process.

Frames are picked by presentation time, never by an average rate, so variable-rate files come out right. A
walk over the packets decides who decodes: decord where it is exact, PyAV wherever anything is unusual (see
`probe`).
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from evatok.data.probe import Probe, VideoError, opened, probe, scan, tick, upright

RESIZE = Image.Resampling.BICUBIC  # Pillow widens the kernel when shrinking, so this is antialiased


LONG = 16  # aspect ratio above which the square is cropped before resizing


class _Disagreement(Exception):  # noqa: N818 - never leaves this module
    """The decoder returned other frames than the packets promised."""


class Request(NamedTuple):
    """A clip to read.

    Attributes:
        start: seconds from the first frame.
        place: relative position of the clip's start between `start` (0) and the latest time that leaves enough frames
            (1); None: at `start`.
        pad: repeat the last frame of a video that ends before the clip does.
    """

    path: Path
    frames: int
    size: int
    fps: float | None
    start: float
    place: float | None = None
    pad: bool = False


Decoder = Callable[[Path, Probe, np.ndarray, int], dict[int, np.ndarray]]  # requested indices (n,) -> pictures


def check_sampling(*, frames: int, size: int, fps: float | None) -> None:
    """Raise ValueError unless frames and size are 1 or more and fps is None or above 0."""
    if frames < 1 or size < 1:
        raise ValueError(f"frames and size must be at least 1, got {frames} and {size}")
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}: it must be above 0, or None for the file's own frames")


def pick_frames(times: np.ndarray, *, frames: int, fps: float | None, start: float, lasts: float) -> np.ndarray:
    """Return indices (n,) into `times` (F,) in seconds; n < frames if the video ends first.

    A video ends half of `lasts` seconds after its last frame's time: until then that frame is the nearest.
    """
    targets = start + np.arange(frames if fps else 1) / (fps or 1.0)
    targets = targets[targets <= times[-1] + lasts / 2 + 1e-6]
    between = (times[1:] + times[:-1]) / 2
    nearest = np.searchsorted(np.round(between, 6), np.round(targets, 6))  # rounded: a tie takes the earlier frame
    if fps is not None or not len(nearest):
        return nearest
    return np.arange(nearest[0], min(nearest[0] + frames, len(times)))


def decode_clip(request: Request) -> np.ndarray:
    """Decode in this process, without a time limit; see `read_clip`."""
    held = probe(request.path)
    if not held.doubt:
        with suppress(_Disagreement):
            return _cut(request, held, _decode_decord)
    with suppress(_Disagreement):
        return _cut(request, held, _decode_av)
    # Some packets are never shown (invisible VP8 frames, a stream cut between keyframes): count those that are.
    try:
        return _cut(request, scan(request.path), _decode_av)
    except _Disagreement as error:
        raise VideoError(request.path, str(error)) from error


def _cut(request: Request, held: Probe, decode: Decoder) -> np.ndarray:
    path, frames, size, fps, _, _, pad = request
    start = begin(request, held)
    indices = pick_frames(held.times, frames=frames, fps=fps, start=start, lasts=held.lasts)
    if pad and len(indices):
        indices = np.pad(indices, (0, frames - len(indices)), mode="edge")
    if len(indices) < frames:
        asked = f"only {_count(len(indices))} from {start:g} s" + (f" at {fps:g} fps" if fps else "")
        seconds = held.times[-1] + held.lasts
        holds = f"it holds {_count(len(held.pts))}, {seconds:.2f} s" + (held.loss and f", though {held.loss}")
        raise VideoError(path, f"{asked}, {frames} needed; {holds}")
    pictures = decode(path, held, np.unique(indices), size)
    return np.stack([pictures[index] for index in indices.tolist()])


def begin(request: Request, held: Probe) -> float:
    """Return the start of the requested clip, in seconds from the first frame."""
    if request.place is None:
        return request.start
    if request.fps is None:
        latest = float(held.times[max(0, len(held.times) - request.frames)])
    else:
        latest = float(held.times[-1]) + held.lasts / 2 - (request.frames - 1) / request.fps
    return request.start + request.place * max(0.0, latest - request.start)


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _decode_decord(path: Path, held: Probe, wanted: np.ndarray, size: int) -> dict[int, np.ndarray]:
    import decord  # not available on every platform; `probe` requests it only if it is

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        pictures = {}
        for index in wanted.tolist():
            picture = reader[index].asnumpy()
            if picture.shape[2] != 3:  # seen in videos narrower than 64 pixels
                raise _Disagreement(f"decord returns frames of {picture.shape[2]} channels")
            pictures[index] = square(picture, size)
        shown = reader.get_frame_timestamp(wanted)[:, 0]
    except decord.DECORDError as error:
        raise _Disagreement("decord does not decode it") from error
    half_gap = np.diff(held.times).min(initial=np.inf) / 2
    if len(reader) != len(held.pts) or (np.abs(shown - held.times[wanted]) >= half_gap).any():
        raise _Disagreement(f"decord counts {len(reader)} frames where there are packets for {len(held.pts)}")
    return pictures


def _decode_av(path: Path, held: Probe, wanted: np.ndarray, size: int) -> dict[int, np.ndarray]:
    index_at = {int(held.pts[index]): index for index in wanted.tolist()}
    first, last = min(index_at), max(index_at)
    key = int(held.keys[held.keys <= first].max(initial=held.pts[0]))
    key_shown, pictures = False, {}
    with opened(path) as (container, stream):
        if key > held.pts[0]:
            container.seek(key, stream=stream)
        for frame in container.decode(stream):
            moment = tick(path, frame)
            key_shown = key_shown or moment == key  # otherwise the seek overshot, and frames may lack a reference
            if moment in index_at and key_shown and not frame.is_corrupt:
                pictures[index_at[moment]] = square(upright(frame), size)
            if moment >= last:
                break
    if len(pictures) < len(wanted):
        raise _Disagreement(f"{len(wanted) - len(pictures)} of {len(wanted)} requested frames cannot be decoded")
    return pictures


def square(picture_HWC: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3): the shorter side resized, the centre kept."""
    height, width = picture_HWC.shape[:2]
    if max(height, width) > LONG * min(height, width):  # resizing the whole strip may take a thousandfold memory
        box = _centre(height, width)
        picture = Image.fromarray(np.ascontiguousarray(picture_HWC))
        return np.asarray(picture.resize((size, size), RESIZE, box=box))
    scale = size / min(height, width)
    tall, wide = max(size, round(height * scale)), max(size, round(width * scale))
    resized = Image.fromarray(np.ascontiguousarray(picture_HWC)).resize((wide, tall), RESIZE)
    top, left = (tall - size) // 2, (wide - size) // 2
    return np.asarray(resized)[top : top + size, left : left + size]


def _centre(height: int, width: int) -> tuple[float, float, float, float]:
    """Return the central square of a picture: left, top, right, bottom."""
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
