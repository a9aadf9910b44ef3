"""Every frame of the test videos shows its own index as bars: no wrong frame passes for the right one."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from evatok.data import decoding
from evatok.data.decoding import check_sampling, pick_frames
from evatok.data.image_folder import read_frames_folder
from evatok.data.probe import VideoError, opened, probe
from evatok.data.video import ClipReader, read_clip

SIDE = 64  # pixels; 8 bars of 8 pixels, one a bit of the frame's index
CLOSED = "keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=0"
OPEN = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"
TICKS = Fraction(1, 1000)


def draw(index: int) -> np.ndarray:
    bits = (index >> np.arange(8)) & 1
    bars = np.repeat(bits * 255, SIDE // 8).astype(np.uint8)
    return np.broadcast_to(bars[None, :, None], (SIDE, SIDE, 3)).copy()


def indices_of(clip: np.ndarray) -> list[int]:
    bits = clip[:, 8:-8].reshape(len(clip), SIDE - 16, 8, SIDE // 8, 3).mean(axis=(1, 3, 4)) > 128
    return (bits @ (1 << np.arange(8))).tolist()


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 40,
    options: dict[str, str] | None = None,
    milliseconds: list[int] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """40 frames at 20 a second, or at the given times."""
    times = milliseconds or [50 * i for i in range(frames)]
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=20, options=options or {})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        if milliseconds is not None:
            stream.codec_context.time_base = stream.time_base = TICKS
        for index, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw(index), format="rgb24")
            custom = milliseconds is not None
            frame.pts, frame.time_base = (moment, TICKS) if custom else (index, Fraction(1, 20))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def reader() -> Iterator[ClipReader]:
    with ClipReader() as reader:
        yield reader


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("h264") / "closed.mp4"
    return write_video(path, options={"x264-params": CLOSED}, muxer={"movflags": "faststart"})


FILES = {
    "h264 closed": ("a.mp4", "libx264", {"x264-params": CLOSED}, True),
    "h264 open": ("a.mp4", "libx264", {"x264-params": OPEN}, False),
    "h264 in a transport stream": ("a.ts", "libx264", {"x264-params": CLOSED}, False),
    "mpeg4": ("a.mp4", "mpeg4", {}, True),
    "mpeg4 with B-frames": ("a.avi", "mpeg4", {"bf": "2"}, False),
    "vp9": ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}, True),
    "hevc open": ("a.mp4", "libx265", {"x265-params": OPEN + ":log-level=none"}, False),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_codec_yields_exactly_the_frames_asked_for(kind: str, tmp_path: Path, reader: ClipReader) -> None:
    name, codec, options, trusted = FILES[kind]
    path = write_video(tmp_path / name, codec, options=options)
    assert (probe(path).doubt == "") == trusted
    for first in (0, 5, 11, 14, 24):
        clip = reader.read(path, size=SIDE, start=first / 20)
        assert indices_of(clip) == list(range(first, first + 16))
    assert indices_of(reader.read(path, frames=10, size=SIDE, fps=5)) == list(range(0, 40, 4))


def test_frames_are_picked_by_presentation_time_on_a_variable_rate_file(tmp_path: Path, reader: ClipReader) -> None:
    # Two seconds at 40 frames a second, then five at 4: the average rate would miss by more than a second.
    times = [25 * i for i in range(80)] + [2000 + 250 * i for i in range(20)]
    path = write_video(tmp_path / "vfr.mp4", milliseconds=times)
    clip = reader.read(path, frames=18, size=SIDE, fps=3)
    shown = np.array(times)[indices_of(clip)] / 1000
    wanted = np.arange(18) / 3
    half_frame = np.where(wanted < 2, 0.0125, 0.125)
    assert (np.abs(shown - wanted) <= half_frame + 1e-3).all()


def test_clip_is_uint8_and_square_whatever_the_shape_of_the_video(h264: Path, reader: ClipReader) -> None:
    clip = reader.read(h264, frames=4, size=24)
    assert clip.shape == (4, 24, 24, 3)
    assert clip.dtype == np.uint8


@pytest.mark.parametrize(
    ("matrix", "shown"),  # (a, b, c, d) shows the point (x, y) at (a x + c y, b x + d y)
    [
        ((0, 1, -1, 0), lambda clip: np.rot90(clip, k=-1, axes=(1, 2))),
        ((0, -1, 1, 0), lambda clip: np.rot90(clip, k=1, axes=(1, 2))),
        ((-1, 0, 0, -1), lambda clip: np.rot90(clip, k=2, axes=(1, 2))),
        ((-1, 0, 0, 1), lambda clip: clip[:, :, ::-1]),
        ((1, 0, 0, -1), lambda clip: clip[:, ::-1]),
        ((0, 1, 1, 0), lambda clip: clip.swapaxes(1, 2)),
        ((0, -1, -1, 0), lambda clip: np.rot90(clip.swapaxes(1, 2), k=2, axes=(1, 2))),
    ],
)
def test_a_file_marked_as_turned_or_mirrored_comes_out_as_players_show_it(
    matrix: tuple[int, int, int, int], shown: Callable, tmp_path: Path, h264: Path, reader: ClipReader
) -> None:
    data = bytearray(h264.read_bytes())
    at = data.index(b"tkhd") + 44  # the matrix of the track header, in 16.16 fixed point
    a, b, c, d = (entry << 16 for entry in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    assert "a rotation or mirroring" in probe(path).doubt
    plain, turned = reader.read(h264, frames=4, size=SIDE), reader.read(path, frames=4, size=SIDE)
    assert np.array_equal(turned, shown(plain))


@pytest.mark.parametrize(("width", "height"), [(48, 64), (16, 16), (2, 2), (34, 200)])
def test_a_narrow_video_has_three_channels(width: int, height: int, tmp_path: Path, reader: ClipReader) -> None:
    with av.open(str(tmp_path / "narrow.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(4):
            pixels = np.full((height, width, 3), (200, 60, 30), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    clip = reader.read(tmp_path / "narrow.mp4", frames=4, size=32)
    assert clip.shape == (4, 32, 32, 3)
    assert np.abs(clip.astype(int) - (200, 60, 30)).max() < 8


def test_too_few_frames_says_how_many_there_are_and_are_needed(h264: Path, reader: ClipReader) -> None:
    with pytest.raises(VideoError, match=r"only 10 frames from 1\.5 s, 16 needed; it holds 40 frames, 2\.00 s"):
        reader.read(h264, start=1.5)
    with pytest.raises(VideoError, match="only 6 frames from 0 s at 3 fps, 16 needed"):
        reader.read(h264, fps=3)
    with pytest.raises(VideoError, match="only 0 frames from 9 s"):
        reader.read(h264, start=9)


def test_a_truncated_file_gives_the_frames_it_holds_and_names_its_loss(
    tmp_path: Path, h264: Path, reader: ClipReader
) -> None:
    data = h264.read_bytes()
    path = tmp_path / "cut.mp4"
    pixels = data.index(b"mdat")
    path.write_bytes(data[: pixels + (len(data) - pixels) * 2 // 3])
    held = probe(path)
    assert "claims 40 frames" in held.doubt
    whole = len(held.pts)
    assert 0 < whole < 40
    assert indices_of(reader.read(path, frames=whole, size=SIDE)) == list(range(whole))
    with pytest.raises(VideoError, match="though its header claims 40 frames"):
        reader.read(path, frames=40)


def test_a_truncated_webm_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = write_video(tmp_path / "a.webm", "libvpx-vp9", frames=80, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert "claims 4.0 s" in probe(path).doubt


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])  # neither claims a number of frames
def test_a_file_cut_anywhere_never_yields_a_wrong_frame(name: str, tmp_path: Path, reader: ClipReader) -> None:
    path = write_video(tmp_path / name, options={"x264-params": OPEN})
    data, read = path.read_bytes(), 0
    for tenths in np.linspace(3, 10, 15):
        path.write_bytes(data[: int(len(data) * tenths / 10)])
        try:
            clip = reader.read(path, frames=12, size=SIDE)
        except VideoError:
            continue
        read += 1
        assert indices_of(clip) == list(range(12))
    assert read > 3


def test_one_frame_is_a_clip_of_one_and_too_few_for_more(tmp_path: Path, reader: ClipReader) -> None:
    path = write_video(tmp_path / "one.mp4", frames=1)
    assert indices_of(reader.read(path, frames=1, size=SIDE)) == [0]
    with pytest.raises(VideoError, match="only 1 frame from 0 s, 16 needed"):
        reader.read(path)


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


UNREADABLE = {
    "there is no such file": lambda path: None,
    "the file is empty": lambda path: path.touch(),
    "is a folder": lambda path: path.mkdir(),
    "FFmpeg cannot read it as a video": lambda path: path.write_text("a shopping list\n" * 40),
    "no video stream, only audio": write_sound,
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_what_is_not_a_video_is_refused_in_plain_words(reason: str, tmp_path: Path, reader: ClipReader) -> None:
    path = tmp_path / "clip.mp4"
    UNREADABLE[reason](path)
    with pytest.raises(VideoError, match=reason) as caught:
        reader.read(path)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"


def test_a_file_cut_before_its_index_is_refused(tmp_path: Path, reader: ClipReader) -> None:
    path = write_video(tmp_path / "late.mp4")  # without faststart the index comes last
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VideoError, match="FFmpeg cannot read it as a video"):
        reader.read(path)


def test_an_unknown_codec_is_refused(tmp_path: Path, h264: Path, reader: ClipReader) -> None:
    path = tmp_path / "unknown.mp4"
    head, tail = h264.read_bytes().split(b"stsd", maxsplit=1)  # the sample description names the codec
    path.write_bytes(head + b"stsd" + tail.replace(b"avc1", b"zzzz", 1))
    with pytest.raises(VideoError, match="FFmpeg does not know its codec"):
        reader.read(path)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals to stand in for a hung decoder")
def test_a_hung_decoder_is_replaced_and_the_next_read_works(h264: Path) -> None:
    with ClipReader() as reader:
        reader.read(h264, frames=1)
        hung = reader.process_id
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(VideoError, match=r"not decoded within 0\.2 s"):
            reader.read(h264, timeout=0.2)
        assert time.monotonic() - began < 5
        with pytest.raises(ProcessLookupError):
            os.kill(hung, 0)
        assert indices_of(reader.read(h264, size=SIDE)) == list(range(16))
        assert reader.process_id != hung


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals to stand in for a crash")
def test_a_crashed_decoder_is_an_error_of_the_file_and_is_replaced(h264: Path) -> None:
    with ClipReader() as reader:
        reader.read(h264, frames=1)
        assert reader.process_id is not None
        os.kill(reader.process_id, signal.SIGKILL)
        with pytest.raises(VideoError, match="the decoding process crashed"):
            reader.read(h264)
        assert len(reader.read(h264)) == 16


def test_one_shot_reading_leaves_no_process_behind(h264: Path) -> None:
    before = set(multiprocessing.active_children())
    assert indices_of(read_clip(h264, size=SIDE)) == list(range(16))
    assert set(multiprocessing.active_children()) <= before


def test_nearest_frame_wins_and_a_tie_takes_the_earlier() -> None:
    times = np.array([0.0, 0.1, 0.5, 0.6])
    assert pick_frames(times, frames=3, fps=5, start=0, lasts=0.1).tolist() == [0, 1, 2]  # 0, 0.2, 0.4
    assert pick_frames(times, frames=1, fps=1, start=0.3, lasts=0.1).tolist() == [1]
    assert pick_frames(times, frames=9, fps=None, start=0.1, lasts=0.1).tolist() == [1, 2, 3]
    assert pick_frames(times, frames=4, fps=20, start=0.6, lasts=0.1).tolist() == [3, 3]


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": 0}, {"fps": 0.0}, {"fps": float("nan")}])
def test_arguments_out_of_range_are_no_fault_of_the_file(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_sampling(**({"frames": 16, "size": 128, "fps": None} | wrong))


def test_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(VideoError(Path("a.mp4"), "is too short")))
    assert (str(error), error.path, error.reason) == ("a.mp4: is too short", Path("a.mp4"), "is too short")


def write_images(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(draw(index)).save(folder / f"frame{index}.png")
    return folder


def test_images_are_read_in_natural_order(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    (folder / "notes.txt").write_text("not a frame")
    assert indices_of(read_frames_folder(folder, frames=9, size=SIDE, start=3)) == list(range(3, 12))


def test_an_image_folder_that_is_no_clip_says_why(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    with pytest.raises(VideoError, match="only 12 images from index 0, 16 needed"):
        read_frames_folder(folder)
    with pytest.raises(VideoError, match="there is no such folder"):
        read_frames_folder(tmp_path / "absent")
    (folder / "frame3.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(VideoError, match=r"frame3\.png: cannot be read as an image"):
        read_frames_folder(folder, frames=8)
    Image.fromarray(draw(0)[:32]).save(folder / "frame3.png")
    with pytest.raises(VideoError, match=r"frame3\.png and frame0\.png differ in size"):
        read_frames_folder(folder, frames=8)
    Image.fromarray(draw(0)[..., 0].astype(np.uint16)).save(folder / "frame3.png")
    with pytest.raises(VideoError, match="8-bit"):
        read_frames_folder(folder, frames=8)


def test_interlaced_colour_is_the_same_by_every_decoder(tmp_path: Path) -> None:
    path = tmp_path / "interlaced.mp4"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1:bframes=0", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(4):
            rows = random.integers(0, 256, (64, 1, 3), dtype=np.uint8)  # colours that change from line to line
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.broadcast_to(rows, (64, 64, 3))), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with opened(path) as (container, stream):
        assert next(container.decode(stream)).interlaced_frame
    held, wanted = probe(path), np.arange(4)
    decord_s, av_s = (decode(path, held, wanted, 64) for decode in (decoding._decode_decord, decoding._decode_av))
    for index in range(4):
        assert np.abs(decord_s[index].astype(int) - av_s[index]).mean() < 0.5


class Clips(torch.utils.data.Dataset):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(read_clip(self.path, frames=4, size=SIDE, start=index / 20))


def test_a_dataloaders_worker_reads_clips_itself(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader(Clips(write_video(tmp_path / "x.mp4")), 2, num_workers=1)
    (clips,) = list(loader)
    assert [indices_of(clip) for clip in clips.numpy()] == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_a_workers_error_names_the_file_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    loader = torch.utils.data.DataLoader(Clips(tmp_path / "x.mp4"), 1, num_workers=1)
    with pytest.raises(
        RuntimeError, match=r"VideoError: .*x\.mp4: FFmpeg cannot read it"
    ):  # as DataLoader passes it on
        list(loader)
