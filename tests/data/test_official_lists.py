"""The lists that UCF-101, Kinetics and WebVid come with, read as they are."""

from pathlib import Path

import pytest

from evatok.data.manifest import ManifestError, read_manifest
from evatok.data.splits import rows_of

KINETICS = "label,youtube_id,time_start,time_end,split\n"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a video")


def names(rows) -> list[str]:
    return [Path(path).name for path in rows["path"]]


@pytest.mark.parametrize("home", ["", "UCF-101/", "../UCF-101/"])
def test_ucfs_lists_split_and_label_its_videos(tmp_path, home):
    lists = tmp_path / "ucfTrainTestlist"
    touch(*(lists / home / f"Archery/v_{number}.avi" for number in (1, 2)), lists / home / "Bowling/v_3.avi")
    (lists / "trainlist01.txt").write_text("Archery/v_1.avi 1\nBowling/v_3.avi 2\n")
    (lists / "testlist01.txt").write_text("Archery/v_2.avi\n")
    train, made_by = rows_of(lists / "trainlist01.txt", "train")
    assert names(train) == ["v_1.avi", "v_3.avi"]
    assert train["label"].tolist() == ["Archery", "Bowling"]
    assert "column split" in made_by
    assert names(rows_of(lists / "trainlist01.txt", "validation")[0]) == ["v_2.avi"]
    assert rows_of(lists / "testlist01.txt", "test")[0]["label"].tolist() == ["Archery"]


def test_kinetics_names_files_by_video_and_seconds(tmp_path):
    touch(tmp_path / "archery/abc_000002_000012.mp4", tmp_path / "-x1_000110_000120.mp4")
    (tmp_path / "k600.csv").write_text(f"{KINETICS}archery,abc,2,12,train\nbowling,-x1,110.0,120.0,validate\n")
    rows = read_manifest(tmp_path / "k600.csv")
    assert names(rows) == ["abc_000002_000012.mp4", "-x1_000110_000120.mp4"]
    assert rows["label"].tolist() == ["archery", "bowling"]
    assert rows["split"].tolist() == ["train", "validation"]


def test_webvid_lies_in_its_page_folders(tmp_path):
    touch(tmp_path / "000001_000050/1066674784.mp4")
    header = "videoid,contentUrl,duration,page_dir,name\n"
    (tmp_path / "results_10M_val.csv").write_text(
        f'{header}1066674784,https://x,PT00H00M10S,000001_000050,"Aerial, a"\n'
    )
    assert names(read_manifest(tmp_path / "results_10M_val.csv")) == ["1066674784.mp4"]


@pytest.mark.parametrize(
    ("row", "told"), [("archery,abc,2", "fewer cells"), ("archery,abc,two,12,train", "'two' is no")]
)
def test_a_damaged_row_is_told(tmp_path, row, told):
    (tmp_path / "k600.csv").write_text(KINETICS + row + "\n")
    with pytest.raises(ManifestError, match=told):
        read_manifest(tmp_path / "k600.csv")


def test_clips_that_were_never_downloaded_are_left_out_where_the_set_is_streamed(tmp_path):
    touch(tmp_path / "archery/abc_000002_000012.mp4")
    (tmp_path / "k600.csv").write_text(f"{KINETICS}archery,abc,2,12,train\narchery,gone,2,12,train\n")
    with pytest.raises(ManifestError, match="1 of 2 files are missing"):
        read_manifest(tmp_path / "k600.csv")
    assert len(read_manifest(tmp_path / "k600.csv", missing=True)) == 2
