"""A user's own video file, or folder of images, to one clip: (T, H, W, 3) uint8 RGB.

Frames are picked by presentation time, never by an average rate, so variable-rate files come out right. A
walk over the packets decides who decodes: decord where it is exact, PyAV wherever anything is unusual (see
`probe`). Decoding runs in a process of its own under a wall-clock limit: on some broken files decord never
returns.
"""

import multiprocessing
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from evatok.data.probe import Probe, VideoError, opened, probe, scan, tick, upright
from evatok.errors import die_with_parent
from evatok.storage.files import ordinary

RESIZE = Image.Resampling.BICUBIC  # Pillow widens the kernel as it shrinks, so this is antialiased
VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".ts",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".vob",
    ".wmv",
    ".asf",
    ".flv",
    ".3gp",
    ".3g2",
    ".ogv",
    ".gif",
)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LONG = 16  # sides of a picture of which the square is cut out before it is resized
START_LIMIT = 120.0  # seconds for the decoding process to come up: it imports the caller's main module too


class _Disagreement(Exception):  # noqa: N818 - never leaves this module
    """The decoder showed other frames than the packets promised."""


class _Request(NamedTuple):
    path: Path
    frames: int
    size: int
    fps: float | None
    start: float


Decoder = Callable[[Path, Probe, np.ndarray, int], dict[int, np.ndarray]]  # requested indices (n,) -> pictures


def read_clip(
    path: Path | str,
    *,
    frames: int = 16,
    size: int = 128,
    fps: float | None = None,
    start: float = 0.0,
    timeout: float = 30.0,
) -> np.ndarray:
    """Read one clip (frames, size, size, 3), uint8 RGB, from a video file.

    `start` counts seconds from the first frame. With `fps=None` the frames are consecutive; with a number,
    frame i is the one nearest in presentation time to `start + i / fps` (an fps above the file's own repeats
    frames). The shorter side is resized to `size`, then the centre is cut out. Many files: `ClipReader`.

    Raises VideoError for a file that is missing, not a video, damaged, too short, or not decoded in `timeout`
    seconds; ValueError for an argument out of range.
    """
    with ClipReader() as reader:
        return reader.read(path, frames=frames, size=size, fps=fps, start=start, timeout=timeout)


class ClipReader:
    """Reads many clips through one decoding process, which is replaced when a file hangs or crashes it.

    The process is spawned, so a script must call this from under `if __name__ == "__main__":`. A daemonic process, such
    as a DataLoader's or a Pool's worker, may have no children: there clips are decoded in the worker itself, which has
    no limit on the time but the one its own parent sets.
    """

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def process_id(self) -> int | None:
        """Of the decoding process; None before the first read and after a failure."""
        return self._process.pid if self._process else None

    def __enter__(self) -> "ClipReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(
        self,
        path: Path | str,
        *,
        frames: int = 16,
        size: int = 128,
        fps: float | None = None,
        start: float = 0.0,
        timeout: float = 30.0,
    ) -> np.ndarray:
        """Read one clip (frames, size, size, 3) uint8; arguments and errors as in `read_clip`."""
        path = Path(path)
        check_sampling(frames=frames, size=size, fps=fps)
        if not (np.isfinite(start) and start >= 0):
            raise ValueError(f"start is {start}: it must be a number of seconds from 0 up")
        _check_file(path)
        request = _Request(path.absolute(), frames, size, fps, start)
        if multiprocessing.current_process().daemon:
            return _decoded_here(request, path)
        try:
            answer = self._ask(request, timeout)
        except BaseException:
            self.close()  # whatever happened, an answer may still be under way: begin afresh
            raise
        if isinstance(answer, VideoError):
            raise VideoError(path, answer.reason)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """End the decoding process; the next read starts another."""
        if self._process is not None:
            self._process.kill()  # not terminate: a hung decoder holds the interpreter and ignores signals
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, request: _Request, timeout: float) -> np.ndarray | BaseException:
        connection = self._connection or self._start()
        try:
            connection.send(request)
            if not connection.poll(timeout):
                raise VideoError(request.path, f"not decoded within {timeout:g} s (is it damaged, or very long?)")
            return connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise VideoError(request.path, "the decoding process crashed while reading it") from error

    def _start(self) -> Connection:
        spawn = multiprocessing.get_context("spawn")  # forking after torch started its threads can deadlock
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process reads as the end of the pipe
        try:
            if self._connection.poll(START_LIMIT) and self._connection.recv() == "ready":
                return self._connection
        except EOFError:
            pass
        raise RuntimeError(
            'the decoding process did not start: call ClipReader from under `if __name__ == "__main__":`, '
            "in a script saved as a file"
        )


