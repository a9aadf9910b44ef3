"""Probe a video file by its packets: which frames are shown when, and whether decord may decode them."""

import importlib.util
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from evatok.data import containers
from evatok.errors import EvatokError
from evatok.storage.files import ordinary

DECORD_CODECS = (
    "h264",
    "vp9",
    "mpeg4",
)  # formats for which decord was found exact; it fails on open-GOP HEVC and refuses AV1


MOST_PIXELS = 2**26  # of a frame: 8192 x 8192, some 200 MB as RGB


class VideoError(EvatokError, ValueError):
    """A file that cannot become the requested clip; `path` is the file, `reason` a plain sentence."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)  # the same two arguments, so that the error can be pickled
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int | None
    is_keyframe: bool
    is_discard: bool


@dataclass(frozen=True)
class Probe:
    """What a video file holds: F frames in presentation order."""

    pts: np.ndarray  # (F,) int64, strictly increasing, in units of time_base seconds
    keys: np.ndarray  # (K,) int64: pts of the keyframes, where decoding may begin
    time_base: float  # seconds
    lasts: float  # seconds for which the last frame is shown
    doubt: str  # why the file is not given to decord; empty if it is
    loss: str = ""  # what the header claims beyond the F frames; empty for a complete file

    @property
    def times(self) -> np.ndarray:
        """(F,) seconds since the first frame."""
        return (self.pts - self.pts[0]) * self.time_base


def probe(path: Path) -> Probe:
    """Walk over the packets of a video without decoding more than its first frame.

    decord is trusted only with complete H.264, VP9 and MPEG-4 that begins with a keyframe at time 0 and is
    neither rotated nor mirrored, and never with open groups of pictures (frames shown before a keyframe but
    stored after it, as with the B-frames of MPEG-4): there it seeks to wrong frames without an error.
    """
    with opened(path) as (container, stream):
        packets, damaged, turned = _walk(container, stream)
        stamped = [packet for packet in packets if not packet.is_discard]
        if not stamped:
            raise VideoError(path, "it holds no complete video frame")
        ticks = [packet.pts for packet in stamped]
        if None in ticks or len(set(ticks)) < len(ticks):
            return scan(path)
        pts = np.array(ticks, dtype=np.int64)
        is_key = np.array([packet.is_keyframe for packet in stamped])
        base, lasts = (
            float(stream.time_base or 0),
            float((stamped[-1].duration or 0) * (stream.time_base or 0)),
        )
        lasts = lasts or _usual_gap(pts) * base
        doubts = {
            _doubt(stream, pts, [packet.dts for packet in stamped], is_key): True,
            (loss := _loss(container, stream, len(packets), (pts.max() - pts.min()) * base + lasts)): True,
            "a damaged packet": damaged,
            "a rotation or mirroring": turned,
            "a name that is not UTF-8": not _is_utf8(path),
            "an edit list": len(stamped) < len(packets),
            "a file within another": containers.held_in(path) is not None,
        }
        held = np.sort(pts)
        if not stream.frames or loss or damaged:
            held = _unbroken(held, packets[-1].dts, cut=bool(loss or damaged))
    return Probe(held, np.sort(pts[is_key]), base, lasts, _join(doubts), loss)


def scan(path: Path) -> Probe:
    """Decode the complete video for its presentation times, which its packets lack."""
    with opened(path) as (container, stream):
        ticks = [tick(path, frame) for frame in container.decode(stream)]
        base = float(stream.time_base or 0)
    pts = np.array(ticks, dtype=np.int64)
    if not len(pts) or (np.diff(pts) <= 0).any():
        raise VideoError(path, "its presentation times do not increase; re-encode it with ffmpeg")
    return Probe(pts, pts[:1], base, _usual_gap(pts) * base, "packets without sound times")


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container and its first video stream, single-threaded; FFmpeg errors within become VideoErrors."""
    try:
        source: Any = containers.read(path) if containers.held_in(path) else str(ordinary(path))
        with av.open(source, metadata_errors="replace") as container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise VideoError(path, "it has no video stream, only " + _kinds(container))
            if streams[0].codec_context is None:
                raise VideoError(path, "FFmpeg does not know its codec (is the file damaged?)")
            _refuse_large(path, streams[0].codec_context.width, streams[0].codec_context.height)
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except av.error.FFmpegError as error:
        raise VideoError(path, f"FFmpeg cannot read it as a video ({error.strerror})") from error


def _refuse_large(path: Path, width: int, height: int) -> None:
    """Raise VideoError for frames of more pixels than any camera's: a small file may claim any number."""
    if width * height > MOST_PIXELS:
        raise VideoError(
            path,
            f"frames of {width} x {height} pixels exceed the limit of {MOST_PIXELS} pixels; scale the video down first",
        )


