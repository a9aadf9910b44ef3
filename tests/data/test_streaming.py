"""A set that is decoded while it is used: the clips of a decoded one, whoever reads them and whatever is broken."""

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

from evatok.data import file_probe, workers
from evatok.data.clips import ClipSet, ClipSetError
from evatok.data.manifest import ManifestError
from evatok.data.probe import VideoError
from evatok.data.sets import clip_set
from evatok.data.streaming import StreamedClips, Streaming
from evatok.data.workers import in_order
from evatok.training.batches import Batches
from evatok.training.loop import Recipe, batch_indices, read_curve, step_generator, train
from tests.data.faulty import Odd
from tests.factories import grey_video

SHAPE = {"size": 16, "frames": 4}
VIDEOS, FRAMES = 12, 20


def counting_video(path: Path, number: int, frames: int = FRAMES) -> Path:
    """A video whose frame i of video n has the brightness 12 n + 4 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "0"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv444p"
        for index in range(frames):
            grey = np.full((32, 32, 3), 12 * number + 4 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def first_frames(clips: np.ndarray, numbers: np.ndarray) -> list[int]:
    """The frame of its video with which each clip of videos `numbers` begins."""
    return [round((float(clip[0].mean()) - 12 * number) / 4) for clip, number in zip(clips, numbers, strict=True)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EVATOK_CACHE", str(folder))
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read alone is read in this process: another takes seconds to start."""
    monkeypatch.setattr(workers.ClipReader, "call", lambda self, work, path, timeout: work())


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    for number in range(VIDEOS):
        counting_video(tmp_path / "videos" / f"{number:02d}.mp4", number)
    rows = [f"videos/{number:02d}.mp4,{'odd' if number % 2 else 'even'},train\n" for number in range(VIDEOS)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "".join(rows))
    return tmp_path / "list.csv"


def streamed(listing: Path, count: int = 0, split: str = "train", **how: object) -> ClipSet:
    return clip_set(listing, split, count, **SHAPE, streaming=Streaming(**{"workers": 0, **how}))


