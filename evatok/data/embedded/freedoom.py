"""The Freedoom set: first-person clips rendered on the spot by ViZDoom from the free game files in its wheel.

A clip is a function of (stream, index) alone. Clips come in reels of 32, each one life of the game process, which any
number of processes can render in any order. A simple policy walks through one of 68 maps; its action per frame gives
the clip's motion label. Training, validation and test clips come from different maps.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from evatok.data.clips import ClipSetError
from evatok.data.embedded import keeper as keeper_module
from evatok.data.reels import split_of
from evatok.storage.files import is_alive
from evatok.storage.leftovers import temporary_folder

WADS = ("freedoom1", "freedoom2")
MAPS = {
    "freedoom1": [f"E{episode}M{number}" for episode in range(1, 5) for number in range(1, 10)],
    "freedoom2": [f"map{number:02d}" for number in range(1, 33)],
}
REEL = 32

# A map's index in its game file, modulo 7, decides its split: 50 maps train, 9 validate, 9 test. Clips of one map share
# walls, textures and starting poses, so splits that shared maps would share pictures.
_CYCLE = 7
_PLACES = {"train": (0, 1, 2, 3, 4), "validation": (5,), "test": (6,)}

# Motion -> (probability, shortest, longest duration in frames). Shares are equal except for a camera at rest, so that
# classes are balanced. Frame differences then have the quartiles of real clips at 8 frames per second (3.1, 6.1 and
# 10.0 of 255, against 3.0, 6.2 and 13.1), which is what the recipe was chosen by.
MOTIONS: dict[str, tuple[float, int, int]] = {
    "idle": (0.30, 3, 11),
    "walk": (0.14, 3, 11),
    "run": (0.14, 3, 11),
    "pan": (0.14, 3, 11),
    "turn": (0.14, 3, 11),
    "strafe": (0.14, 3, 11),
}

RECIPE: dict[str, Any] = {
    "version": 3,
    "set": "freedoom",
    "maps": sum(map(len, MAPS.values())),
    "places": {split: list(places) for split, places in _PLACES.items()},
    "reel": REEL,
    "tics_per_frame": 2,
    "frames_per_second": 17.5,
    "motions": {name: list(values) for name, values in MOTIONS.items()},
    "attack": 0.10,
    "use": 0.25,
    "notarget": 0.6,
    "headings": 6,
    "darkest_mean": 8.0,
    "resize": "area",
}

# All maps in every split, and a camera at rest in three of four frames. Superseded, because clips of different splits
# started on the same pictures and four in five classes were "idle"; kept for what was measured on its clips.
RECIPE_2: dict[str, Any] = {
    **{key: value for key, value in RECIPE.items() if key != "places"},
    "version": 2,
    "motions": {
        "idle": [0.50, 8, 24],
        "walk": [0.07, 3, 11],
        "run": [0.07, 3, 11],
        "pan": [0.05, 3, 11],
        "turn": [0.22, 1, 4],
        "strafe": [0.09, 2, 6],
    },
}

# Standing on these tints the whole frame for the rest of the clip.
_TINTING = ("Invulnerability", "RadSuit", "Infrared", "Berserk")
_BUTTONS = (
    "MOVE_FORWARD_BACKWARD_DELTA",
    "MOVE_LEFT_RIGHT_DELTA",
    "TURN_LEFT_RIGHT_DELTA",
    "ATTACK",
    "USE",
)
_ATTEMPTS = 20
_FOLDER = "evatok-vizdoom-"
_ABANDONED = 3600.0  # seconds

# The engine fills sections missing from a settings file with paths in `_vizdoom`, and creates that folder in its
# working folder, a temporary one. Sections that exist but are empty prevent that.
_SECTIONS = (
    *("IWADSearch.Directories", "FileSearch.Directories", "Doom.AutoExec", "Heretic.AutoExec"),
    *("Hexen.AutoExec", "Strife.AutoExec", "Chex.AutoExec"),
)
_SETTINGS = "".join(f"[{section}]\n" for section in _SECTIONS)


def recipe_versions() -> dict[str, str]:
    """Return the versions of the packages that determine the pixels."""
    return {"vizdoom": version("vizdoom")}


def maps_of(split: str, wad: str, recipe: dict[str, Any] = RECIPE) -> list[str]:
    """Return the maps of a split in a game file: no two splits share one, except in recipe 2."""
    places = recipe.get("places", {}).get(split, range(_CYCLE))
    return [level for place, level in enumerate(MAPS[wad]) if place % _CYCLE in places]


def freedoom_reel(
    stream: int, number: int, size: int = 64, frames: int = 16, recipe: dict[str, Any] = RECIPE
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Render reel `number` of a random stream: uint8 (REEL, frames, size, size, 3) and one dict of labels per clip.

    The stream also names the split (`evatok.data.reels.stream`), and so the maps.

    Clip i of the stream is clip i % REEL of reel i // REEL. A reel is one life of the game process, because the phase
    of animated textures carries over from episode to episode: a clip rendered by itself would differ from the same clip
    rendered after others. Raises ClipSetError if the temporary folder is mounted noexec.
    """
    rng = np.random.default_rng(np.random.SeedSequence([stream, number]))
    wad = WADS[number % len(WADS)]
    maps = maps_of(split_of(stream), wad, recipe)
    with _game(wad, large=size > 120) as game:
        shots = [_good_episode(game, maps, recipe, child, size, frames) for child in rng.spawn(REEL)]
    return np.stack([clip for clip, _ in shots]), [labels for _, labels in shots]


