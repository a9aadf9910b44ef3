"""Sets of clips: built once whatever happens on the way, and never served when they are not what they claim."""

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips, reels, sets, splits
from evatok.data.clips import ClipSet, ClipSetError
from evatok.data.manifest import ManifestError
from evatok.data.reels import ClipSource
from tests.data.noise import MADE, NOISE, failing_reel, killing_reel, noise_reel
from tests.factories import grey_video


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    MADE.clear()
    return tmp_path / "cache"


def build(count: int, split: str = "train", **arguments: int) -> ClipSet:
    return reels.build(NOISE, split, count, **{"size": 8, "frames": 3, "workers": 1, **arguments})


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
    alone = reels.build(NOISE, "train", 5, size=8, frames=3, workers=1, cache=tmp_path / "other")
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
    held = whole.folder / "reels"
    held.mkdir()
    for number in (0, 2):  # what a build killed during its third reel may have left
        reels._make_reel(reels.Job(noise_reel, 0, number, 8, 3, held))
    (held / "000002.csv").unlink()
    (held / ".000002.csv.half").write_text("mot")
    (whole.folder / "manifest.json").unlink()
    MADE.clear()
    assert build(12).sha256 == whole.sha256
    assert MADE == [(0, 1), (0, 2)]
    assert not held.exists()


def test_reels_that_a_kill_left_beside_a_finished_set_are_removed(cache: Path) -> None:
    held = build(6).folder / "reels"
    held.mkdir()
    (held / "000000.npy").touch()
    build(6)
    assert not held.exists()


def test_a_build_overtaken_by_another_process_takes_that_one_s_set(monkeypatch: pytest.MonkeyPatch) -> None:
    original = reels._make_reel

    def overtaken(job: tuple) -> None:
        monkeypatch.setattr(reels, "_make_reel", original)
        build(6)  # the other process finishes and clears the reels away
        original(job)

    monkeypatch.setattr(reels, "_make_reel", overtaken)
    built = build(6)
    assert built.folder is not None
    assert len(clips.load(built.folder)) == 6
    assert not (built.folder / "reels").exists()


def test_a_reel_that_misses_a_file_is_an_error_and_no_set() -> None:
    def missing(stream: int, number: int, size: int, frames: int) -> tuple[np.ndarray, list[dict]]:
        raise FileNotFoundError("the game file")

    source = ClipSource("missing", 4, missing, {}, {})
    with pytest.raises(FileNotFoundError, match="the game file"):
        reels.build(source, "train", 4, size=8, frames=3, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reel", "told"),
    [
        (killing_reel, "the process that made reel 3 was killed by SIGKILL; the reels that are made are kept"),
        (failing_reel, "reel 3 cannot be drawn"),
    ],
)
def test_a_worker_process_that_is_killed_or_fails_ends_the_build_in_one_error(reel, told: str, cache: Path) -> None:
    source = ClipSource("noise", 4, reel, {"version": 1}, {})
    with pytest.raises(ClipSetError, match=told):
        reels.build(source, "train", 24, size=8, frames=3, workers=2)
    assert not multiprocessing.active_children()
    made = len(list(cache.rglob("reels/*.csv")))
    assert 2 <= made < 6, "two processes come to the fourth reel once two are made"
    assert build(24).sha256 == build(24).sha256
    assert len(MADE) == 6 - made, "what the others had made is made once"


@pytest.mark.slow
def test_worker_processes_make_the_same_set(tmp_path: Path) -> None:
    alone = build(12)
    together = reels.build(NOISE, "train", 12, size=8, frames=3, workers=2, cache=tmp_path / "other")
    assert together.sha256 == alone.sha256


def test_splits_and_seeds_share_no_clip() -> None:
    built = [build(8, split, seed=seed) for split in clips.SPLITS for seed in (0, 1)]
    pixels = {clip.tobytes() for one in built for clip in one.clips}
    assert len(pixels) == 6 * 8


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"split": "dev"}, "unknown split 'dev'; choose one of train, validation, test"),
        ({"count": 0}, "at least 1, got 0"),
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
        clips.load(folder)
    assert "build it again" in str(caught.value) or "labels 5" in str(caught.value)