def _decoded_here(request: _Request, path: Path) -> np.ndarray:
    """The clip, decoded in this very process; errors name the path as it was given."""
    try:
        return decode_clip(request)
    except VideoError as error:
        raise VideoError(path, error.reason) from error


def check_sampling(*, frames: int, size: int, fps: float | None) -> None:
    """Raise ValueError unless frames and size are 1 or more and fps is None or above 0."""
    if frames < 1 or size < 1:
        raise ValueError(f"frames is {frames} and size is {size}: both must be 1 or more")
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}: it must be above 0, or None for the file's own frames")


def pick_frames(times: np.ndarray, *, frames: int, fps: float | None, start: float, lasts: float) -> np.ndarray:
    """Indices (n,) into `times` (F,) in seconds; n < frames where the video ends first.

    A video ends half of `lasts` seconds after its last frame's time: up to there that frame is the nearest.
    """
    targets = start + np.arange(frames if fps else 1) / (fps or 1.0)
    targets = targets[targets <= times[-1] + lasts / 2 + 1e-6]
    between = (times[1:] + times[:-1]) / 2
    nearest = np.searchsorted(np.round(between, 6), np.round(targets, 6))  # rounded: a tie takes the earlier frame
    if fps is not None or not len(nearest):
        return nearest
    return np.arange(nearest[0], min(nearest[0] + frames, len(times)))


def decode_clip(request: _Request) -> np.ndarray:
    """Decode in this very process, without a limit on the time; see `read_clip`."""
    held = probe(request.path)
    if not held.doubt:
        with suppress(_Disagreement):
            return _cut(request, held, _decode_decord)
    with suppress(_Disagreement):
        return _cut(request, held, _decode_av)
    # Some packets are never shown (invisible VP8 frames, a stream cut between keyframes): count what is.
    try:
        return _cut(request, scan(request.path), _decode_av)
    except _Disagreement as error:
        raise VideoError(request.path, str(error)) from error


