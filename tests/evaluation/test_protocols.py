"""Protocols mean the same for ever, refuse what does not meet them, and choose clips by index alone."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evatok.data import clips as clip_sets
from evatok.data.manifest import ManifestError
from evatok.data.probe import VideoError
from evatok.evaluation import protocols
from evatok.evaluation.protocols import PROTOCOLS, Protocol, ProtocolError
from evatok.storage import records

# Name and version -> the beginning of the hash. A protocol that changes gets a new version and a new line; a line
# that was released stays.
PINNED = {
    "own-reconstruction 1": "81379b40a4a1",
    "own-reconstruction-128 1": "bd46dbce2652",
    "own-images-reconstruction 1": "1156dec85d93",
    "own-images-reconstruction-256 1": "18d65cadef7f",
    "embedded-reconstruction 1": "5bfcc8eb03b9",
    "embedded-reconstruction 2": "219887658dca",
    "embedded-features 2": "1887558599ba",
    "embedded-unseen 2": "03a190dfa91c",
    "embedded-unseen-by-proxy 1": "100d726ba753",
    "embedded-generation 2": "ddf7f49e802b",
    "embedded-games-generation 2": "8a28d9ce5a56",
    "embedded-prediction 2": "abe075897b36",
    "embedded-features 1": "4ad25b770885",
    "embedded-unseen 1": "b7e0237035bf",
    "embedded-generation 1": "63eaa45abe2f",
    "embedded-games-generation 1": "a00ef9cd7c03",
    "embedded-prediction 1": "dd0c2d091104",
    "embedded-images-reconstruction 1": "077ecab6b4f1",
    "embedded-images-generation 1": "002cdff62fa2",
    "imagenet-reconstruction-50k 1": "5edf183ddc77",
    "imagenet-generation-50k 1": "d48ad27c57c3",
    "larp-ucf101-reconstruction 1": "90fe06f6ba6a",
    "larp-ucf101-generation 1": "5f7395fefabe",
    "larp-k600-prediction 1": "e222451e7fd8",
    "webvid-validation-3fps 1": "362c20a065d5",
    "videoflextok-k600-17-frame 1": "373d88c704e8",
    "videoflextok-k600-17-frame-generation 1": "f843598a6dda",
    "videoflextok-msrvtt-17-frame 1": "b598c4ba251d",
    "moving-shapes-understanding 1": "13e2e2638d8e",
    "moving-shapes-understanding-12fps 1": "77c8f855d412",
    "moving-shapes-understanding-3fps 1": "47fcf0e9c544",
    "moving-shapes-align 1": "8742fdf602ba",
    "moving-shapes-generation 1": "0ece093b12ef",
    "vtok-tv-align 1": "17cc34c88b98",
    "freedoom-understanding 1": "7af24eb0f7d3",
    "video-mme-without-subtitles 1": "66154ca2972f",
    "video-mme-with-subtitles 1": "798323bbdd9d",
    "video-mmmu 1": "a4c30d2e4d9b",
    "mmvu 1": "d8af3d1be21b",
    "mvbench 1": "c3916e093677",
    "longvideobench 1": "63ed7859e5f3",
    "lvbench 1": "0cb4cdf0131d",
    "vbench 1": "a07e07d7d7cb",
}


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, value[0]) if value else ("new",)
    if isinstance(value, str):
        return f"{value}!"
    return 1 if value is None else value + 1


@pytest.fixture
def brief() -> Protocol:
    """Three clips of four frames from a user's videos."""
    base = protocols.get("larp-ucf101-reconstruction")
    return dataclasses.replace(base, name="brief", data="films", clips=3, frames=4, size=16)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_video(path: Path, frames: int, height: int = 32, width: int = 48) -> None:
    """Frames whose grey value is ten times their number, up to the rounding of YUV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = np.full((height, width, 3), 10 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def grey_steps(clips: np.ndarray) -> np.ndarray:
    """The numbers (N, T) of such frames in clips."""
    return np.rint(clips[:, :, 8, 8, 0] / 10).astype(int)


def record_under(protocol: Protocol, **changes: Any) -> records.Record:
    told = protocol.to_record(manifest_of(protocol), protocol.clips or 1, None)
    environment = dict.fromkeys(records.ENVIRONMENT_KEYS)
    return records.new_record(
        kind="evaluate",
        status="toy",
        protocol={**told, **changes},
        model={},
        metrics={"psnr": records.Metric(30.0, "dB", protocol.clips or 1, "higher")},
        config={},
        environment=environment,
    )


def manifest_of(protocol: Protocol) -> dict[str, Any]:
    """The manifest of clips made as the protocol says."""
    shape = [protocol.clips or 1, protocol.frames, protocol.size, protocol.size, 3]
    made = {"name": protocol.data, "split": protocol.split, "seed": protocol.clip_seed, "shape": shape}
    return {**made, "recipe": {"version": protocol.data_version}, "protocol": protocol.hash}


# Identity


def test_every_field_is_in_the_hash():
    protocol = protocols.get("embedded-reconstruction")
    for field in dataclasses.fields(Protocol):
        other = object.__new__(Protocol)  # past the checks: any value counts
        for name, value in {**vars(protocol), field.name: changed(getattr(protocol, field.name))}.items():
            object.__setattr__(other, name, value)
        assert other.hash != protocol.hash, field.name


def test_names_are_unique_and_no_two_protocols_are_the_same():
    assert len(PROTOCOLS) == len(protocols.catalogue._ALL)
    assert len({(p.name, p.version) for p in PROTOCOLS.values()}) == len(PROTOCOLS)
    assert len({p.hash for p in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_a_released_version_never_changes():
    found = {f"{p.name} {p.version}": p.hash[:12] for p in PROTOCOLS.values()}
    odd = {name: sha256 for name, sha256 in found.items() if PINNED.get(name) != sha256}
    assert not odd, f"changed or new: raise the version, and pin here {odd}"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ProtocolError, match=r"unknown protocol 'ucf'; choose one of .*larp-ucf101-reconstruction"):
        protocols.get("ucf")


def test_every_network_of_a_metric_is_named():
    for protocol in PROTOCOLS.values():
        named = dict(protocol.networks)
        for metric in (*protocol.metrics, *protocol.optional):
            assert metric in named or metric in ("psnr", "ssim", "l1", "mse", "accuracy"), (protocol.name, metric)


def test_a_protocol_that_contradicts_itself_is_refused():
    embedded = protocols.get("embedded-reconstruction")
    with pytest.raises(ProtocolError, match='clip_choice must be "made"'):
        dataclasses.replace(embedded, clip_choice="first")
    with pytest.raises(ProtocolError, match="unknown clip choice 'frist'"):
        dataclasses.replace(embedded, clip_choice="frist")
    with pytest.raises(ProtocolError, match="their number must be known"):
        dataclasses.replace(protocols.get("larp-ucf101-generation"), clips=None)


def test_images_of_imagenets_folders_are_the_protocols_clips(tmp_path, monkeypatch):
    """Those of val in their order, the shorter side brought to the size; one that cannot be read is an error."""
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("train/a/0.JPEG", "val/a/1.JPEG", "val/b/2.JPEG")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 40), (100 * number,) * 3).save(tmp_path / name)
    protocol = dataclasses.replace(protocols.get("imagenet-reconstruction-50k"), clips=2, size=8)
    found = protocols.clips_of(protocol, str(tmp_path))
    assert found.clips.shape == (2, 1, 8, 8, 3)
    assert np.abs(found.clips.mean((1, 2, 3, 4)) - [100, 200]).max() < 2
    assert found.labels["label"].tolist() == ["a", "b"]
    assert not protocols.deviations(protocol, found.manifest, 2)
    assert len(protocols.clips_of(protocol, str(tmp_path), limit=1)) == 1
    (tmp_path / "val" / "a" / "1.JPEG").write_text("no image")
    with pytest.raises(VideoError, match="cannot be read as an image"):
        protocols.clips_of(protocol, str(tmp_path))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_compares_samples_is_no_reconstruction(name):
    assert protocols.get(name).reconstructs == ("generation" not in name and "prediction" not in name)


# Comparable


def test_a_run_that_meets_its_protocol_is_comparable():
    for protocol in PROTOCOLS.values():
        record = record_under(protocol)
        assert protocols.comparable(record) == (protocol.clips is not None), protocol.name


def test_every_deviation_is_named_and_forbids_comparison():
    protocol = protocols.get("embedded-reconstruction")
    good = manifest_of(protocol)
    odd: dict[str, dict[str, Any]] = {
        "data is 'arcade'": {"name": "arcade"},
        "split is 'train'": {"split": "train"},
        "clip seed is 1": {"seed": 1},
        "recipe version is 1": {"recipe": {"version": 1}},
        "shape of a clip is [16, 32, 32, 3]": {"shape": [320, 16, 32, 32, 3]},
    }
    assert protocols.deviations(protocol, good, 320) == []
    for told, change in odd.items():
        found = protocols.deviations(protocol, {**good, **change}, 320)
        assert len(found) == 1
        assert told in found[0]
    assert protocols.deviations(protocol, good, 8, 8) == ["limited to 8 clips", "8 clips instead of 320"]
    record = record_under(protocol, **protocol.to_record(good, 8, 8))
    assert not protocols.comparable(record)


def test_a_record_under_an_older_version_is_not_comparable():
    protocol = protocols.get("embedded-reconstruction")
    old = dataclasses.replace(protocol, version=0)
    record = record_under(protocol, hash=old.hash, version=0)
    assert protocols.why_not_comparable(record) == [
        f"{record.id} was measured under version 0 of embedded-reconstruction, now {protocol.version}"
    ]
    assert not protocols.comparable(record_under(protocol, name="something"))
    assert not protocols.comparable(record_under(protocol, comparable=False))


def test_clips_cut_by_another_protocol_are_a_deviation():
    ours, other = (protocols.get(name) for name in ("larp-ucf101-reconstruction", "larp-ucf101-generation"))
    manifest = {**manifest_of(ours), "protocol": other.hash}
    assert "protocol that chose and resized the clips" in protocols.deviations(ours, manifest, 9537)[0]


# Clips


def test_a_random_start_depends_on_the_video_alone(brief):
    lengths = [10, 4, 2, 30]
    chosen = protocols.windows(lengths, brief, seed=0)
    assert chosen[:2] == protocols.windows(lengths[:2], brief, seed=0)
    assert [video for video, _ in chosen] == [0, 1, 2, 3]
    assert chosen[1:3] == [(1, 0), (2, 0)]
    many = [start for _, start in protocols.windows([10] * 400, brief, seed=0)]
    assert set(many) == set(range(7))
    assert many != [start for _, start in protocols.windows([10] * 400, brief, seed=1)]


def test_windows_do_not_overlap_and_come_once(brief):
    brief = dataclasses.replace(brief, clip_choice="windows", clips=4)
    chosen = protocols.windows([11, 3, 9], brief, seed=0)
    assert len(set(chosen)) == 4
    assert set(chosen) <= {(0, 0), (0, 4), (1, 0), (2, 0), (2, 4)}
    with pytest.raises(ProtocolError, match="draws 4 windows, the videos have 2"):
        protocols.windows([4, 4], brief, seed=0)


def test_the_first_choice_starts_at_the_start(brief):
    assert protocols.windows([9, 9], dataclasses.replace(brief, clip_choice="first"), 5) == [(0, 0), (1, 0)]


def test_videos_become_the_clips_the_protocol_says(brief, tmp_path, cache):
    for name, frames in (("a", 12), ("b", 3), ("c", 4)):
        write_video(tmp_path / "films" / "grey" / f"{name}.mkv", frames)
    found = protocols.clips_of(brief, str(tmp_path / "films"))
    assert found.clips.shape == (3, 4, 16, 16, 3)
    steps = grey_steps(found.clips)
    start = protocols.windows([12, 3, 4], brief, 0)[0][1]
    assert steps[0].tolist() == [start, start + 1, start + 2, start + 3]
    assert steps[1].tolist() == [0, 1, 2, 2]  # too short: the last frame again
    assert steps[2].tolist() == [0, 1, 2, 3]
    assert protocols.deviations(brief, found.manifest, 3) == []
    assert protocols.clips_of(brief, str(tmp_path / "films")).folder == found.folder
    assert protocols.clips_of(brief, str(found.folder)).sha256 == found.sha256
    again = protocols.clips_of(brief, str(tmp_path / "films"), limit=2)
    assert np.array_equal(again.clips, found.clips[:2])
    assert protocols.deviations(brief, protocols.clips_of(brief, str(tmp_path / "films"), seed=1).manifest, 3)
    with pytest.raises(ProtocolError, match="holds a single choice of clips"):
        protocols.clips_of(brief, str(found.folder), seed=1)


def test_frame_rate_and_stride_pick_frames(brief, tmp_path, cache):
    write_video(tmp_path / "films" / "grey" / "a.mkv", 20)  # a second of 20 frames
    slow = dataclasses.replace(brief, clip_choice="first", fps=5.0, clips=1)
    steps = grey_steps(protocols.clips_of(slow, str(tmp_path / "films")).clips)
    assert steps[0].tolist() == [0, 4, 8, 12]
    strided = dataclasses.replace(slow, fps=None, stride=3)
    steps = grey_steps(protocols.clips_of(strided, str(tmp_path / "films")).clips)
    assert steps[0].tolist() == [0, 3, 6, 9]


def test_tar_shards_give_the_clips_of_the_same_files_in_folders(brief, tmp_path, cache):
    """One shard, or a folder of them whose names tell splits, of which the protocol takes its own."""
    names = {"0": 12, "1": 3, "2": 4}
    for name, frames in names.items():
        write_video(tmp_path / "films" / "grey" / f"{name}.mkv", frames)
    folders = protocols.clips_of(brief, tmp_path / "films")

    def shard(path: Path, held: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as made:
            for name in held:
                made.add(tmp_path / "films" / "grey" / f"{name}.mkv", f"{name}.mkv")
        return path

    single = protocols.clips_of(brief, shard(tmp_path / "one.tar", "012"))
    assert np.array_equal(single.clips, folders.clips)
    assert protocols.deviations(brief, single.manifest, 3) == []
    shard(tmp_path / "many" / "train-0.tar", "01")
    shard(tmp_path / "many" / "train-1.tar", "2")
    assert np.array_equal(protocols.clips_of(brief, tmp_path / "many").clips, folders.clips)
    shard(tmp_path / "many" / "val-0.tar", "012")
    assert np.array_equal(protocols.clips_of(brief, tmp_path / "many").clips, folders.clips)
    unsuited = dataclasses.replace(brief, split="test")
    with pytest.raises(ProtocolError, match="no row of split 'test'"):
        protocols.clips_of(unsuited, tmp_path / "many")


def test_images_within_tar_shards_are_refused(tmp_path, cache):
    tarfile.open(tmp_path / "images.tar", "w").close()
    with pytest.raises(ProtocolError, match="images within tar shards or tables are not read; unpack them"):
        protocols.clips_of(protocols.get("imagenet-reconstruction-50k"), tmp_path / "images.tar")


def test_what_cannot_become_clips_is_refused(brief, tmp_path, cache):
    write_video(tmp_path / "films" / "grey" / "a.mkv", 2)
    with pytest.raises(ProtocolError, match="is not shipped: set data to"):
        protocols.clips_of(brief)
    with pytest.raises(ProtocolError, match="does not exist: set data to"):
        protocols.clips_of(brief, str(tmp_path / "nothing"))
    with pytest.raises(ProtocolError, match="do not set data"):
        protocols.clips_of(protocols.get("embedded-reconstruction"), str(tmp_path))
    strict = dataclasses.replace(brief, padded=False)
    with pytest.raises(VideoError, match="only 2 frames at the protocol's rate, 4 needed"):
        protocols.clips_of(strict, str(tmp_path / "films"))
    (tmp_path / "films" / "empty").mkdir()
    with pytest.raises(ManifestError, match="without a clip"):
        protocols.clips_of(brief, str(tmp_path / "films"))


def test_a_manifest_serves_its_split_and_no_starts_of_its_own(brief, tmp_path, cache):
    write_video(tmp_path / "a.mkv", 5)
    rows = pd.DataFrame({"path": ["a.mkv"], "split": ["test"]})
    rows.to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(ProtocolError, match="no row of split 'train'"):
        protocols.clips_of(brief, str(tmp_path / "list.csv"))
    rows.assign(split="train", start=0.1).to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(ProtocolError, match="chooses where clips start"):
        protocols.clips_of(brief, str(tmp_path / "list.csv"))


def test_resizing_is_torchvisions(brief):
    from torchvision.transforms import v2

    random = np.random.default_rng(0)
    for height, width in ((40, 60), (33, 90), (16, 16), (70, 31)):
        picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ours = protocols.square(picture, 16, "bilinear-antialias")
        steps = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])
        theirs = steps(clip_sets.to_network(picture[None, None])[0, :, 0]) * 255
        assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() <= 0.51, (height, width)
    with pytest.raises(ProtocolError, match="made at 16x16"):
        protocols.square(np.zeros((20, 20, 3), np.uint8), 16, "made-at-size")
