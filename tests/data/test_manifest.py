"""Manifests and class trees: every mistake is named by line or file, and no clip is lost without a word."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evatok.data.class_folders import scan_class_folders
from evatok.data.manifest import ManifestError, decode_manifest, read_manifest
from tests.factories import grey_video

SIDE = 32


def write_images(folder: Path, *, count: int = 16, grey: int = 128) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((SIDE, SIDE, 3), grey, np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"not opened by the reader of manifests")
    return tmp_path


def manifest(folder: Path, text: str) -> Path:
    path = folder / "clips.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_resolve_against_the_manifest_and_absent_columns_are_filled(folder: Path) -> None:
    frame = read_manifest(manifest(folder, "path,label\na.mp4,007\n\nb.mp4,NA\n"))
    assert frame["path"].tolist() == [str(folder / "a.mp4"), str(folder / "b.mp4")]
    assert frame["label"].tolist() == ["007", "NA"]  # labels are words: neither a number nor a missing value
    assert frame["start"].tolist() == [0.0, 0.0]
    assert frame["split"].tolist() == ["", ""]


def test_a_spreadsheet_s_byte_order_mark_and_spaces_do_no_harm(folder: Path) -> None:
    frame = read_manifest(manifest(folder, "\ufeffpath, start\na.mp4, 1.5\n"))
    assert frame["start"].tolist() == [1.5]


def test_further_columns_are_left_alone_and_told_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evatok.data")
    path = manifest(folder, ",path,label,source,seconds\n0,a.mp4,wolf,mine,2.0\n1,b.mp4,fox,mine,0.8\n")
    first, second = read_manifest(path), read_manifest(path)
    assert first["label"].tolist() == second["label"].tolist() == ["wolf", "fox"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: columns that are not used: (no name), source, seconds"
    ]


@pytest.mark.parametrize(
    ("header", "row", "label"),
    [
        ("id,path,action,label", "0,a.mp4,Archery,7", "7"),
        ("path,class,action", "a.mp4,Sport,Archery", "Archery"),
        ("path,class", "a.mp4,Sport", "Sport"),
        ("path,label,labels", "a.mp4,Sport,all of them", "Sport"),
        ("path;label", "a.mp4;Sport", "Sport"),
        ("path\tlabel", "a.mp4\tSport, outdoor", "Sport, outdoor"),
    ],
)
def test_an_action_or_class_is_the_label_where_there_is_none(folder: Path, header: str, row: str, label: str) -> None:
    frame = read_manifest(manifest(folder, f"{header}\n{row}\n"))
    assert (Path(frame["path"][0]).name, frame["label"][0]) == ("a.mp4", label)


@pytest.mark.parametrize("line", ["{} 3", "{}\t3", "{},3", "{}; 3", '"{}",3'])
@pytest.mark.parametrize("name", ["a.mp4", "my own.mp4", "frames"])
def test_a_list_without_a_header_is_paths_and_labels(folder: Path, line: str, name: str) -> None:
    (folder / "my own.mp4").touch()
    (folder / "frames").mkdir()
    frame = read_manifest(manifest(folder, f"\n{line.format(name)}\n{line.format('b.mp4')}\n"))
    assert frame["path"].tolist() == [str(folder / name), str(folder / "b.mp4")]
    assert frame["label"].tolist() == ["3", "3"]


def test_a_list_of_paths_alone_is_read_with_their_blanks(folder: Path) -> None:
    (folder / "my own, old.mp4").touch()
    frame = read_manifest(manifest(folder, "my own, old.mp4\na.mp4\n"))
    assert [Path(path).name for path in frame["path"]] == ["my own, old.mp4", "a.mp4"]
    assert frame["label"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty; the columns are path, label, start, split"),
        ("path,label\n", "lists no clips"),
        (
            "path,lable\na.mp4,x\n",
            r"unknown column 'lable' \(is it label\?\); the columns are path, label, start, split",
        ),
        ("paths,label\na.mp4,x\n", r"'paths' \(is it path\?\)"),
        ("Path,splits\na.mp4,x\n", r"'Path' \(is it path\?\), 'splits' \(is it split\?\)"),
        ("path,action,action\na.mp4,x,y\n", "each once"),
        ("a.mp4,x\nb.mp4\n", "line 2: 1 cells in a list without a header"),
        ("a.mp4,0,1\n", "line 1: 3 cells in a list without a header.*name the columns in a first line"),
        ("a.mp4 0\nc.mp4 1\n", "1 of 2 files are missing"),
        ("label\nx\n", "only path is required"),
        ("path,path\na.mp4,a.mp4\n", "each once"),
        ("path,label\na.mp4,x,y\n", "line 2: 3 cells for the 2 of the header"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,start\na.mp4,soon\n", "line 2: start is 'soon'"),
        ("path,start\n\na.mp4,-1\n", "line 3: start is '-1'"),
        ("path\na.mp4\nb.mp4\n./a.mp4\n", "duplicate path and start: lines 2, 4"),
        ("path\na.mp4\nc.mp4\nd.mp4\n", "2 of 3 files are missing: .*c.mp4, .*d.mp4"),
        ('path\n"a.mp4\n', "not a comma-separated"),
    ],
)
def test_a_faulty_manifest_is_refused_by_name_and_line(folder: Path, text: str, complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(manifest(folder, text))


def test_an_absent_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere\.csv: there is no such manifest"):
        read_manifest(tmp_path / "nowhere.csv")


def test_the_same_file_at_two_starts_is_two_clips(folder: Path) -> None:
    assert len(read_manifest(manifest(folder, "path,start\na.mp4,0\na.mp4,2\n"))) == 2


def test_class_folders_become_labels_in_natural_order(tmp_path: Path) -> None:
    for name in ("run/v10.mp4", "run/v9.AVI", "jump/v1.mp4", "jump/readme.txt", ".cache/v.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_images(tmp_path / "jump" / "v2")
    frame = scan_class_folders(tmp_path)
    found = [(Path(path).name, label) for path, label in zip(frame["path"], frame["label"], strict=True)]
    assert found == [("v1.mp4", "jump"), ("v2", "jump"), ("v9.AVI", "run"), ("v10.mp4", "run")]
    assert list(frame.columns) == ["path", "label", "start", "split"]


def test_videos_of_every_camera_are_read_and_what_is_left_out_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "evatok.data")
    (tmp_path / "run").mkdir()
    for name in ("1.3gp", "2.ogv", "00003.MTS", "4.m2ts", "still.webp"):
        (tmp_path / "run" / name).touch()
    (tmp_path / "run" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "run" / "pipe.mp4")
    for _ in range(2):
        frame = scan_class_folders(tmp_path)
    assert [Path(path).name for path in frame["path"]] == ["1.3gp", "2.ogv", "00003.MTS", "4.m2ts"]
    assert caplog.messages == [
        f"{tmp_path}: 3 left out: run/gone.mp4 (a broken link), run/pipe.mp4 (not a regular file), "
        "run/still.webp (by its name no video)"
    ]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no class folder"),
        (["a.mp4"], "videos outside a class folder: a.mp4"),
        (["run/a.mp4", "notes/a.txt"], "class folders without a clip: notes"),
        (["run/a.mp4", "run/deeper/b.mp4"], "folders without images: deeper"),
    ],
)
def test_nothing_that_looks_like_a_clip_is_passed_over(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ManifestError, match=complaint):
        scan_class_folders(tmp_path)


def test_every_row_is_either_a_clip_or_a_named_failure(tmp_path: Path) -> None:
    grey_video(tmp_path / "dark" / "1.mp4", grey=40)
    grey_video(tmp_path / "dark" / "2.mp4", frames=3)
    (tmp_path / "dark" / "3.mp4").write_text("no video")
    grey_video(tmp_path / "light" / "1.mp4", grey=220)
    write_images(tmp_path / "light" / "2", grey=220)
    rows = scan_class_folders(tmp_path)
    clips, labels, failures = decode_manifest(rows, frames=16, size=SIDE, fps=None)
    assert clips.shape == (3, 16, SIDE, SIDE, 3)
    assert labels["label"].tolist() == ["dark", "light", "light"]
    assert [bool(clip.mean() > 128) for clip in clips] == [False, True, True]  # each label with its own clip
    assert failures.index.tolist() == [1, 2]
    assert failures["path"].tolist() == rows["path"].iloc[[1, 2]].tolist()
    assert "only 3 frames from 0 s, 16 needed" in failures["reason"].iloc[0]


def test_a_rate_cannot_be_kept_by_images_without_times(tmp_path: Path) -> None:
    rows = pd.DataFrame({"path": [str(write_images(tmp_path / "images"))]})
    with pytest.raises(ManifestError, match=r"none of 1 clips.*no timestamps to sample at 3 fps"):
        decode_manifest(rows, frames=4, size=SIDE, fps=3)


def test_no_rows_and_wrong_arguments_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no rows"):
        decode_manifest(pd.DataFrame({"path": []}), frames=4, size=SIDE, fps=None)
    with pytest.raises(ValueError, match="frames and size must be at least 1"):
        decode_manifest(pd.DataFrame({"path": ["a.mp4"]}), frames=0, size=SIDE, fps=None)
