"""Read a clip from a video file: (T, H, W, 3) uint8 RGB.

Decoding (`evatok.data.decoding`) runs in its own process under a wall-clock limit: on some broken files decord never
returns.
"""

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import av
import numpy as np

from evatok.data import containers
from evatok.data.decoding import Request, check_sampling, decode_clip
from evatok.data.probe import VideoError
from evatok.errors import die_with_parent

Answer = TypeVar("Answer")

START_LIMIT = 120.0  # seconds for the decoding process to start: it imports the caller's main module too


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
        """Id of the decoding process; None before the first read and after a failure."""
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
            raise ValueError(f"start is {start}: it must be a number of seconds, at least 0")
        _check_file(path)
        request = Request(path.absolute(), frames, size, fps, start)
        if multiprocessing.current_process().daemon:
            return _decoded_here(request, path)
        try:
            return self.call(partial(decode_clip, request), path, timeout)
        except VideoError as error:
            raise VideoError(path, error.reason) from error

    def call(self, work: Callable[[], Answer], path: Path | str, timeout: float) -> Answer:
        """Return the result of a picklable `work`, which reads the file at `path`, from the decoding process.

        Raises VideoError where it crashes or takes more than `timeout` seconds, and what `work` raises.
        """
        try:
            answer = self._ask(work, path, timeout)
        except BaseException:
            self.close()  # an answer may still be pending: start afresh
            raise
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

    def _ask(self, work: Callable[[], Answer], path: Path | str, timeout: float) -> Answer | BaseException:
        connection = self._connection or self._start()
        try:
            connection.send(work)
            if not connection.poll(timeout):
                raise VideoError(path, f"not decoded within {timeout:g} s (is it damaged, or very long?)")
            return connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise VideoError(path, "the decoding process crashed while reading it") from error

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


def _decoded_here(request: Request, path: Path) -> np.ndarray:
    """Decode the clip in this process; errors name the path as given."""
    try:
        return decode_clip(request)
    except VideoError as error:
        raise VideoError(path, error.reason) from error


def _check_file(path: Path) -> None:
    if containers.held_in(path):
        return
    if not path.exists():
        raise VideoError(path, "there is no such file")
    if path.is_dir():
        raise VideoError(path, "is a folder; a folder of images is read by read_frames_folder")
    if not path.is_file():
        raise VideoError(path, "is not a regular file")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty")


def _serve(connection: Connection) -> None:
    """Answer each work item with its result or error until the pipe closes (runs in the decoding process)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process group; the parent ends this process
    die_with_parent(signal.SIGKILL)  # a hung decoder would not see the end of the pipe
    av.logging.set_level(None)
    with suppress(EOFError, BrokenPipeError):
        connection.send("ready")
        while True:
            work = connection.recv()
            try:
                answer: object = work()
            except Exception as error:
                answer = error
            connection.send(answer)