def _good_episode(
    game: Any, maps: list[str], recipe: dict[str, Any], rng: np.random.Generator, size: int, frames: int
) -> tuple[np.ndarray, dict[str, Any]]:
    for _ in range(_ATTEMPTS):
        episode = _episode(game, maps, recipe, rng, size, frames)
        if episode is not None and episode[0].mean() >= RECIPE["darkest_mean"]:
            return episode
    raise RuntimeError(f"Freedoom: {_ATTEMPTS} episodes in a row too dark or cut short")


def _episode(
    game: Any, maps: list[str], recipe: dict[str, Any], rng: np.random.Generator, size: int, frames: int
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Render one clip and its labels; None if the player left the level or fell before the clip was complete."""
    level = str(rng.choice(maps))
    game.set_doom_map(level)
    game.set_seed(int(rng.integers(2**31)))
    game.new_episode()
    if rng.random() < RECIPE["notarget"]:
        game.send_game_command("notarget")
    _warp_to_an_object(game, rng)
    _face_the_open(game)
    plan = _plan(recipe, rng, frames)
    shots = []
    for _, action in plan:
        if game.is_episode_finished():
            return None
        shots.append(_area_resize(game.get_state().screen_buffer, size))
        game.make_action(action, RECIPE["tics_per_frame"])
    motions = [motion for motion, _ in plan]
    labels = {
        "map": level,
        "motion": Counter(motions).most_common(1)[0][0],
        "motions": " ".join(motions),
    }
    return np.stack(shots), labels


@contextmanager
def _game(wad: str, *, large: bool) -> Iterator[Any]:
    """Run a game process that leaves no file, sees none of an earlier one, and ends with this process."""
    _remove_abandoned()
    with temporary_folder(f"{_FOLDER}{os.getpid()}-") as folder:
        settings = folder / "settings.ini"
        settings.write_text(_SETTINGS)
        game = _configured_game(wad, settings, large=large)
        game.set_vizdoom_path(str(_launcher(folder)))
        try:
            game.init()
            yield game
        finally:
            game.close()


def _remove_abandoned() -> None:
    """Remove folders of players killed before their keeper ran, after an hour, as a pid alone is not reliable."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        player = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with suppress(OSError):
            if player.isdecimal() and not is_alive(int(player)) and time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _launcher(folder: Path) -> Path:
    """Return the command to start as the game: a keeper, so that game and folder never outlive this process.

    Raises ClipSetError for a folder mounted noexec.
    """
    import vizdoom

    engine = Path(vizdoom.__file__).parent / "vizdoom"
    keeper = [sys.executable, "-I", "-S", keeper_module.__file__, str(folder), str(os.getpid()), str(engine)]
    launcher = folder / "game"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(keeper)} "$@"\n')
    launcher.chmod(0o700)
    if not os.access(launcher, os.X_OK):
        raise ClipSetError(f"{folder.parent} is mounted noexec, and games start there: set TMPDIR to another folder")
    return launcher