def batches_of(clips: ClipSet, steps: range, batch: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """The clips of each step, and their rows."""
    batches = Batches(clips, batch, seed=3, flip=True, device="cpu")
    return [batches.take(step, step_generator(3, step))[:2] for step in steps]


def same(one: list[tuple[np.ndarray, np.ndarray]], other: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    return all(map(np.array_equal, (x for pair in one for x in pair), (x for pair in other for x in pair)))


# The same clips


def test_a_streamed_set_has_the_clips_and_labels_of_the_decoded_one(listing, here):
    decoded, on_the_fly = clip_set(listing, "train", 0, **SHAPE), streamed(listing)
    assert on_the_fly.clips.shape == decoded.clips.shape
    assert np.array_equal(on_the_fly.clips[2:9], decoded.clips[2:9])
    assert np.array_equal(on_the_fly.clips[np.array([7, 0, 7])], decoded.clips[[7, 0, 7]])
    assert np.array_equal(on_the_fly.clips[::5], decoded.clips[::5])
    assert on_the_fly.labels["label"].tolist() == decoded.labels["label"].tolist()


def test_its_batches_are_those_of_the_decoded_set(listing, here):
    decoded = clip_set(listing, "train", 0, **SHAPE)
    assert same(batches_of(streamed(listing), range(6)), batches_of(decoded, range(6)))


def test_batches_do_not_depend_on_the_step_at_which_a_run_resumes(listing, here):
    clips = streamed(listing, random_start=True)
    assert same(batches_of(clips, range(6))[3:], batches_of(clips, range(3, 6)))


def test_a_set_read_in_pieces_is_read_once(listing, here, monkeypatch):
    clips, drawn = streamed(listing).clips, []
    read = type(clips.decode).__call__
    monkeypatch.setattr(
        type(clips.decode), "__call__", lambda self, item: (drawn.append(item.number), read(self, item))[1]
    )
    for start in range(0, VIDEOS, 4):
        assert len(clips[start : start + 4]) == 4
    assert drawn == list(range(VIDEOS))


@pytest.mark.slow  # starts worker processes three times
def test_batches_do_not_depend_on_the_number_of_workers(listing, here):
    """None, in this process; two from the start; one, which has probed the files, from where a run resumes."""
    one = streamed(listing, workers=1, random_start=True)
    none, two = (
        replace(one, clips=StreamedClips(one.clips.decode, one.clips.readable, Streaming(workers, True), ""))
        for workers in (0, 2)
    )
    alone = batches_of(none, range(4))
    assert same(alone, batches_of(two, range(4)))
    assert same(alone[2:], batches_of(one, range(2, 4)))


# Random starts


def test_in_every_epoch_a_clip_begins_elsewhere_and_never_too_late(listing, here):
    clips = streamed(listing, random_start=True)
    starts = {number: [] for number in range(VIDEOS)}
    for pixels, rows in batches_of(clips, range(12), batch=12):
        for number, start in zip(rows, first_frames(pixels, rows), strict=True):
            starts[number].append(start)
    assert all(len(seen) == 12 and len(set(seen)) > 3 for seen in starts.values())
    every = [start for seen in starts.values() for start in seen]
    assert (min(every), max(every)) == (0, FRAMES - SHAPE["frames"])


# What is broken, missing or short


def test_a_broken_file_is_named_and_shifts_no_other_clip(listing, here, caplog, cache):
    whole = batches_of(streamed(listing, random_start=True), range(4))
    (listing.parent / "videos/03.mp4").write_bytes(b"no video")
    clips = streamed(listing, random_start=True)
    assert "1 of 12 clips are left out" in caplog.text
    assert "03.mp4 (FFmpeg cannot read it" in caplog.text
    assert clips.manifest["failures"] == 1
    assert "03.mp4" in next((cache / "probes").glob("*-failures.csv")).read_text()
    for (before, rows), (after, others) in zip(whole, batches_of(clips, range(4)), strict=True):
        kept = rows != 3
        assert np.array_equal(before[kept], after[kept])
        assert np.array_equal(clips.clips.readable[others[kept]], rows[kept])


def test_a_file_that_breaks_after_its_probe_is_replaced_and_its_row_told(listing, here, caplog):
    clips = streamed(listing)
    (listing.parent / "videos/03.mp4").write_bytes(b"no video")
    for pixels, rows in batches_of(clips, range(6), batch=4):
        assert 3 not in rows
        assert first_frames(pixels, rows) == [0] * 4
    assert list(map(os.path.basename, clips.clips.broken)) == ["03.mp4"]
    assert "another clip takes its place (1 so far)" in caplog.text
    with pytest.raises(VideoError, match=r"03.mp4: .* leave it out of the listing"):
        clips.clips[:]


def test_missing_files_are_left_out_and_counted(listing, here, caplog):
    with listing.open("a") as file:
        file.write("gone.mp4,even,train\n")
    assert len(streamed(listing)) == VIDEOS
    assert "1 of 13 clips are left out" in caplog.text
    assert "gone.mp4 (there is no such file)" in caplog.text


def test_a_listing_none_of_whose_files_is_there_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path\na.mp4\nb.mp4\n")
    with pytest.raises(ManifestError, match="2 of 2 files are missing"):
        streamed(tmp_path / "list.csv", split="all")


def test_a_class_of_which_nothing_is_left_is_named(tmp_path, here, caplog):
    for name in ("a", "b"):
        grey_video(tmp_path / "good" / f"{name}.mp4")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/c.mp4").write_bytes(b"no video")
    assert set(streamed(tmp_path, split="all").labels["label"]) == {"good"}
    assert "no clip is left of bad" in caplog.text


def test_a_set_of_broken_files_only_is_refused(tmp_path, here):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/c.mp4").write_bytes(b"no video")
    with pytest.raises(ClipSetError, match=r"none of 1 clips can be read; the first, .*c\.mp4: FFmpeg cannot"):
        streamed(tmp_path, split="all")


def test_short_videos_are_skipped_or_padded_by_their_last_frame(tmp_path, here):
    for number, frames in enumerate((3, 20)):
        counting_video(tmp_path / "videos" / f"{number}.mp4", number, frames)
    assert len(streamed(tmp_path, split="all")) == 1
    padded = streamed(tmp_path, split="all", short="pad").clips
    assert len(padded) == 2
    greys = padded[:1][0, :, 0, 0, 0]
    assert len(set(greys[:3].tolist())) == 3
    assert greys[3] == greys[2]


def test_more_clips_than_can_be_read_are_refused_with_their_number(listing, here):
    (listing.parent / "videos/03.mp4").write_bytes(b"no video")
    with pytest.raises(ClipSetError, match=r"12 clips requested, it has 11 of 4 frames \(12 files are listed\)"):
        streamed(listing, count=12)
    assert len(streamed(listing, count=11)) == 11


def test_embedded_clips_have_no_random_starts():
    with pytest.raises(ClipSetError, match="freedoom: its clips are fixed"):
        clip_set("freedoom", "train", 4, **SHAPE, streaming=Streaming(2, random_start=True))


# Images


def test_a_folder_of_images_is_streamed_like_a_video(tmp_path, here):
    from PIL import Image

    (tmp_path / "images/one").mkdir(parents=True)
    for index in range(10):
        Image.new("RGB", (20, 20), (10 * index,) * 3).save(tmp_path / f"images/one/{index}.png")
    clips = streamed(tmp_path, split="all", random_start=True)
    starts = {int(pixels[0, 0, 0, 0, 0]) // 10 for pixels, _ in batches_of(clips, range(30), batch=1)}
    assert starts == set(range(7))
    assert clips.clips[:1][0, :, 0, 0, 0].tolist() == [0, 10, 20, 30]


# The probe


def test_only_new_and_changed_files_are_probed_again(listing, here, monkeypatch):
    streamed(listing)
    probed: list[str] = []
    probe = file_probe._Probing.__call__
    monkeypatch.setattr(
        file_probe._Probing, "__call__", lambda self, item: (probed.append(self.path(item)), probe(self, item))[1]
    )
    identity = streamed(listing).sha256
    assert probed == []
    counting_video(listing.parent / "videos/05.mp4", 5, frames=3)
    changed = streamed(listing)
    assert [Path(path).name for path in probed] == ["05.mp4"]
    assert len(changed) == VIDEOS - 1
    assert changed.sha256 != identity


def test_a_sets_identity_is_the_same_in_another_folder_and_another_for_other_clips(listing, here, tmp_path):
    identity = streamed(listing).sha256
    assert streamed(listing, count=4).sha256 != identity
    assert streamed(listing, random_start=True).sha256 != identity
    listing.parent.joinpath("moved").mkdir()
    for part in ("videos", "list.csv"):
        (tmp_path / part).rename(tmp_path / "moved" / part)
    assert streamed(tmp_path / "moved/list.csv").sha256 == identity


# Workers


@pytest.mark.slow  # waits for a process that hangs
def test_an_item_that_kills_or_hangs_its_process_is_named_and_the_rest_is_in_order(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # waited for the one that hangs
    found = list(in_order(Odd(), iter(range(14)), 2, ahead=4, limit=2))
    expected = [f"done {item}" for item in range(14)]
    expected[5] = "5: the decoding process crashed while reading it"
    expected[9] = "9: not decoded within 2 s (is it damaged, or very long?)"
    assert found == expected


# In training


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def loss_of(clips: ClipSet) -> Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    batches = Batches(clips, 4, seed=0, flip=True, device="cpu")

    def step_loss(module, step, generator):
        error = (batches.draw(step, generator).mean((2, 3, 4)) - module.weight).square().mean()
        return error, {}

    return step_loss


def test_a_training_on_streamed_clips_resumes_on_the_curve_of_an_unbroken_one(listing, here, tmp_path):
    recipe = Recipe(steps=9, learning_rate=0.1, final_learning_rate=0.1, log_every=1, save_every=1)
    clips = streamed(listing, random_start=True)
    train(Mean(), loss_of(clips), recipe, tmp_path / "whole")
    train(Mean(), loss_of(clips), recipe, tmp_path / "broken", stop_at=4)
    train(Mean(), loss_of(clips), recipe, tmp_path / "broken")
    assert read_curve(tmp_path / "broken") == read_curve(tmp_path / "whole")


def test_an_epoch_of_a_set_with_broken_files_keeps_its_length(listing, here):
    (listing.parent / "videos/03.mp4").write_bytes(b"no video")
    clips = streamed(listing)
    numbers = [clips.clips.readable[rows] for _, rows in batches_of(clips, range(3), batch=4)]
    wanted = [batch_indices(VIDEOS, 4, step, seed=3) for step in range(3)]
    assert all((found == drawn)[drawn != 3].all() for found, drawn in zip(numbers, wanted, strict=True))


@pytest.mark.slow  # a hundred thousand rows
def test_a_hundred_thousand_rows_of_which_one_percent_are_missing(tmp_path, monkeypatch, caplog):
    """One line says so, and every other row keeps its place; the probe is told what files hold."""
    rows, missing = 100_000, 1_000
    (tmp_path / "here.mp4").write_bytes(b"a video, to a probe that is told")
    names = [f"gone-{row}.mp4" if row % (rows // missing) == 7 else "here.mp4" for row in range(rows)]
    lines = "".join(f"{name},{row},train\n" for row, name in enumerate(names))
    (tmp_path / "large.csv").write_text(f"path,start,split\n{lines}")
    monkeypatch.setattr(file_probe, "in_order", lambda todo, items, *_, **__: ((4, "") for _ in items))
    found = clip_set(tmp_path / "large.csv", "train", 0, **SHAPE, streaming=Streaming(2))
    assert (len(found), found.manifest["failures"]) == (rows - missing, missing)
    assert f"{missing} of {rows} clips are left out" in caplog.text
    clips = found.clips
    assert isinstance(clips, StreamedClips)
    assert clips.listed == rows
    assert 7 not in clips.readable[:10]
    assert clips.readable[7] == 8
