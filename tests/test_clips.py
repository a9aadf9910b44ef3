"""Sets of clips: built once whatever happens on the way, and never served when they are not what they claim."""

import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips, sets
from evatok.data.clips import ClipSet, ClipSetError, ClipSource
from evatok.data.manifest import ManifestError

MADE: list[tuple[int, int]] = []  # (stream, reel) in the order of making, by this process


def noise_reel(stream: int, number: int, size: int, frames: int) -> tuple[np.ndarray, list[dict]]:
    """Four clips of noise, a function of (stream, number) alone."""
    MADE.append((stream, number))
    rng = np.random.default_rng((stream, number))
    labels = [{"motion": "noise", "place": f"{number}/{clip}"} for clip in range(4)]
    return rng.integers(256, size=(4, frames, size, size, 3), dtype=np.uint8), labels


NOISE = ClipSource("noise", reel_length=4, reel=noise_reel, recipe={"version": 1}, versions={})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    MADE.clear()
    return tmp_path / "cache"


def build(count: int, split: str = "train", **arguments: int) -> ClipSet:
    return clips.build(NOISE, split, count, **{"size": 8, "frames": 3, "workers": 1, **arguments})


def test_a_set_holds_the_reels_clips_in_order_and_says_where_they_come_from() -> None:
    built = build(6)
    whole = np.concatenate([noise_reel(0, number, 8, 3)[0] for number in range(2)])
    assert np.array_equal(built.clips, whole[:6])
    assert built.labels["place"].tolist() == ["0/0", "0/1", "0/2", "0/3", "1/0", "1/1"]
    assert (len(built), built.name, built.manifest["shape"]) == (6, "noise", [6, 3, 8, 8, 3])
    assert built.folder is not None
    assert sorted(path.name for path in built.folder.iterdir()) == ["clips.npy", "labels.csv", "manifest.json"]


def test_a_built_set_is_not_built_again() -> None:
    first = build(6)
    MADE.clear()
    assert np.array_equal(build(6).clips, first.clips)
    assert MADE == []


def test_a_longer_set_serves_a_shorter_count_under_the_hash_of_the_shorter(tmp_path: Path) -> None:
    alone = clips.build(NOISE, "train", 5, size=8, frames=3, workers=1, cache=tmp_path / "other")
    build(9)
    MADE.clear()
    served = build(5)
    assert MADE == []
    assert served.sha256 == alone.sha256
    assert served.manifest["shape"] == [5, 3, 8, 8, 3]
    assert served.labels.equals(alone.labels)


def test_a_killed_build_goes_on_with_the_reels_that_are_missing(cache: Path) -> None:
    whole = build(12)
    assert whole.folder is not None
    reels = whole.folder / "reels"
    reels.mkdir()
    for number in (0, 2):  # what a build killed during its third reel may have left
        clips._make_reel((noise_reel, 0, number, 8, 3, reels))
    (reels / "000002.csv").unlink()
    (reels / ".000002.csv.half").write_text("mot")
    (whole.folder / "manifest.json").unlink()
    MADE.clear()
    assert build(12).sha256 == whole.sha256
    assert MADE == [(0, 1), (0, 2)]
    assert not reels.exists()


def test_a_build_overtaken_by_another_process_takes_that_one_s_set(monkeypatch: pytest.MonkeyPatch) -> None:
    original = clips._make_reel

    def overtaken(job: tuple) -> None:
        monkeypatch.setattr(clips, "_make_reel", original)
        build(6)  # the other process finishes and clears the reels away
        original(job)

    monkeypatch.setattr(clips, "_make_reel", overtaken)
    built = build(6)
    assert built.folder is not None
    assert len(clips.load(built.folder, verify=True)) == 6
    assert not (built.folder / "reels").exists()


def test_a_reel_that_misses_a_file_is_an_error_and_no_set() -> None:
    def missing(stream: int, number: int, size: int, frames: int) -> tuple[np.ndarray, list[dict]]:
        raise FileNotFoundError("the game file")

    source = ClipSource("missing", 4, missing, {}, {})
    with pytest.raises(FileNotFoundError, match="the game file"):
        clips.build(source, "train", 4, size=8, frames=3, workers=1)


@pytest.mark.slow
def test_worker_processes_make_the_same_set(tmp_path: Path) -> None:
    alone = build(12)
    together = clips.build(NOISE, "train", 12, size=8, frames=3, workers=2, cache=tmp_path / "other")
    assert together.sha256 == alone.sha256


def test_splits_and_seeds_share_no_clip() -> None:
    built = [build(8, split, seed=seed) for split in clips.SPLITS for seed in (0, 1)]
    pixels = {clip.tobytes() for one in built for clip in one.clips}
    assert len(pixels) == 6 * 8


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"split": "dev"}, "unknown split 'dev': one of train, validation, test"),
        ({"count": 0}, "0 clips asked"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict, complaint: str, cache: Path) -> None:
    with pytest.raises(ClipSetError, match=complaint):
        build(**{"count": 4, **arguments})
    assert not cache.exists()


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "clips.npy").read_bytes())
    data[-100] ^= 1
    (folder / "clips.npy").write_bytes(data)


def truncate(folder: Path) -> None:
    data = (folder / "clips.npy").read_bytes()
    (folder / "clips.npy").write_bytes(data[:-100])


def lose_a_label(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(lines[:-1]))