def _configured_game(wad: str, settings: Path, *, large: bool) -> Any:
    import vizdoom

    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / f"{wad}.wad"))
    resolution = "RES_320X240" if large else "RES_160X120"
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, resolution))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_window_visible(False)
    game.set_depth_buffer_enabled(True)
    game.set_objects_info_enabled(True)
    for hide in ("hud", "weapon", "crosshair", "messages", "decals"):
        getattr(game, f"set_render_{hide}")(False)
    game.set_available_buttons([getattr(vizdoom.Button, name) for name in _BUTTONS])
    game.add_game_args("+con_midtime 0 +cl_showsecretmessage 0 +nosound 1")
    game.set_episode_timeout(0)
    game.set_doom_config_path(str(settings))  # the engine writes it back, by default into the current folder
    return game


def _warp_to_an_object(game: Any, rng: np.random.Generator) -> None:
    game.send_game_command("god")
    spots = [
        (round(thing.position_x), round(thing.position_y))
        for thing in game.get_state().objects
        if not thing.name.startswith(_TINTING) and thing.name != "DoomPlayer"
    ]
    if spots:
        x, y = spots[rng.integers(len(spots))]
        game.send_game_command(f"warp {x} {y}")
    game.make_action([0, 0, float(rng.uniform(0, 60)), 0, 0], 4)


def _face_the_open(game: Any) -> None:
    """Turn around once and stop at the heading with the deepest view."""
    headings = RECIPE["headings"]
    depths = []
    for _ in range(headings):
        if game.is_episode_finished():
            return
        depths.append(float(game.get_state().depth_buffer.mean()))
        game.make_action([0, 0, 360 / headings, 0, 0], 1)
    for _ in range(int(np.argmax(depths))):
        game.make_action([0, 0, 360 / headings, 0, 0], 1)


def _plan(recipe: dict[str, Any], rng: np.random.Generator, frames: int) -> list[tuple[str, list[float]]]:
    """Draw a motion and a button vector for each frame."""
    motions = recipe["motions"]
    names = list(motions)
    chances = [motions[name][0] for name in names]
    plan: list[tuple[str, list[float]]] = []
    while len(plan) < frames:
        motion = names[rng.choice(len(names), p=chances)]
        _, shortest, longest = motions[motion]
        action = _action(motion, rng)
        plan += [(motion, action)] * int(rng.integers(shortest, longest + 1))
    return plan[:frames]


def _action(motion: str, rng: np.random.Generator) -> list[float]:
    side = float(rng.choice([-1.0, 1.0]))
    forward = {"walk": rng.uniform(4, 10), "run": rng.uniform(18, 40)}.get(motion, 0.0)
    sideways = side * rng.uniform(6, 20) if motion == "strafe" else 0.0
    turn = {"pan": side * rng.uniform(0.5, 2), "turn": side * rng.uniform(4, 9)}.get(motion, 0.0)
    attack = float(rng.random() < RECIPE["attack"])
    use = float(rng.random() < RECIPE["use"])
    return [float(forward), float(sideways), float(turn), attack, use]


reel_of_recipe_2 = partial(freedoom_reel, recipe=RECIPE_2)


def _area_resize(screen: np.ndarray, size: int) -> np.ndarray:
    """Middle square of an (H, W, 3) screen, box-filtered to (size, size, 3)."""
    from PIL import Image

    height, width, _ = screen.shape
    left = (width - height) // 2
    return np.asarray(Image.fromarray(screen[:, left : left + height]).resize((size, size), Image.Resampling.BOX))
