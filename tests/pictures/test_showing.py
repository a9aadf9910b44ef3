"""Frames come back as they were, a grid holds every clip in its place, and videos can be read again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from evatok.pictures import gallery
from evatok.pictures.gallery import ShowingError, save_frames, save_moving, side_by_side
from evatok.storage.environment import REPOSITORY


@pytest.fixture
def noise() -> np.ndarray:
    """Three clips (3, 4, 6, 10, 3)."""
    return np.random.default_rng(0).integers(0, 256, (3, 4, 6, 10, 3), dtype=np.uint8)


def test_frames_are_lossless(noise, tmp_path) -> None:
    folders = save_frames(noise, tmp_path / "frames", ["a", "b", "c"])
    assert [folder.name for folder in folders] == ["a", "b", "c"]
    for clip, folder in zip(noise, folders, strict=True):
        read = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
        assert np.array_equal(np.stack(read), clip)


def test_a_cell_holds_both_variants_of_one_clip(noise) -> None:
    sheet = side_by_side(noise, 255 - noise, columns=2, enlarge=2)
    wide = 2 * 20 + gallery.GAP
    assert sheet.shape == (4, 2 * 12 + gallery.GAP, 2 * wide + 2 * gallery.GAP, 3)
    second = sheet[:, :12, wide + 2 * gallery.GAP :]
    assert np.array_equal(second[:, ::2, :20:2], noise[1])
    assert np.array_equal(second[:, 1::2, 20 + gallery.GAP :: 2], 255 - noise[1])
    assert (sheet[:, 12 + gallery.GAP :, wide + 2 * gallery.GAP :] == gallery.WHITE).all(), "an empty cell is white"


def test_a_grid_is_about_square() -> None:
    clips = np.zeros((16, 1, 8, 8, 3), np.uint8)
    for variants in ((clips,), (clips, clips)):
        _, height, width, _ = side_by_side(*variants).shape
        assert 0.4 < width / height < 2.5


@pytest.mark.parametrize("suffix", gallery.MOVING_SUFFIXES)
def test_what_was_written_can_be_seen_again(tmp_path, suffix) -> None:
    greys = np.array([20, 90, 160, 230])
    picture = np.broadcast_to(greys[:, None, None, None], (4, 33, 47, 3)).astype(np.uint8)
    path = save_moving(picture, tmp_path / "new" / f"clips{suffix}", fps=8.0, seconds=1.0)
    frames = read_moving(path)
    assert len(frames) == (8 if suffix == ".mp4" else 4), "a video comes twice in its second, an animation loops"
    shown = [frame[16, 23].mean() for frame in frames[:4]]
    assert np.allclose(shown, greys, atol=4 if suffix == ".mp4" else 0)


def read_moving(path: Path) -> list[np.ndarray]:
    if path.suffix == ".webp":
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(path))]
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_rare_classes_are_seen() -> None:
    names = ["idle"] * 8 + ["turn", "walk"]
    assert gallery.in_turns(names, 4) == [0, 1, 8, 9]
    assert gallery.in_turns(names, 99) == list(range(10))


def test_what_cannot_be_shown_is_refused(noise, tmp_path) -> None:
    with pytest.raises(ShowingError, match=r"clips.gif: moving pictures are written as .mp4 or .webp"):
        save_moving(noise[0], tmp_path / "clips.gif")
    with pytest.raises(ShowingError, match="0 frames per second"):
        save_moving(noise[0], tmp_path / "clips.mp4", fps=0)
    with pytest.raises(ShowingError, match=r"uint8 \(N, T, H, W, 3\)"):
        save_moving(noise[0].astype(float), tmp_path / "clips.mp4")
    with pytest.raises(ShowingError, match="3 clips need as many different names"):
        save_frames(noise, tmp_path, ["a", "a", "b"])
    with pytest.raises(ShowingError, match="must have one shape"):
        side_by_side(noise, noise[:2])
    with pytest.raises(ShowingError, match="must have one shape"):
        side_by_side()


@pytest.mark.parametrize("word", ["../../x", "/etc/x", "..", "a/b", "\0"])
def test_a_class_from_a_file_does_not_lead_out_of_the_folder(noise, tmp_path, word) -> None:
    asked = tmp_path / "deep" / "asked"
    gallery.write_samples(
        asked, noise, {number: word for number in range(3)}, np.ones((3, 2), int), moving="clips.webp"
    )
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(asked) and path not in asked.parents]
    assert not outside
    assert len(list((asked / "frames").iterdir())) == 3


def test_frames_stay_in_their_folder_whatever_they_are_called(noise, tmp_path) -> None:
    folders = save_frames(noise, tmp_path / "frames", ["../a", "/b", ".."])
    assert {folder.parent for folder in folders} == {tmp_path / "frames"}
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


ENCODE = """
import hashlib, sys
import numpy as np
from pathlib import Path
from evatok.pictures.gallery import save_moving
picture = np.random.default_rng(0).integers(0, 256, (6, 38, 50, 3), dtype=np.uint8)
print(hashlib.sha256(save_moving(picture, Path(sys.argv[1])).read_bytes()).hexdigest())
"""


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_a_moving_picture_has_the_same_bytes_in_every_process(tmp_path, suffix) -> None:
    found = set()
    for name, filler in (("one", "17"), ("two", "200")):
        command = [sys.executable, "-c", ENCODE, str(tmp_path / f"{name}{suffix}")]
        environment = {**os.environ, "MALLOC_PERTURB_": filler, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_frames_of_a_video_are_shown_at_the_rate_asked_for(tmp_path) -> None:
    path = save_moving(np.zeros((4, 16, 16, 3), np.uint8), tmp_path / "clips.mp4", fps=8.0, seconds=1.0)
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        assert "creation_time" not in container.metadata
    assert np.allclose(times, np.arange(8) / 8)