def read_frames_folder(path: Path | str, *, frames: int = 16, size: int = 128, start: int = 0) -> np.ndarray:
    """Read a folder of images in natural order as one clip (frames, size, size, 3) uint8 RGB.

    `start` is the index of the first image. Raises VideoError for a missing folder, too few images, an image
    that cannot be read, or images of mixed sizes; ValueError for an argument out of range.
    """
    path = Path(path)
    check_sampling(frames=frames, size=size, fps=None)
    if start < 0:
        raise ValueError(f"start is {start}: the index of the first image must be 0 or more")
    if not path.is_dir():
        raise VideoError(path, "is not a folder of images" if path.exists() else "there is no such folder")
    images = images_in(path)
    wanted = images[start : start + frames]
    if len(wanted) < frames:
        held = f"{len(wanted)} images from number {start} on, {frames} are needed"
        raise VideoError(path, f"{held}; it holds {len(images)} images ({', '.join(IMAGE_SUFFIXES)})")
    pictures = [_load_image(image) for image in wanted]
    for image, picture in zip(wanted, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise VideoError(path, f"{image.name} is not of the size of {wanted[0].name}; one clip has one size")
    return np.stack([_square(picture, size) for picture in pictures])


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order (frame9 before frame10), hidden files left out."""
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    return sorted((entry for entry in found if not entry.name.startswith(".")), key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which digits count as numbers; the name itself breaks ties such as 1 and 01."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)], path.name


def _check_file(path: Path) -> None:
    if not path.exists():
        raise VideoError(path, "there is no such file")
    if path.is_dir():
        raise VideoError(path, "is a folder; a folder of images is read by read_frames_folder")
    if not path.is_file():
        raise VideoError(path, "is not a regular file")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty")


def _cut(request: _Request, held: Probe, decode: Decoder) -> np.ndarray:
    path, frames, size, fps, start = request
    indices = pick_frames(held.times, frames=frames, fps=fps, start=start, lasts=held.lasts)
    if len(indices) < frames:
        asked = f"{_count(len(indices))} from {start:g} s on" + (f" at {fps:g} fps" if fps else "")
        seconds = held.times[-1] + held.lasts
        holds = f"it holds {_count(len(held.pts))}, {seconds:.2f} s" + (held.loss and f", though {held.loss}")
        raise VideoError(path, f"{asked}, {frames} are needed; {holds}")
    pictures = decode(path, held, np.unique(indices), size)
    return np.stack([pictures[index] for index in indices.tolist()])


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _decode_decord(path: Path, held: Probe, wanted: np.ndarray, size: int) -> dict[int, np.ndarray]:
    import decord  # not made for every platform; `probe` asks for it only where it is there

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        pictures = {}
        for index in wanted.tolist():
            picture = reader[index].asnumpy()
            if picture.shape[2] != 3:  # seen in videos narrower than 64 pixels
                raise _Disagreement(f"decord makes pictures of {picture.shape[2]} channels")
            pictures[index] = _square(picture, size)
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
            key_shown = key_shown or moment == key  # otherwise the seek went too far, and frames may lack a reference
            if moment in index_at and key_shown and not frame.is_corrupt:
                pictures[index_at[moment]] = _square(upright(frame), size)
            if moment >= last:
                break
    if len(pictures) < len(wanted):
        raise _Disagreement(f"{_count(len(wanted) - len(pictures))} of {len(wanted)} asked for cannot be decoded")
    return pictures


def _load_image(path: Path) -> np.ndarray:
    try:
        with Image.open(ordinary(path)) as image:
            if image.mode[0] in "IF":
                raise VideoError(path, f"pixels of mode {image.mode} are not 8-bit; convert the images to 8-bit first")
            return np.asarray(image.convert("RGB"))
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow calls a broken PNG a SyntaxError
        raise VideoError(path, f"cannot be read as an image ({type(error).__name__})") from error


def _square(picture_HWC: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3): the shorter side resized, the centre kept."""
    height, width = picture_HWC.shape[:2]
    if max(height, width) > LONG * min(height, width):  # the complete strip resized may be a thousand times the picture
        box = _centre(height, width)
        picture = Image.fromarray(np.ascontiguousarray(picture_HWC))
        return np.asarray(picture.resize((size, size), RESIZE, box=box))
    scale = size / min(height, width)
    tall, wide = max(size, round(height * scale)), max(size, round(width * scale))
    resized = Image.fromarray(np.ascontiguousarray(picture_HWC)).resize((wide, tall), RESIZE)
    top, left = (tall - size) // 2, (wide - size) // 2
    return np.asarray(resized)[top : top + size, left : left + size]


def _centre(height: int, width: int) -> tuple[float, float, float, float]:
    """The middle square of a picture: left, top, right, bottom."""
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _serve(connection: Connection) -> None:
    """Answer each request with a clip or an error until the pipe ends (the decoding process)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process group; the parent ends this process
    die_with_parent(signal.SIGKILL)  # a hung decoder would not see the end of the pipe
    av.logging.set_level(None)
    with suppress(EOFError, BrokenPipeError):
        connection.send("ready")
        while True:
            request = connection.recv()
            try:
                answer: np.ndarray | Exception = decode_clip(request)
            except Exception as error:
                answer = error
            connection.send(answer)
