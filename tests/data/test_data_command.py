"""The command line of the clip sets, run through its own main."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evatok.data import clips, sets
from evatok.data.__main__ import main
from evatok.data.reels import ClipSource


def striped_reel(stream: int, number: int, size: int, frames: int) -> tuple[np.ndarray, list[dict]]:
    """Two clips of noise, a function of (stream, number) alone."""
    rng = np.random.default_rng((stream, number))
    labels = [{"motion": "noise", "map": f"E{number}M{clip}"} for clip in range(2)]
    return rng.integers(256, size=(2, frames, size, size, 3), dtype=np.uint8), labels


@pytest.fixture(autouse=True)
def quick_freedoom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise by the name of Freedoom, and a cache of the test's own."""
    source = ClipSource("freedoom", 2, striped_reel, {"version": 1}, {})
    original = sets.source
    monkeypatch.setattr(sets, "source", lambda name: source if name == "freedoom" else original(name))
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


SMALL = ["--size", "8", "--frames", "4", "--workers", "1"]


def fails_with_one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    told = capsys.readouterr()
    assert caught.value.code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def write_classes(folder: Path, images: int = 4) -> Path:
    """Two classes of one clip each, as folders of images; the second is one image short."""
    for label, count in (("jump", images), ("run", images - 1)):
        clip = folder / label / "clip"
        clip.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((8, 8, 3), 40 * index, np.uint8)).save(clip / f"{index}.png")
    return folder


def test_build_says_what_the_set_holds(capsys: pytest.CaptureFixture[str]) -> None:
    main(["build", "freedoom", "--clips", "3", "--split", "train", *SMALL])
    told = capsys.readouterr().out
    built = sets.clip_set("freedoom", "train", 3, size=8, frames=4)
    for part in (f"folder    {built.folder}", "3 of 4 frames, 8 x 8 pixels", built.sha256, "noise 3", "E0M0 1"):
        assert part in told
    assert "failures" not in told


def test_build_counts_failures_and_names_their_reasons(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["build", str(write_classes(tmp_path / "mine")), *SMALL])
    told = capsys.readouterr().out
    assert "label     jump 1\n" in told
    assert "failures  1\n" in told
    assert f"{tmp_path / 'mine' / 'run' / 'clip'}: only 3 images from index 0, 4 needed" in told


def test_many_labels_are_cut_short(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = pd.DataFrame({"label": [f"class {number}" for number in range(11)]})
    clips.save(tmp_path / "mine", np.zeros((11, 4, 8, 8, 3), np.uint8), labels, {"name": "mine"})
    main(["build", "mine"])  # the shape is the folder's own
    assert "class 7 1, and 3 more\n" in capsys.readouterr().out


def test_check_reads_every_pixel_and_makes_the_first_reel_again(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["freedoom", "--clips", "3", *SMALL]
    main(["build", *arguments])
    capsys.readouterr()
    main(["check", *arguments, "--remake"])
    told = capsys.readouterr().out
    assert "3 clips match sha256" in told
    assert "first 2 clips come out bit for bit the same" in told


def test_check_catches_other_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["freedoom", "--clips", "3", *SMALL]
    main(["build", *arguments])
    folder = sets.built("freedoom", "validation", 3, size=8, frames=4)
    assert folder is not None
    pixels = np.load(folder / "clips.npy")
    pixels[0, 0, 0, 0, 0] ^= 1
    np.save(folder / "clips.npy", pixels)
    capsys.readouterr()
    assert "do not match the manifest's sha256" in fails_with_one_line(capsys, "check", *arguments)
    clips.save(folder, pixels, pd.DataFrame({"motion": ["noise"] * 3}), {"name": "freedoom"})
    main(["check", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["check", *arguments, "--remake"])
    assert "1 of the first 2 clips come out differently now" in capsys.readouterr().err


def test_check_of_what_is_not_built_builds_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "build it first" in fails_with_one_line(capsys, "check", "freedoom", *SMALL)
    mine = write_classes(tmp_path / "mine")
    assert "build it first" in fails_with_one_line(capsys, "check", str(mine), *SMALL)
    assert not (tmp_path / "cache").exists()


def test_a_user_s_own_set_cannot_be_remade(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = [str(write_classes(tmp_path / "mine")), *SMALL]
    main(["build", *arguments])
    main(["check", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main(["check", *arguments, "--remake"])
    assert f"is not made from numbers, only {', '.join(sets.EMBEDDED)} are" in capsys.readouterr().err


def test_show_writes_a_contact_sheet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["show", "freedoom", "--clips", "2", *SMALL, "--output", "sheets/two.png"])
    with Image.open(tmp_path / "sheets" / "two.png") as sheet:
        assert f"2 clips of freedoom, {sheet.width} x {sheet.height} pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["build", "webvid"], "evatok.data: no clip set called 'webvid': give one of freedoom, arcade"),
        (["build", "freedoom", "--clips", "0"], "--clips: must be an integer of at least 1, got '0'"),
        (["build", "freedoom", "--size", "big"], "must be an integer of at least 1, got 'big'"),
        (["build", "freedoom", "--seed=-1"], "must be an integer of at least 0, got '-1'"),
        (["build", "freedoom", "--fps", "nan"], "must be a number above 0, got 'nan'"),
        (["build", "freedoom", "--split", "dev"], "invalid choice: 'dev'"),
        (["show", "freedoom", "--output", "sheet.xyz"], "'sheet.xyz' does not end in .png"),
        (["look", "freedoom"], "invalid choice: 'look'"),
        (["build"], "the following arguments are required: NAME"),
    ],
)
def test_a_user_s_error_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str) -> None:
    assert complaint in fails_with_one_line(capsys, *arguments)


def test_a_faulty_manifest_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path\na.mp4\n")
    assert "1 of 1 files are missing" in fails_with_one_line(capsys, "build", "clips.csv")


def test_columns_that_are_not_used_are_told_once(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    write_classes(tmp_path / "mine")
    (tmp_path / "clips.csv").write_text("path,width,height\nmine/jump/clip,64,64\n")
    main(["build", "clips.csv", *SMALL])
    assert caplog.messages == ["clips.csv: columns that are not used: width, height"]
    assert "width" not in capsys.readouterr().out


def test_arcade_without_its_package_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert 'pip install "evatok[arcade]"' in fails_with_one_line(capsys, "build", "arcade")


def test_a_file_in_the_way_of_the_cache_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    assert str(tmp_path / "cache") in fails_with_one_line(capsys, "build", "freedoom", *SMALL)