def test_a_cached_set_whose_pixels_have_changed_is_refused_wherever_it_is_asked_for() -> None:
    folder = build(6).folder
    assert folder is not None
    pixels = np.load(folder / "clips.npy", mmap_mode="r+")
    pixels[:] = 0
    pixels.flush()
    for count in (6, 3):
        with pytest.raises(ClipSetError, match="pixels do not match the manifest's sha256; delete the folder"):
            build(count)


def test_pixels_are_hashed_once_per_process_until_the_file_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    original = clips.pixels_sha256
    monkeypatch.setattr(clips, "pixels_sha256", lambda pixels: hashed.append(len(pixels)) or original(pixels))
    folder = build(6).folder
    assert folder is not None
    clips.load(folder)
    clips.load(str(folder))
    assert hashed == [6]
    os.utime(folder / "clips.npy", ns=(1, 1))
    clips.load(folder)
    assert hashed == [6, 6]


def test_head_gives_what_is_there_and_no_more() -> None:
    built = build(6)
    assert built.head(6) is built
    for count in (0, -1, 7):
        with pytest.raises(ClipSetError, match=f"{count} clips requested, it has 6"):
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


def own(path: Path, split: str = "train", count: int = 0) -> ClipSet:
    return sets.clip_set(str(path), split, count, size=16, frames=4)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        ClipSetError, match=r"no clip set called 'webvid': give one of freedoom, .*mixed, .*or the path"
    ):
        own(Path("webvid"))
    with pytest.raises(ClipSetError, match="unknown embedded set 'webvid'"):
        sets.source("webvid")


def test_a_built_folder_serves_its_own_shape_only(tmp_path: Path) -> None:
    folder = build(6, size=16, frames=4).folder
    assert folder is not None
    moved = Path(shutil.copytree(folder, tmp_path / "mine"))
    assert len(own(moved, count=5)) == 5
    assert len(own(moved)) == 6
    with pytest.raises(ClipSetError, match="7 clips requested, it has 6"):
        own(moved, count=7)
    with pytest.raises(ClipSetError, match=r"\(4, 16, 16, 3\), expected \(16, 64, 64, 3\)"):
        sets.clip_set(str(moved), "train", 0, size=64, frames=16)


def test_a_manifest_serves_each_split_its_rows(tmp_path: Path) -> None:
    for name, grey in (("a", 50), ("b", 100), ("c", 200)):
        grey_video(tmp_path / f"{name}.mp4", frames=6, grey=grey)
    table = tmp_path / "clips.csv"
    table.write_text("path,label,split\na.mp4,low,train\nb.mp4,mid,train\nc.mp4,high,test\n")
    assert sets.built(str(table), "train", 0, size=16, frames=4) is None
    train, test = own(table), own(table, "test")
    assert train.labels["label"].tolist() == ["low", "mid"]
    assert np.abs(train.clips.astype(int).mean(axis=(1, 2, 3, 4)) - [50, 100]).max() < 3
    assert test.labels["label"].tolist() == ["high"]
    assert sets.built(str(table), "train", 0, size=16, frames=4) == train.folder
    with pytest.raises(ClipSetError, match="no row of split 'validation': its column split names test, train"):
        own(table, "validation")
    whole = own(table, "all")
    assert whole.labels["split"].tolist() == ["train", "train", "test"]
    assert {found.manifest["splits_by"] for found in (train, test, whole)} == {"the manifest's column split"}


def write_names(folder: Path, count: int) -> Path:
    """A manifest of so many files, which are never opened."""
    for number in range(count):
        (folder / f"{number}.mp4").touch()
    table = folder / "clips.csv"
    table.write_text("path\n" + "".join(f"{number}.mp4\n" for number in range(count)))
    return table


def names_of(table: Path, split: str) -> list[str]:
    return [Path(path).name for path in splits.rows_of(table, split)[0]["path"]]


def test_videos_without_a_split_are_dealt_once_for_all(tmp_path: Path) -> None:
    parts = {split: names_of(write_names(tmp_path, 400), split) for split in clips.SPLITS}
    assert sorted(name for part in parts.values() for name in part) == sorted(
        f"{number}.mp4" for number in range(400)
    )  # each in one of them
    assert all(abs(len(parts[split]) - 4 * share) < 25 for split, share in splits.SHARES.items())
    (tmp_path / "moved").mkdir()
    fewer = {split: names_of(write_names(tmp_path / "moved", 100), split) for split in clips.SPLITS}
    for split, names in fewer.items():  # neither where the folder lies nor what else is in it matters
        assert names == [name for name in parts[split] if int(Path(name).stem) < 100]
    assert len(names_of(tmp_path / "clips.csv", "all")) == 400


