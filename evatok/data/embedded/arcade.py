"""The Arcade set: gameplay clips generated on the user's machine by the Arcade Learning Environment (ALE).

A random but persistent player presses buttons in one of 89 games; every clip is its own short episode, a
function of (seed, index) alone. Clips can therefore be made in any order by any number of processes, and a
training split and a test split that use different seeds (or disjoint index ranges) share no episode.

`ale-py` is GPL-2.0 and the games carry no licence of their own: the package is the optional extra `arcade`,
imported only when a clip is made, and no frame of these games belongs in a repository.
"""

import importlib
import importlib.metadata
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

GAMES: tuple[str, ...] = tuple(
    """
    air_raid alien amidar assault asterix asteroids atlantis atlantis2 bank_heist battle_zone beam_rider
    berzerk bowling boxing carnival centipede chopper_command crossbow darkchambers defender demon_attack
    donkey_kong double_dunk earthworld elevator_action enduro entombed et fishing_derby freeway frogger
    frostbite galaxian gopher gravitar haunted_house hero ice_hockey jamesbond journey_escape kaboom kangaroo
    keystone_kapers king_kong koolaid krull kung_fu_master laser_gates lost_luggage mario_bros miniature_golf
    montezuma_revenge mr_do ms_pacman name_this_game othello pacman phoenix pitfall pong pooyan private_eye
    qbert riverraid road_runner robotank seaquest sir_lancelot skiing solaris space_invaders space_war
    star_gunner superman surround tennis tetris time_pilot trondead turmoil up_n_down venture video_checkers
    video_cube video_pinball wizard_of_wor word_zapper yars_revenge zaxxon
    """.split()  # noqa: SIM905 - a paragraph, not 89 lines
)
"""The kept games in class order; a game's index is its class."""

HELD_OUT_GAMES: tuple[str, ...] = GAMES[2::3]
"""A third of the games, held out of every embedded training set: unseen by the proxy and by the routers."""

SEEN_GAMES: tuple[str, ...] = tuple(game for game in GAMES if game not in HELD_OUT_GAMES)

CRASHING_GAMES = frozenset({"combat", "joust", "maze_craze", "warlords"})
"""Two-player games: loading one ends the whole process, so they must not even be tried."""

NEAR_STATIC_GAMES = frozenset(
    """
    adventure backgammon basic_math blackjack breakout casino crazy_climber flag_capture hangman
    human_cannonball klax pitfall2 tic_tac_toe_3d tutankham video_chess
    """.split()  # noqa: SIM905
)
"""Games in which a random player hardly makes anything move."""

RECIPE: dict[str, Any] = {
    "version": 1,
    "games": list(GAMES),  # game of a clip: index modulo their number
    "frame_skip": 4,  # emulator frames (60 Hz) per clip frame: 15 fps
    "hold_probability": 0.85,  # the pressed button stays pressed for another clip frame
    "mode": "random among those that can be played alone",
    "difficulty": "random",
    "actions": "minimal",
    "sticky_actions": 0.0,  # the emulator's own action repeat is off: holding is ours
    "fire_presses": 3,  # at every start of a game, each pressed and released for one clip frame
    "burn_in": (30, 600),  # emulator frames played before the first kept one, both ends inclusive
    "flicker": "maximum of the last two emulator frames",
    "resize": "area",  # the whole screen, squeezed to a square
    "blank_spread": 2.0,  # a clip whose pixels all have a standard deviation below this is replayed
    "attempts": 8,
}
"""Everything besides seed, index, frames and size that determines a clip's bytes; part of a set's manifest."""


def recipe_of(games: tuple[str, ...]) -> dict[str, Any]:
    """The recipe of the Arcade set restricted to some games."""
    return {**RECIPE, "games": list(games)}


REEL = 16
"""Clips per reel: arbitrary, since every clip is its own episode."""

_NOOP, _FIRE = 0, 1
_STREAM = 0xA4CADE  # separates these random streams from others seeded with the same (seed, index)


def recipe_versions() -> dict[str, str]:
    """Return the version of `ale-py`, whose emulator and game files the clips also depend on.

    Raises ImportError when the package is not installed.
    """
    _ale()
    return {"ale-py": importlib.metadata.version("ale-py")}


def arcade_clip(
    seed: int, index: int, *, frames: int = 16, size: int = 64, games: tuple[str, ...] = GAMES
) -> tuple[np.ndarray, dict[str, str | int]]:
    """Play clip `index` of the stream `seed`; its game is that of `games` at `index` modulo their number.

    Returns uint8 RGB (frames, size, size, 3) at 15 frames per second, and its labels: `game`, `class` (0-88),
    `motion` (the button held in most frames, as "noop" or "upfire"), `mode`, `difficulty` and `cuts` (games
    that ended and were started anew inside the clip). A clip of fewer frames is the beginning of the longer
    one, unless that beginning is blank.
    Raises ValueError for negative or empty sizes, ImportError without `ale-py`, RuntimeError when the game
    shows nothing but a blank screen in every attempt.
    """
    if seed < 0 or index < 0 or frames < 1 or size < 1:
        raise ValueError(
            f"seed and index must be >= 0, frames and size >= 1; got {seed=}, {index=}, {frames=}, {size=}"
        )
    game = games[index % len(games)]
    for attempt in range(RECIPE["attempts"]):
        rng = np.random.default_rng((_STREAM, seed, index, attempt))
        episode = _Episode(game, rng)
        clip = episode.record(frames, size)
        if clip.std() >= RECIPE["blank_spread"]:
            return clip, {"game": game, "class": GAMES.index(game), **episode.labels()}
    raise RuntimeError(f"{game} stayed blank in {RECIPE['attempts']} attempts ({seed=}, {index=})")


