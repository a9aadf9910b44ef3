"""Freedoom's clips: the same bytes whenever and wherever they are made, and nothing left behind."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evatok.data import clips, reels, sets
from evatok.data.clips import ClipSetError
from evatok.data.embedded import freedoom
from evatok.data.embedded.freedoom import MAPS, MOTIONS, RECIPE_2, REEL, WADS, freedoom_reel, maps_of

SMALL = {"size": 16, "frames": 4}
FEW = 8  # clips in a reel where fewer tell as much: a game takes the same time for each
ANOTHER_PROCESS = f"""
import hashlib, sys
from evatok.data.embedded import freedoom
freedoom.REEL = {FEW}
made, labels = freedoom.freedoom_reel(3, 1, size=16, frames=4)
print(hashlib.sha256(made.tobytes() + str(labels).encode()).hexdigest())
assert "torch" not in sys.modules, "workers that make clips start without it"
"""


def digest(reel: tuple[np.ndarray, list[dict]]) -> str:
    return hashlib.sha256(reel[0].tobytes() + str(reel[1]).encode()).hexdigest()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freedoom, "REEL", FEW)


@pytest.fixture(scope="module")
def reel() -> tuple[np.ndarray, list[dict]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freedoom, "REEL", FEW)
        return freedoom_reel(3, 1, **SMALL)


def test_clips_have_the_shape_asked_for_and_show_something(reel: tuple[np.ndarray, list[dict]]) -> None:
    made, labels = reel
    assert (made.shape, made.dtype) == ((FEW, 4, 16, 16, 3), np.uint8)
    assert made.mean(axis=(1, 2, 3, 4)).min() >= 8.0
    assert made.std(axis=(1, 2, 3, 4)).min() > 0
    assert len({clip.tobytes() for clip in made}) == FEW
    assert len(labels) == FEW


def test_labels_name_the_map_and_every_frame_s_motion(reel: tuple[np.ndarray, list[dict]]) -> None:
    for labels in reel[1]:
        motions = labels["motions"].split()
        assert labels["map"] in MAPS[WADS[1]]
        assert len(motions) == 4
        assert set(motions) <= set(MOTIONS)
        assert motions.count(labels["motion"]) == max(map(motions.count, motions))


def test_nothing_is_left_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("evatok.data.embedded.freedoom.REEL", 1)
    freedoom_reel(0, 0, size=8, frames=1)
    assert list(work.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_settings_in_the_current_folder_change_nothing(few, reel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_vizdoom.cfg").write_text("ticrate = 20\n")  # the engine reads it unasked in its own folder
    assert digest(freedoom_reel(3, 1, **SMALL)) == digest(reel)


def test_folders_of_killed_players_go_with_a_later_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    no_process = 2**22 + 1
    old, young, living = (tmp_path / f"evatok-vizdoom-{pid}-x" for pid in (no_process, no_process + 1, os.getpid()))
    for folder in (old, young, living):
        folder.mkdir()
    for folder in (old, living):
        os.utime(folder, (0, 0))
    freedoom._remove_abandoned()
    assert sorted(tmp_path.iterdir()) == sorted([young, living])


def test_a_temporary_folder_in_which_nothing_can_be_executed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ClipSetError, match="mounted noexec, and games start there: set TMPDIR"):
        freedoom_reel(3, 1, **SMALL)


def test_a_reel_does_not_depend_on_what_was_made_before_it(few, reel: tuple[np.ndarray, list[dict]]) -> None:
    freedoom_reel(3, 2, **SMALL)
    assert digest(freedoom_reel(3, 1, **SMALL)) == digest(reel)


@pytest.mark.slow
def test_another_process_makes_the_same_bytes(reel: tuple[np.ndarray, list[dict]], tmp_path: Path) -> None:
    command = [sys.executable, "-c", ANOTHER_PROCESS]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told.strip() == digest(reel)


@pytest.mark.slow
def test_splits_share_no_clip_and_a_built_set_can_be_made_again(few, tmp_path: Path) -> None:
    source = sets.source("freedoom")
    built = [reels.build(source, split, FEW, workers=1, cache=tmp_path, **SMALL) for split in clips.SPLITS]
    assert len({clip.tobytes() for one in built for clip in one.clips}) == 3 * FEW
    again, _ = freedoom_reel(reels.stream("validation", 0), 0, **SMALL)
    assert np.array_equal(built[1].clips, again)


def test_no_two_splits_share_a_map_and_every_map_has_one():
    for wad in WADS:
        shares = [maps_of(split, wad) for split in clips.SPLITS]
        assert sorted(level for share in shares for level in share) == sorted(MAPS[wad])
        assert all(maps_of(split, wad, RECIPE_2) == MAPS[wad] for split in clips.SPLITS)


@pytest.mark.slow
def test_pictures_of_another_split_are_no_nearer_than_pictures_of_another_map():
    """Splits that shared maps would begin on the same pictures: here the nearest are as far as maps are apart."""
    train, _ = freedoom_reel(reels.stream("train", 0), 0, size=16, frames=1)
    more, _ = freedoom_reel(reels.stream("train", 0), 1, size=16, frames=1)
    held_out, labels = freedoom_reel(reels.stream("validation", 0), 0, size=16, frames=1)
    assert {one["map"] for one in labels} <= set(maps_of("validation", WADS[0]))
    first, second, other = (reel[:, 0].reshape(REEL, -1).astype(float) for reel in (train, more, held_out))

    def nearest(some: np.ndarray, among: np.ndarray) -> np.ndarray:
        return np.sqrt(((some[:, None] - among[None]) ** 2).mean(-1)).min(1)

    # Reels 0 and 1 come from different game files, so their maps differ as well.
    assert nearest(other, first).min() > 0.5 * nearest(second, first).min() > 0
    assert nearest(other, first).min() > 2


@pytest.mark.slow
def test_an_older_recipe_is_another_set_of_clips_under_its_own_manifest(few, tmp_path: Path) -> None:
    new, old = (
        reels.build(sets.source(name), "validation", 4, workers=1, cache=tmp_path, **SMALL)
        for name in ("freedoom", "freedoom@2")
    )
    assert (new.manifest["recipe"]["version"], old.manifest["recipe"]["version"]) == (3, 2)
    assert new.sha256 != old.sha256
    assert new.name == old.name == "freedoom"


def test_a_recipe_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ClipSetError, match=r"'freedoom' has no recipe '7': 2, 3"):
        sets.source("freedoom@7")
    assert sets.pinned("freedoom") == "freedoom@3"
    assert sets.pinned("my.csv") == "my.csv"
