"""Images as clips of one frame: what is read, what is refused, and which splits they come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evatok.data import reels, sets, splits
from evatok.data.class_folders import scan_class_folders
from evatok.data.clips import ClipSetError
from evatok.data.embedded import images, mixed
from evatok.data.manifest import ManifestError, decode_manifest, read_manifest
from evatok.data.probe import VideoError
from evatok.data.still_image import read_image

SIDE = 16


def picture(width: int = 32, height: int = 32) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
    return Image.fromarray(pixels)


def saved(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def sides(clip: np.ndarray) -> tuple[list[int], list[int]]:
    """Colours at the middle of the left and the right side."""
    assert clip.shape == (1, SIDE, SIDE, 3)
    return clip[0, SIDE // 2, 1].tolist(), clip[0, SIDE // 2, -2].tolist()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg"])
def test_an_image_is_a_clip_of_one_frame(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    (left, right) = sides(read_image(path, size=SIDE))
    assert np.abs(np.array([left, right]) - [[255, 0, 0], [0, 0, 255]]).max() <= (40 if suffix == "jpg" else 0)


def test_the_middle_of_a_wide_image_is_kept(tmp_path):
    clip = read_image(saved(tmp_path / "a.png", picture(96, 32)), size=SIDE)
    assert sides(clip) == ([255, 0, 0], [0, 0, 255])
    assert (clip[0, :, : SIDE // 2 - 1, 0] == 255).all()


@pytest.mark.parametrize(
    ("mode", "left", "right"),
    [("L", [76, 76, 76], [29, 29, 29]), ("P", [255, 0, 0], [0, 0, 255]), ("1", None, None), ("LA", [76] * 3, [29] * 3)],
)
def test_other_modes_become_rgb(tmp_path, mode, left, right):
    found = sides(read_image(saved(tmp_path / "a.png", picture().convert(mode)), size=SIDE))
    assert left is None or found == (left, right)


def test_cmyk_becomes_rgb(tmp_path):
    left, right = sides(read_image(saved(tmp_path / "a.jpg", picture().convert("CMYK")), size=SIDE))
    assert left[0] > 200 > 60 > left[2]
    assert right[2] > 200 > 60 > right[0]


def test_what_is_transparent_lies_on_white(tmp_path):
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.r_[[[255] * 16 + [0] * 16] * 32].astype(np.uint8)))
    assert sides(read_image(saved(tmp_path / "a.png", image), size=SIDE)) == ([255, 0, 0], [255, 255, 255])


def test_an_image_held_sideways_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter to the left: its top is the right side
    path = saved(tmp_path / "a.png", picture().rotate(90), exif=exif)
    assert sides(read_image(path, size=SIDE)) == ([255, 0, 0], [0, 0, 255])


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = saved(path, Image.fromarray(noise)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD = {
    "deep.png": (lambda p: saved(p, Image.fromarray(np.full((32, 32), 9000, np.uint16))), "are not 8-bit"),
    "one.png": (lambda p: saved(p, picture(1, 1)), "an image of 1 x 1 pixels; 8 x 8 are needed"),
    "moving.webp": (
        lambda p: saved(p, save_all=True, append_images=[picture().rotate(90)]),
        "an animation of 2 pictures",
    ),
    "truncated.jpg": (truncated, "cannot be read as an image"),
    "words.png": (lambda p: p.write_text("no image"), r"cannot be read as an image \(UnidentifiedImageError\)"),
    "empty.png": (lambda p: p.touch(), "the file is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_shows_no_single_picture_is_refused(tmp_path, name):
    make, complaint = BAD[name]
    make(tmp_path / name)
    with pytest.raises(VideoError, match=complaint):
        read_image(tmp_path / name, size=SIDE)


def test_an_image_beyond_all_measure_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("evatok.data.still_image.MOST", 500)
    with pytest.raises(VideoError, match="an image of 32 x 32 pixels; at most 500 are read"):
        read_image(saved(tmp_path / "a.png"), size=SIDE)


def test_a_name_does_not_decide_what_a_file_is(tmp_path):
    path = saved(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert sides(read_image(path, size=SIDE)) == ([255, 0, 0], [0, 0, 255])


def test_every_image_is_a_clip_or_a_counted_failure(tmp_path, cache):
    saved(tmp_path / "set" / "dog" / "good.png")
    for name, (make, _) in BAD.items():
        make(tmp_path / "set" / "dog" / name)
    found = sets.clip_set(tmp_path / "set", "all", 0, size=SIDE, frames=1)
    assert found.clips.shape == (1, 1, SIDE, SIDE, 3)
    assert found.labels["label"].tolist() == ["dog"]
    assert found.manifest["failures"] == len(BAD)
    failures = pd.read_csv(found.folder / "failures.csv")
    assert sorted(Path(path).name for path in failures["path"]) == sorted(BAD)


# What is taken of a folder


@pytest.fixture
def both(tmp_path) -> Path:
    """A class with two images, a video and a folder of images."""
    for name in ("b.png", "a.JPEG", "frames/1.png"):
        saved(tmp_path / "cat" / name, format="png")
    (tmp_path / "cat" / "v.mp4").write_text("a video")
    return tmp_path


def test_stills_take_images_and_name_what_they_leave_out(both, caplog):
    caplog.set_level("INFO", "evatok.data")
    rows = scan_class_folders(both, stills=True)
    assert [Path(path).name for path in rows["path"]] == ["a.JPEG", "b.png"]
    told = "cat/frames (a folder in a class), cat/v.mp4 (by its name no image)"
    assert caplog.messages == [f"{both}: 2 left out: {told}"]


def test_videos_leave_images_out(both):
    assert [Path(path).name for path in scan_class_folders(both)["path"]] == ["frames", "v.mp4"]


@pytest.mark.parametrize(
    ("name", "stills", "complaint"),
    [
        ("cat/a.png", False, "without a clip: cat;.* 1 images, which configurations of modality=image"),
        ("cat/a.mp4", True, "without an image: cat;.* 1 videos, which configurations of modality=video"),
        ("a.png", True, "images outside a class folder: a.png"),
    ],
)
def test_data_of_the_other_kind_is_told_what_reads_it(tmp_path, name, stills, complaint):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ManifestError, match=complaint):
        scan_class_folders(tmp_path, stills=stills)


def test_imagenets_folders_are_splits(tmp_path):
    for name in ("train/dog/1.JPEG", "train/cat/2.JPEG", "val/dog/3.JPEG"):
        saved(tmp_path / name, format="jpeg")
    rows, made_by = splits.rows_of(tmp_path, "validation", stills=True)
    assert [(Path(path).name, label) for path, label in zip(rows["path"], rows["label"], strict=True)] == [
        ("3.JPEG", "dog")
    ]
    assert made_by == "the folders above the classes"
    assert len(splits.rows_of(tmp_path, "all", stills=True)[0]) == 3


def test_classes_called_train_and_test_are_classes(tmp_path):
    for name in ("train/1.png", "test/2.png"):
        saved(tmp_path / name)
    assert scan_class_folders(tmp_path, stills=True)["label"].tolist() == ["test", "train"]


def test_a_manifest_lists_images_and_names_its_videos(tmp_path):
    for name in ("a.png", "b.png"):
        saved(tmp_path / name)
    (tmp_path / "v.mp4").write_text("a video")
    (tmp_path / "list.csv").write_text("a.png cat\nb.png dog\nv.mp4 dog\n")
    rows = read_manifest(tmp_path / "list.csv")
    clips, labels, failures = decode_manifest(rows, frames=1, size=SIDE)
    assert (clips.shape, labels["label"].tolist()) == ((2, 1, SIDE, SIDE, 3), ["cat", "dog"])
    assert failures["reason"].tolist() == [
        "a video, but images are asked for; modality=video, frames above 1, reads videos"
    ]
    with pytest.raises(ManifestError, match="an image, but clips have 4 frames"):
        decode_manifest(rows[:2], frames=4, size=SIDE)
    with pytest.raises(ManifestError, match="nor a rate to sample at"):
        decode_manifest(rows[:2], frames=1, size=SIDE, fps=3.0)


# The embedded set


def of_one_frame(stream: int, number: int, size: int, frames: int):
    clips = np.full((mixed.REEL, frames, size, size, 3), stream, np.uint8)
    labels = [{"set": "freedoom", "map": "E1M2", "motion": "walk", "motions": "walk"}] * (mixed.REEL - 2)
    return clips, [*labels, {"set": "freedoom", "map": "map07"}, {"set": "arcade", "game": "pong", "cuts": 0}]


def test_embedded_images_are_the_mixed_sets_with_its_games_as_labels(monkeypatch):
    monkeypatch.setattr("evatok.data.embedded.mixed.mixed_reel", of_one_frame)
    clips, labels = images.images_reel(reels.stream("validation", 0), 0, SIDE)
    assert clips.shape == (images.REEL, 1, SIDE, SIDE, 3)
    assert [one["label"] for one in labels[-3:]] == ["freedoom1", "freedoom2", "pong"]
    assert not {"motion", "motions", "cuts"} & {name for one in labels for name in one}
    assert labels[0]["map"] == "E1M2"
    with pytest.raises(ClipSetError, match="an image has 1 frame, 16 requested"):
        images.images_reel(0, 0, SIDE, 16)


def test_videos_are_no_images_and_images_no_videos():
    with pytest.raises(ClipSetError, match="'mixed' holds videos: as clips of 1 frame there are only images"):
        sets.clip_set("mixed", "train", 4, size=SIDE, frames=1)
    with pytest.raises(ClipSetError, match="'images' holds images"):
        sets.clip_set("images", "train", 4, size=SIDE, frames=16)