def test_the_dealing_of_files_does_not_change_with_versions_and_spellings() -> None:
    held_out = {name: [n for n in range(60) if splits.dealt(f"run/{n}.mp4") == name] for name in ("validation", "test")}
    assert held_out == {"validation": [13, 15, 24, 36, 44, 47, 59], "test": [1, 16, 18, 23, 25, 34, 42, 46, 48, 51, 58]}
    assert splits.dealt("./run/../run/1.mp4") == splits.dealt("run/1.mp4")


def test_clips_of_one_file_share_a_split(tmp_path: Path) -> None:
    table = write_names(tmp_path, 30)
    starts = "".join(f"{number}.mp4,{start}\n" for start in range(3) for number in range(30))
    table.write_text(f"path,start\n{starts}")
    rows = splits.rows_of(table, "all")[0]
    assert (rows.groupby("path")["split"].nunique() == 1).all()
    assert rows["split"].nunique() > 1


def test_a_split_column_filled_in_part_is_refused(tmp_path: Path) -> None:
    table = write_names(tmp_path, 3)
    table.write_text("path,label,split\n0.mp4,a,train\n1.mp4,a,\n2.mp4,a,validation\n")
    for split in ("train", "validation", "all"):
        with pytest.raises(ClipSetError, match=r"1 of 3 rows have an empty split, 1\.mp4 the first: fill it in every"):
            splits.rows_of(table, split)


@pytest.mark.parametrize(("one", "other"), [("train", "Train"), ("validation", "vaildation"), ("test", "tests")])
def test_two_spellings_of_a_split_are_refused(tmp_path: Path, one: str, other: str) -> None:
    table = write_names(tmp_path, 3)
    table.write_text(f"path,label,split\n0.mp4,a,{one}\n1.mp4,a,{other}\n2.mp4,a,{one}\n")
    with pytest.raises(ClipSetError, match=f"1 rows have split '{other}', others '{one}'"):
        splits.rows_of(table, one)


def test_one_file_under_two_names_is_not_in_two_splits(tmp_path: Path) -> None:
    table = write_names(tmp_path, 1)
    (tmp_path / "copy.mp4").symlink_to("0.mp4")
    table.write_text("path,label,split\n0.mp4,a,train\ncopy.mp4,a,validation\n")
    with pytest.raises(ClipSetError, match=r"0\.mp4 and copy\.mp4 are the same file, in splits train and validation"):
        splits.rows_of(table, "train")
    root = tmp_path / "classes"
    (root / "run").mkdir(parents=True)
    (root / "run" / "0.mp4").write_bytes(b"")
    for number in range(1, 40):
        (root / "run" / f"{number}.mp4").symlink_to("0.mp4")
    with pytest.raises(ClipSetError, match="are the same file, in splits"):
        splits.rows_of(root, "train")


def test_too_few_videos_for_a_split_are_refused_with_the_way_out(tmp_path: Path) -> None:
    table = write_names(tmp_path, 2)
    with pytest.raises(ClipSetError, match=r"its 2 files leave none for validation; add a column split \(train, val"):
        own(table, "validation")
    (tmp_path / "mine" / "run").mkdir(parents=True)
    (tmp_path / "mine" / "run" / "0.mp4").touch()
    with pytest.raises(ClipSetError, match="its one file leaves none for test; list them in a manifest CSV"):
        own(tmp_path / "mine", "test")
    with pytest.raises(ClipSetError, match="unknown split 'dev'; choose one of train, validation, test, all"):
        own(table, "dev")


def test_all_of_a_set_is_every_clip_of_a_user_s_own_and_no_split_of_an_embedded_one(tmp_path: Path) -> None:
    for number in range(3):
        grey_video(tmp_path / "mine" / "run" / f"{number}.mp4", frames=6, grey=50 * number)
    found = own(tmp_path / "mine", "all")
    assert len(found) == 3
    assert "sha256" in found.manifest["splits_by"]
    assert found.folder is not None
    assert len(own(found.folder, "all")) == 3
    with pytest.raises(ClipSetError, match="holds the split 'all', not 'train'"):
        own(found.folder, "train")
    for ask in (sets.clip_set, sets.built):
        with pytest.raises(
            ClipSetError, match=r"'freedoom' .* one split at a time: 'all' is not one of them, only train"
        ):
            ask("freedoom", "all", 2, size=16, frames=4)


