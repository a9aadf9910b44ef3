import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest

from evatok.data.embedded import arcade
from evatok.data.embedded.arcade import GAMES, RECIPE, arcade_clip, recipe_versions


def index_of(game: str) -> int:
    return GAMES.index(game)


@pytest.fixture(scope="module")
def ale_py():
    return pytest.importorskip("ale_py")


def test_the_games_are_those_of_the_package_without_the_excluded(ale_py):
    from ale_py.roms import get_all_rom_ids

    assert set(GAMES) == set(get_all_rom_ids()) - arcade.CRASHING_GAMES - arcade.NEAR_STATIC_GAMES
    assert len(GAMES) == 89
    assert list(GAMES) == sorted(GAMES)


def test_a_clip_has_the_asked_shape_and_shows_something(ale_py):
    clip, labels = arcade_clip(0, index_of("enduro"), frames=5, size=40)
    assert clip.shape == (5, 40, 40, 3)
    assert clip.dtype == np.uint8
    assert clip.std() > RECIPE["blank_spread"]
    assert labels["game"] == "enduro"
    assert labels["class"] == index_of("enduro")
    assert (clip[0] != clip[-1]).any(), "the road of enduro always moves"


def test_a_clip_depends_on_seed_and_index_alone(ale_py):
    first, other = index_of("pong"), index_of("zaxxon")
    clip, labels = arcade_clip(3, first)
    arcade_clip(3, other)
    again, labels_again = arcade_clip(3, first)
    np.testing.assert_array_equal(clip, again)
    assert labels == labels_again
    for seed, index in [(4, first), (3, first + len(GAMES))]:
        different, its_labels = arcade_clip(seed, index)
        assert its_labels["game"] == "pong"
        assert (different != clip).any()


def test_a_shorter_clip_is_the_beginning_of_the_longer(ale_py):
    index = index_of("qbert")
    np.testing.assert_array_equal(arcade_clip(1, index, frames=4)[0], arcade_clip(1, index, frames=12)[0][:4])


def test_classes_are_balanced(ale_py, monkeypatch):
    monkeypatch.setattr(arcade, "_Episode", FakeEpisode)
    counts = Counter(arcade_clip(0, index)[1]["class"] for index in range(2 * len(GAMES)))
    assert counts == {game_class: 2 for game_class in range(len(GAMES))}


class FakeEpisode:
    def __init__(self, game, rng):
        self.rng = rng

    def record(self, frames, size):
        return self.rng.integers(0, 256, (frames, 2, 2, 3), dtype=np.uint8)

    def labels(self):
        return {}


def test_a_screen_that_stays_blank_is_an_error(monkeypatch):
    monkeypatch.setattr(FakeEpisode, "record", lambda self, frames, size: np.zeros((frames, 2, 2, 3), np.uint8))
    monkeypatch.setattr(arcade, "_Episode", FakeEpisode)
    with pytest.raises(RuntimeError, match="air_raid stayed blank"):
        arcade_clip(0, 0)


def test_a_mode_that_is_over_at_once_is_passed_over(ale_py):
    """Demon Attack calls its two-player modes 3, 5 and 7 finished from the first frame on."""
    for seed in range(3):
        _, labels = arcade_clip(seed, index_of("demon_attack"), frames=2)
        assert labels["mode"] == 1
        assert labels["cuts"] == 0


def test_another_process_makes_the_same_bytes(ale_py, tmp_path):
    indices = [index_of("seaquest"), index_of("tetris")]
    code = (
        "from hashlib import sha256; from evatok.data.embedded.arcade import arcade_clip\n"
        f"for i in {indices[::-1]}: print(sha256(arcade_clip(7, i)[0].tobytes()).hexdigest())"
    )
    environment = os.environ | {"ALE_ROMS_DIR": str(tmp_path), "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    expected = [sha256(arcade_clip(7, index)[0].tobytes()).hexdigest() for index in indices]
    assert done.stdout.split() == expected[::-1], "and nothing else is printed"
    assert done.stderr == "", "the emulator's banner is silenced"


def test_the_recipe_can_be_written_into_a_manifest(ale_py):
    import json

    assert json.loads(json.dumps(RECIPE))["version"] == 1
    assert set(recipe_versions()) == {"ale-py"}


def test_area_resize_is_the_exact_mean():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (210, 160, 3), dtype=np.uint8)
    whole = image.reshape(2, 105, 2, 80, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_array_equal(arcade._area_resize(image, 2), np.floor(whole + 0.5))
    np.testing.assert_array_equal(arcade._area_resize(image[:64, :64], 64), image[:64, :64])
    flat = np.full((210, 160, 3), 77, np.uint8)
    assert (arcade._area_resize(flat, 64) == 77).all(), "cells that split pixels keep the brightness"


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"index": -1}, {"frames": 0}, {"size": 0}])
def test_impossible_arguments_are_named(wrong):
    arguments = {"seed": 0, "index": 0, **wrong}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        arcade_clip(**arguments)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ImportError, match=r'the Arcade set needs ale-py: pip install "evatok\[arcade\]"'):
        arcade_clip(0, 0)
    with pytest.raises(ImportError, match="needs ale-py"):
        recipe_versions()