def tick(path: Path, frame: VideoFrame) -> int:
    """Return a frame's presentation time in units of the stream's time base. Raises VideoError without one."""
    moment = frame.pts if frame.pts is not None else frame.dts
    if moment is None:
        way_out = "wrap it with its rate first: ffmpeg -r 30 -i FILE -c copy wrapped.mp4"
        raise VideoError(path, f"its frames carry no presentation times; {way_out}")
    return moment


def turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether to swap axes, then mirror left to right, then top to bottom, by a frame's display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    held = memoryview(matrix)  # type: ignore[arg-type] # PyAV does not say that side data are buffers
    (a, b, _), (c, d, _), _ = np.frombuffer(held, dtype="=i4").reshape(3, 3).tolist()
    swapped = abs(b) > abs(a)  # (x, y) is shown at (a x + c y, b x + d y); an oblique angle is rounded to the nearest
    return swapped, (c if swapped else a) < 0, (b if swapped else d) < 0


def upright(frame: VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned and mirrored as players show it."""
    picture = _rgb(frame)
    swapped, mirrored, upside_down = turn(frame)
    picture = picture.swapaxes(0, 1) if swapped else picture
    return picture[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _rgb(frame: VideoFrame) -> np.ndarray:
    """Convert to (H, W, 3) uint8 RGB; the chroma of interlaced frames is upsampled progressively.

    The ffmpeg command and decord do so by default; libswscale on its own has switched to upsampling each field
    separately. A picture must not depend on its decoder.
    """
    if not frame.interlaced_frame:
        return frame.to_ndarray(format="rgb24")
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    steps = [source, graph.add("scale", "interl=0"), graph.add("format", "rgb24"), graph.add("buffersink")]
    for one, following in itertools.pairwise(steps):
        one.link_to(following)
    graph.configure()
    graph.push(frame)
    shown = graph.pull()
    assert isinstance(shown, VideoFrame)
    return shown.to_ndarray(format="rgb24")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)  # cover art of a music file


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({"a cover picture" if s.type == "video" else s.type for s in container.streams})) or "data"


def _walk(container: InputContainer, stream: VideoStream) -> tuple[list[_Packet], bool, bool]:
    """Return the packets in stored order up to the first damaged one, if any, and whether frames are rotated."""
    packets: list[_Packet] = []
    first: list[VideoFrame] = []
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return packets, True, False
            first = first or packet.decode()[:1]  # rotation is only known from a decoded frame
            if packet.size:  # the empty one marks the end of the stream
                packets.append(_Packet(*(getattr(packet, field) for field in _Packet._fields)))
    except av.error.FFmpegError:
        if not packets:
            raise
        return packets, True, False
    return packets, False, bool(first) and any(turn(first[0]))


def _doubt(stream: VideoStream, pts: np.ndarray, dts: list[int | None], is_key: np.ndarray) -> str:
    codec = stream.codec_context.name
    newest_key = np.maximum.accumulate(np.where(is_key, pts, pts.min()))  # in stored order
    doubts = {
        "decord is not installed": importlib.util.find_spec("decord") is None,
        f"codec {codec}": codec not in DECORD_CODECS,
        "no keyframe at the beginning": not is_key[0],
        "an open group of pictures": bool((pts < newest_key).any()),
        "the first frame is not at time 0": pts.min() != 0,
        "decoding times that do not increase": None in dts or bool((np.diff(dts) <= 0).any()),  # type: ignore[arg-type]
    }
    return _join(doubts)


def _join(doubts: dict[str, bool]) -> str:
    return ", ".join(doubt for doubt, holds in doubts.items() if doubt and holds)


def _loss(container: InputContainer, stream: VideoStream, packets: int, seconds: float) -> str:
    if stream.frames and stream.frames != packets:
        return f"its header claims {stream.frames} frames"
    claimed = (container.duration or 0) / av.time_base
    if not stream.frames and claimed > seconds + 1.0:  # a second of tolerance: sound often ends later
        return f"its header claims {claimed:.1f} s"
    return ""


def _unbroken(pts: np.ndarray, last_dts: int | None, *, cut: bool) -> np.ndarray:
    """Return the frames (F,) in presentation order that are known to be contiguous.

    A lost frame is shown no earlier than the last packet's decoding time, so only beyond it can there be
    holes: a file known to be cut gives up all frames there, one that claims no number those after a gap.
    """
    late = pts > max(pts[0] if last_dts is None else last_dts, pts[0])
    gap = np.diff(pts, prepend=pts[0]) > 1.5 * _usual_gap(pts)
    return pts[~(late & (cut | np.logical_or.accumulate(late & gap)))]


def _usual_gap(pts: np.ndarray) -> float:
    return float(np.median(np.diff(np.sort(pts)))) if len(pts) > 1 else 0.0