DAMAGES = {
    "pixels do not match the manifest's sha256": flip_a_byte,
    r"no complete clip set \(ValueError": truncate,
    "labels 5, manifest says": lose_a_label,
    "no complete clip set .*labels.csv": lambda folder: (folder / "labels.csv").unlink(),
    "no complete clip set .*manifest.json": lambda folder: (folder / "manifest.json").unlink(),
    r"no complete clip set \(KeyError": lambda folder: (folder / "manifest.json").write_text('{"name": "x"}'),
}


@pytest.mark.parametrize("complaint", DAMAGES)
def test_a_damaged_set_is_refused_with_the_way_out(complaint: str) -> None:
    folder = build(6).folder
    assert folder is not None
    DAMAGES[complaint](folder)
    with pytest.raises(ClipSetError, match=complaint) as caught:
        clips.load(folder, verify=True)
    assert "build it again" in str(caught.value) or "labels 5" in str(caught.value)


def test_head_gives_what_is_there_and_no_more() -> None:
    built = build(6)
    assert built.head(6) is built
    for count in (0, -1, 7):
        with pytest.raises(ClipSetError, match=f"{count} clips asked, it has 6"):
            built.head(count)


def test_labels_stay_the_words_they_were(tmp_path: Path) -> None:
    labels = pd.DataFrame({"label": ["007", "NA"], "start": [0.0, 1.5]})
    saved = clips.save(tmp_path / "set", np.zeros((2, 3, 8, 8, 3), np.uint8), labels, {"name": "words"})
    assert saved.labels["label"].tolist() == ["007", "NA"]
    assert saved.labels["start"].tolist() == [0.0, 1.5]


def test_networks_get_channels_first_floats_from_0_to_1() -> None:
    pixels = np.zeros((2, 3, 4, 5, 3), np.uint8)
    pixels[1, 2, 3, 4] = (255, 51, 0)
    batch = clips.to_network(pixels)
    assert (batch.dtype, tuple(batch.shape)) == (torch.float32, (2, 3, 3, 4, 5))
    torch.testing.assert_close(batch[1, :, 2, 3, 4], torch.tensor([1.0, 0.2, 0.0]))
    assert (batch.min(), batch.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3, 4, 5, 3)), np.zeros((3, 4, 5, 3), np.uint8), np.zeros((2, 3, 3, 4, 5), np.uint8)]
)
def test_networks_get_nothing_else(wrong: np.ndarray) -> None:
    with pytest.raises(ClipSetError, match=r"uint8 \(B, T, H, W, 3\)"):
        clips.to_network(wrong)


def write_video(path: Path, grey: int, frames: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def own(path: Path, split: str = "train", count: int = 0) -> ClipSet:
    return sets.clip_set(str(path), split, count, size=16, frames=4)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ClipSetError, match=r"no clips called 'webvid': freedoom, .*mixed, or the path"):
        own(Path("webvid"))
    with pytest.raises(ClipSetError, match="unknown embedded set 'webvid'"):
        sets.source("webvid")


def test_a_built_folder_serves_its_own_shape_only(tmp_path: Path) -> None:
    folder = build(6, size=16, frames=4).folder
    assert folder is not None
    moved = Path(shutil.copytree(folder, tmp_path / "mine"))
    assert len(own(moved, count=5)) == 5
    assert len(own(moved)) == 6
    with pytest.raises(ClipSetError, match="7 clips asked, it has 6"):
        own(moved, count=7)
    with pytest.raises(ClipSetError, match=r"\(4, 16, 16, 3\), \(16, 64, 64, 3\) needed"):
        sets.clip_set(str(moved), "train", 0, size=64, frames=16)


def test_a_manifest_serves_each_split_its_rows(tmp_path: Path) -> None:
    for name, grey in (("a", 50), ("b", 100), ("c", 200)):
        write_video(tmp_path / f"{name}.mp4", grey)
    table = tmp_path / "clips.csv"
    table.write_text("path,label,split\na.mp4,low,train\nb.mp4,mid,train\nc.mp4,high,test\n")
    assert sets.built(str(table), "train", 0, size=16, frames=4) is None
    train, test = own(table), own(table, "test")
    assert train.labels["label"].tolist() == ["low", "mid"]
    assert np.abs(train.clips.astype(int).mean(axis=(1, 2, 3, 4)) - [50, 100]).max() < 3
    assert test.labels["label"].tolist() == ["high"]
    assert sets.built(str(table), "train", 0, size=16, frames=4) == train.folder
    with pytest.raises(ClipSetError, match="no row of split 'validation'"):
        own(table, "validation")


def test_what_is_not_decoded_is_listed_beside_the_set(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", 100)
    write_video(tmp_path / "short.mp4", 100, frames=2)
    table = tmp_path / "clips.csv"
    table.write_text("path\nshort.mp4\ngood.mp4\n")
    found = own(table)
    assert (len(found), found.manifest["failures"]) == (1, 1)
    assert found.folder is not None
    failures = pd.read_csv(found.folder / "failures.csv")
    assert failures["path"].tolist() == [str(tmp_path / "short.mp4")]
    assert "2 frames" in failures["reason"][0]


def test_a_video_that_has_changed_is_decoded_anew(tmp_path: Path) -> None:
    write_video(tmp_path / "mine" / "low" / "a.mp4", 50)
    assert own(tmp_path / "mine").clips.mean() < 60
    write_video(tmp_path / "mine" / "low" / "a.mp4", 200)
    assert own(tmp_path / "mine").clips.mean() > 190


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "loose" / "a.mp4", 50)
    with pytest.raises(ManifestError, match="videos outside a class folder"):
        own(tmp_path / "loose")
