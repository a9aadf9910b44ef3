"""Videos within tar shards and tables, and sets joined by +: the clips that the same files give one by one."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evatok.data import containers, splits
from evatok.data.clips import ClipSetError
from evatok.data.containers import ContainerError
from evatok.data.sets import clip_set
from evatok.data.streaming import Streaming
from evatok.storage.files import cache_folder
from tests.factories import grey_video

SHAPE = {"size": 16, "frames": 4}
GREYS = {"a": 40, "b": 120, "c": 200}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def videos(tmp_path) -> dict[str, Path]:
    """One video per class, in class folders."""
    return {name: grey_video(tmp_path / "films" / name / f"{name}.mp4", 8, grey) for name, grey in GREYS.items()}


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


def table(videos: dict[str, Path], *, inside: bool = True) -> pa.Table:
    """As datasets writes one: a video column, and classes as numbers with their names in the metadata."""
    held = [{"bytes": path.read_bytes() if inside else None, "path": str(path)} for path in videos.values()]
    features = {"label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}, "video": {"_type": "Video"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("video", kind), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"video": held, "label": [2, 0, 1]}, schema=schema)


def means(name: Path | str, **how: object) -> tuple[list[int], list[str]]:
    found = clip_set(str(name), "all", 0, **SHAPE, **how)
    return found.clips[:].mean((1, 2, 3, 4)).round().astype(int).tolist(), found.labels["label"].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tar_shard_gives_the_clips_of_its_files(tmp_path, videos, workers):
    plain, _ = means(tmp_path / "films")
    first = {
        "0.mp4": videos["a"].read_bytes(),
        "0.cls": b"ant",
        "0.txt": b"a caption",
        "1.mp4": videos["b"].read_bytes(),
    }
    second = {"2.mp4": videos["c"].read_bytes(), "2.json": json.dumps({"label": "cow"}).encode()}
    shard(tmp_path / "shards" / "s-000.tar", first)
    shard(tmp_path / "shards" / "s-001.tar", second)
    how = {"streaming": Streaming(workers)} if workers else {}
    assert means(tmp_path / "shards", **how) == (plain, ["ant", "", "cow"])
    assert means(tmp_path / "shards" / "s-001.tar", **how) == (plain[2:], ["cow"])
    rows, made_by = splits.rows_of(tmp_path / "shards", "all")
    assert "sha256 of seed" in made_by
    assert rows["path"].iloc[0].endswith("s-000.tar/0.mp4")


def test_shards_with_a_split_in_their_names_have_that_split(tmp_path, videos):
    for split, name in {"train": "a", "val": "b"}.items():
        shard(tmp_path / "shards" / f"ucf-{split}-000.tar", {"0.mp4": videos[name].read_bytes()})
    rows, made_by = splits.rows_of(tmp_path / "shards", "all")
    assert rows["split"].tolist() == ["train", "validation"]
    assert made_by == "the names of the shards"
    assert len(clip_set(tmp_path / "shards", "validation", 0, **SHAPE)) == 1


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_table_of_videos_gives_the_clips_of_its_rows(tmp_path, videos, suffix):
    plain, _ = means(tmp_path / "films")
    path = tmp_path / "set" / "data" / f"train-00000-of-00001{suffix}"
    path.parent.mkdir(parents=True)
    if suffix == ".parquet":
        pq.write_table(table(videos), path, row_group_size=2)
    else:
        with pa.ipc.new_stream(path, table(videos).schema) as stream:
            stream.write_table(table(videos))
    assert means(tmp_path / "set") == (plain, ["cow", "ant", "bee"])
    assert set(splits.rows_of(tmp_path / "set", "train")[0]["split"]) == {"train"}


def test_a_table_may_name_its_files(tmp_path, videos):
    pq.write_table(table(videos, inside=False), tmp_path / "named.parquet")
    assert means(tmp_path / "named.parquet")[0] == means(tmp_path / "films")[0]


def test_a_broken_video_in_a_shard_is_left_out_and_a_changed_shard_read_again(tmp_path, videos):
    path = shard(tmp_path / "s.tar", {"0.mp4": b"no video", "1.mp4": videos["a"].read_bytes()})
    found = clip_set(path, "all", 0, **SHAPE, streaming=Streaming(1))
    assert (len(found), found.manifest["failures"]) == (1, 1)
    shard(path, {"0.mp4": videos["b"].read_bytes(), "1.mp4": videos["a"].read_bytes()})
    assert len(clip_set(path, "all", 0, **SHAPE, streaming=Streaming(1))) == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"not a tar file at all", "not an uncompressed tar file"), (b"", "hold no video|not an uncompressed tar")],
)
def test_a_damaged_shard_is_named(tmp_path, content, complaint):
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(ContainerError, match=complaint):
        containers.scan(tmp_path / "s.tar")


def test_a_table_without_videos_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(ContainerError, match=r"no column of videos .* in \['text'\]"):
        containers.scan(tmp_path / "t.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(ContainerError, match="not a complete table"):
        containers.scan(tmp_path / "cut.parquet")


# Joined


@pytest.mark.parametrize("workers", [0, 1])
def test_joined_sets_are_one_after_the_other(tmp_path, videos, workers):
    (tmp_path / "one.csv").write_text("path,label,split\nfilms/a/a.mp4,x,train\nfilms/b/b.mp4,y,validation\n")
    (tmp_path / "two.csv").write_text("path,label,split\nfilms/c/c.mp4,z,train\n")
    name = f"{tmp_path / 'one.csv'}+{tmp_path / 'two.csv'}"
    how = {"streaming": Streaming(workers)} if workers else {}
    found = clip_set(name, "train", 0, **SHAPE, **how)
    assert (found.name, found.labels["label"].tolist()) == ("one+two", ["x", "z"])
    assert len(clip_set(name, "validation", 0, **SHAPE, **how)) == 1
    alone = clip_set(tmp_path / "one.csv", "train", 0, **SHAPE, **how)
    assert np.array_equal(found.clips[:1], alone.clips[:1])


def test_a_file_in_two_splits_of_joined_sets_is_refused(tmp_path, videos):
    (tmp_path / "one.csv").write_text("path,split\nfilms/a/a.mp4,train\n")
    (tmp_path / "two.csv").write_text("path,split\nfilms/a/a.mp4,validation\n")
    with pytest.raises(ClipSetError, match="are the same file, in splits train and validation"):
        clip_set(f"{tmp_path / 'one.csv'}+{tmp_path / 'two.csv'}", "train", 0, **SHAPE)


def test_a_part_that_is_not_there_or_embedded_is_named(tmp_path, videos):
    with pytest.raises(ClipSetError, match=r"no listing at freedoom, of .*: only manifests and folders"):
        clip_set(f"{tmp_path / 'films'}+freedoom", "train", 0, **SHAPE)


def test_a_name_with_a_plus_is_a_name_where_it_is_there(tmp_path, videos):
    (tmp_path / "films").rename(tmp_path / "films+more")
    assert len(clip_set(tmp_path / "films+more", "all", 0, **SHAPE)) == 3
    assert cache_folder().is_dir()