class _Episode:
    """One game from power-on to the last kept frame, played by a player who draws from `rng`."""

    def __init__(self, game: str, rng: np.random.Generator) -> None:
        self.rng = rng
        self.ale = _power_on(game, emulator_seed=int(rng.integers(2**31)))
        self.actions = sorted(self.ale.getMinimalActionSet(), key=lambda action: action.value)
        self.action = self._draw_action()
        self.held: list[str] = []
        self.cuts = 0
        self.difficulty = int(rng.choice(sorted(self.ale.getAvailableDifficulties())))
        self.ale.setDifficulty(self.difficulty)
        self.mode = self._start_in_random_mode(game)

    def record(self, frames: int, size: int) -> np.ndarray:
        """Play to a random moment, then keep `frames` frames: uint8 (frames, size, size, 3)."""
        low, high = RECIPE["burn_in"]
        self._burn_in(int(self.rng.integers(low, high + 1)))
        clip = np.empty((frames, size, size, 3), dtype=np.uint8)
        for frame in clip:
            frame[:] = _area_resize(self._next_frame(), size)
        return clip

    def labels(self) -> dict[str, str | int]:
        """Return the labels of the recorded clip, see `arcade_clip`."""
        motion = Counter(self.held).most_common(1)[0][0]
        return {"motion": motion, "mode": self.mode, "difficulty": self.difficulty, "cuts": self.cuts}

    def _start_in_random_mode(self, game: str) -> int:
        """Start the game and return its mode; a two-player mode ends at once, so the next one is tried."""
        for mode in self.rng.permutation(sorted(self.ale.getAvailableModes())).tolist():
            self.ale.setMode(mode)
            self._start_game()
            if not self.ale.game_over():
                return mode
        raise RuntimeError(f"{game} is over as soon as it starts, in every mode the emulator offers")

    def _start_game(self) -> None:
        """Reset and press FIRE: many games wait for it on their title screen, some repeatedly."""
        self.ale.reset_game()
        for action in (_FIRE, _NOOP) * RECIPE["fire_presses"]:
            self._act(action, RECIPE["frame_skip"])

    def _burn_in(self, emulator_frames: int) -> None:
        for played in range(emulator_frames):
            if self.ale.game_over():
                self._start_game()
            if played % RECIPE["frame_skip"] == 0:
                self._choose_action()
            self._act(self.action, 1)

    def _next_frame(self) -> np.ndarray:
        """Return one clip frame, uint8 (screen height, screen width, 3); a game that is over restarts: a cut.

        Sprites that flicker are drawn in every second emulator frame only: the maximum of two shows them all.
        """
        if self.ale.game_over():
            self._start_game()
            self.cuts += 1
        self._choose_action()
        self.held.append(self.action.name.lower())
        self._act(self.action, RECIPE["frame_skip"] - 1)
        last_but_one = self.ale.getScreenRGB()
        self._act(self.action, 1)
        return np.maximum(last_but_one, self.ale.getScreenRGB())

    def _choose_action(self) -> None:
        if self.rng.random() >= RECIPE["hold_probability"]:
            self.action = self._draw_action()

    def _draw_action(self) -> Any:
        return self.actions[int(self.rng.integers(len(self.actions)))]

    def _act(self, action: Any, emulator_frames: int) -> None:
        for _ in range(emulator_frames):
            self.ale.act(action)


def _ale() -> ModuleType:
    try:
        return importlib.import_module("ale_py")
    except ImportError as error:
        raise ImportError('the Arcade set needs ale-py: pip install "evatok[arcade]"') from error


def _power_on(game: str, emulator_seed: int) -> Any:
    """Return a fresh emulator with `game` loaded, so that nothing carries over from the previous clip."""
    ale_py = _ale()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # otherwise every emulator prints a banner
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", emulator_seed)
    ale.setFloat("repeat_action_probability", RECIPE["sticky_actions"])
    ale.loadROM(_rom_folder() / f"{game}.bin")
    return ale


@lru_cache(maxsize=1)
def _rom_folder() -> Path:
    """Return the wheel's own game files: ALE_ROMS_DIR, which its look-up would follow, must not change a clip."""
    location = importlib.import_module("ale_py.roms").__file__
    assert location is not None
    return Path(location).parent


def _area_resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3): every output pixel is the exact mean of the area it covers.

    All sums are whole numbers that float64 holds exactly, so no library's order of addition can move a bit.
    """
    height, width, _ = image.shape
    rows = np.tensordot(_coverage(height, size), image.astype(np.float64), axes=(1, 0))
    sums = np.tensordot(_coverage(width, size), rows, axes=(1, 1)).transpose(1, 0, 2)
    return np.floor(sums / (height * width) + 0.5).astype(np.uint8)


@lru_cache(maxsize=8)
def _coverage(length: int, size: int) -> np.ndarray:
    """(size, length): share of output cell i covered by input pixel j, in units of 1/size of a pixel."""
    start_out = np.arange(size)[:, None] * length
    start_in = np.arange(length)[None, :] * size
    overlap = np.minimum(start_out + length, start_in + size) - np.maximum(start_out, start_in)
    return np.maximum(overlap, 0).astype(np.float64)


def arcade_reel(
    stream: int, number: int, size: int = 64, frames: int = 16, games: tuple[str, ...] = GAMES
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Render reel `number` of a random stream: clips number * REEL and on, as in `arcade_clip`."""
    shots = [arcade_clip(stream, number * REEL + i, frames=frames, size=size, games=games) for i in range(REEL)]
    return np.stack([clip for clip, _ in shots]), [labels for _, labels in shots]


seen_reel = partial(arcade_reel, games=SEEN_GAMES)
held_out_reel = partial(arcade_reel, games=HELD_OUT_GAMES)