def test_what_is_not_decoded_is_listed_beside_the_set(tmp_path: Path) -> None:
    grey_video(tmp_path / "good.mp4", frames=6, grey=100)
    grey_video(tmp_path / "short.mp4", frames=2, grey=100)
    table = tmp_path / "clips.csv"
    table.write_text("path\nshort.mp4\ngood.mp4\n")
    found = own(table, "all")
    assert (len(found), found.manifest["failures"]) == (1, 1)
    assert found.folder is not None
    failures = pd.read_csv(found.folder / "failures.csv")
    assert failures["path"].tolist() == [str(tmp_path / "short.mp4")]
    assert "2 frames" in failures["reason"][0]


def test_a_video_that_has_changed_is_decoded_anew(tmp_path: Path) -> None:
    grey_video(tmp_path / "mine" / "low" / "a.mp4", frames=6, grey=50)
    assert own(tmp_path / "mine", "all").clips.mean() < 60
    grey_video(tmp_path / "mine" / "low" / "a.mp4", frames=6, grey=200)
    assert own(tmp_path / "mine", "all").clips.mean() > 190


def test_no_more_of_a_user_s_videos_is_decoded_than_asked(tmp_path: Path) -> None:
    (tmp_path / "mine" / "run").mkdir(parents=True)
    (tmp_path / "mine" / "run" / "0.mp4").write_text("no video")
    for number in range(1, 5):
        grey_video(tmp_path / "mine" / "run" / f"{number}.mp4", frames=6, grey=40 * number)
    two = own(tmp_path / "mine", "all", count=2)
    assert two.folder is not None
    assert len(np.load(two.folder / "clips.npy", mmap_mode="r")) == len(two) == 2
    assert two.manifest["failures"] == 1
    assert own(tmp_path / "mine", "all", count=1).folder == two.folder  # which holds more than enough
    assert sets.built(str(tmp_path / "mine"), "all", 0, size=16, frames=4) is None
    whole = own(tmp_path / "mine", "all")
    assert len(whole) == 4
    assert own(tmp_path / "mine", "all", count=2).sha256 == two.sha256
    with pytest.raises(ClipSetError, match="5 clips requested, it has 4"):
        own(tmp_path / "mine", "all", count=5)


def test_names_that_are_not_utf_8_are_read_and_shown_readable(tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    grey_video(tmp_path / "video.mp4", frames=6, grey=50)
    (tmp_path / "mine" / latin).mkdir(parents=True)
    shutil.copy(tmp_path / "video.mp4", tmp_path / "mine" / latin / f"{latin}.mp4")
    (tmp_path / "mine" / latin / f"{latin}2.mp4").write_text("no video")
    found = own(tmp_path / "mine", "all")
    assert found.labels["label"].tolist() == ["caf\N{REPLACEMENT CHARACTER}"]
    assert found.clips.shape[0] == found.manifest["failures"] == 1
    assert found.folder is not None
    assert "caf?2.mp4" in (found.folder / "failures.csv").read_text()


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    grey_video(tmp_path / "loose" / "a.mp4", frames=6, grey=50)
    with pytest.raises(ManifestError, match="videos outside a class folder"):
        own(tmp_path / "loose")


@pytest.mark.parametrize("ask", [sets.clip_set, sets.built])
def test_a_negative_number_of_clips_is_refused_alike_for_every_set(ask, tmp_path: Path, cache: Path) -> None:
    grey_video(tmp_path / "mine" / "run" / "a.mp4", frames=4)
    shape = {"size": 16, "frames": 4}
    for name, split, told in (
        (str(tmp_path / "mine"), "all", "or 0 for all of them"),
        ("freedoom", "train", "1 or more"),
    ):
        with pytest.raises(ClipSetError, match=f"clip set {name}: -2 clips requested; give .*{told}"):
            ask(name, split, -2, **shape)
    assert not cache.exists()
    whole = sets.clip_set(str(tmp_path / "mine"), "all", 0, **shape)
    assert len(whole) == 1
    with pytest.raises(ClipSetError, match="-2 clips requested; give 1 or more, or 0"):
        ask(str(whole.folder), "all", -2, **shape)
