"""Scenes of `moving-shapes`: coloured shapes of which one moves, one may come or go, and one may change fill.

A scene is a function of (stream, index, attempt) alone and lives in continuous time, so that every frame rate shows the
same five seconds. Nothing here knows pixels (`scene_drawing`) or words (`scene_text`).

Legend: K objects, T frames; positions and radii are in pixels of a 64 x 64 picture, times in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

SECONDS, SIDE = 5.0, 64
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 50, 47),
    "green": (60, 190, 70),
    "blue": (50, 100, 230),
    "yellow": (235, 215, 60),
    "purple": (165, 70, 200),
    "cyan": (70, 210, 220),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 5.0, "medium": 7.0, "large": 9.5}  # radius: half the side of a shape's bounding box
COMPASS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")  # clockwise on the screen
MOTIONS = ("stays", "goes", "returns", "darts", "circles", "shakes")
EVENTS = ("none", "appears", "vanishes")
FILL_CHANGES = ("constant", "switches", "flickers")

_GAP = 2.0  # between the boxes of any two objects at any time
_GROWTH = 1.5  # duration of a change of size, in seconds
_PLACINGS = 12  # tries to place an object before all sizes and directions are redrawn
_OUT_AND_BACK = ("returns", "darts")


@dataclass(frozen=True)
class Motion:
    """How the actor moves. `direction` is one of the answers of the category of that name.

    `begin` and `duration` are of `goes`, `returns` and `darts`, with `reach` as the way out; `period` is of `circles`,
    with `reach` as radius, and of `shakes`, with `reach` as amplitude; `angle` in radians is that of the way out, of
    the first place on the circle, or of the axis that is shaken along.
    """

    name: str
    direction: str
    begin: float = 0.0
    duration: float = SECONDS
    reach: float = 0.0
    angle: float = 0.0
    period: float = 1.0

    def offsets(self, times: np.ndarray) -> np.ndarray:
        """(T, 2) moves right and down from the start."""
        way = np.array([math.cos(self.angle), math.sin(self.angle)])
        if self.name == "stays":
            return np.zeros((len(times), 2))
        if self.name == "shakes":
            return self.reach * np.sin(2 * np.pi * times / self.period)[:, None] * way
        if self.name == "circles":
            turn = 2 * np.pi * times / self.period * (1 if self.direction == "clockwise" else -1) + self.angle
            return self.reach * (np.stack([np.cos(turn), np.sin(turn)], axis=1) - way)
        done = np.clip((times - self.begin) / self.duration, 0, 1)
        share = 1 - np.abs(1 - 2 * done) if self.name in _OUT_AND_BACK else done
        return self.reach * share[:, None] * way


@dataclass(frozen=True)
class Thing:
    """One object: its initial appearance and position, and when it is present.

    `grows_to` names another size that it takes on over 1.5 s from `grows_at` on; `hollow` is its fill at the start,
    which is the other one between each pair of `flips`.
    """

    colour: str
    shape: str
    size: str
    hollow: bool
    start: tuple[float, float]
    motion: Motion
    grows_to: str | None = None
    grows_at: float = 0.0
    appears: float = 0.0
    vanishes: float = math.inf
    flips: tuple[tuple[float, float], ...] = ()

    @property
    def final_size(self) -> str:
        return self.grows_to or self.size

    def radii(self, times: np.ndarray) -> np.ndarray:
        """(T,) half sides of its box."""
        first, last = SIZES[self.size], SIZES[self.final_size]
        return first + (last - first) * np.clip((times - self.grows_at) / _GROWTH, 0, 1)

    def places(self, times: np.ndarray) -> np.ndarray:
        """(T, 2) centres, x to the right and y down."""
        return np.array(self.start) + self.motion.offsets(times)

    def present(self, times: np.ndarray) -> np.ndarray:
        """(T,) whether it is present."""
        return (times >= self.appears) & (times < self.vanishes)

    def hollows(self, times: np.ndarray) -> np.ndarray:
        """(T,) whether it is hollow."""
        flipped = np.zeros(len(times), dtype=bool)
        for begin, end in self.flips:
            flipped |= (times >= begin) & (times < end)
        return flipped ^ self.hollow

    def frozen(self, time: float) -> Thing:
        """Return the object as it is at `time`, frozen; between two sizes it gets the nearer one."""
        now = np.array([time])
        radius, place = float(self.radii(now)[0]), self.places(now)[0]
        size = min(SIZES, key=lambda name: abs(SIZES[name] - radius))
        start, hollow = (float(place[0]), float(place[1])), bool(self.hollows(now)[0])
        return Thing(self.colour, self.shape, size, hollow, start, Motion("stays", "nowhere"))


class Roles(NamedTuple):
    """Object indices by role: who moves, who comes or goes (None: nobody), whose fill may change."""

    actor: int
    guest: int | None
    changing: int


@dataclass(frozen=True)
class Scene:
    """K objects, their roles, and what determines the background."""

    things: tuple[Thing, ...]
    roles: Roles
    event: str
    background: tuple[float, float, float]
    gradient: tuple[float, float]
    noise_seed: int

    @property
    def actor(self) -> Thing:
        return self.things[self.roles.actor]

    def present(self, time: float) -> list[int]:
        """Return indices of the objects present at `time`."""
        return [number for number, thing in enumerate(self.things) if thing.present(np.array([time]))[0]]

    def frozen(self, time: float) -> Scene:
        """Return the still scene equal to this one at `time`, with the objects present then."""
        held = self.present(time)
        things = tuple(self.things[number].frozen(time) for number in held)
        actor = held.index(self.roles.actor)
        changing = held.index(self.roles.changing)
        return replace(self, things=things, roles=Roles(actor, None, changing), event="none")


def times_of(frames: int) -> np.ndarray:
    """(T,) times of T frames, the first at 0 and the last at 5 s; one frame is the start."""
    return SECONDS * np.arange(frames) / max(frames - 1, 1)


def draw_scene(random: np.random.Generator) -> Scene:
    """Draw a scene from `random`: 2 to 4 objects, a motion, optionally an event, a growth and a change of fill.

    Number of objects, event and motion are drawn once; all else is redrawn until everything fits, so that crowded and
    far-moving scenes are as frequent as any.
    """
    count, event, motion = int(random.integers(2, 5)), EVENTS[random.integers(3)], MOTIONS[random.integers(6)]
    while True:
        things, roles = _cast(random, count + (event == "appears"), event, motion)
        placed = _placed(things, random)
        if placed is not None:
            background = random.uniform(20, 80, 3)
            gradient = random.uniform(-25, 25, 2)
            return Scene(
                placed,
                roles,
                event,
                (float(background[0]), float(background[1]), float(background[2])),
                (float(gradient[0]), float(gradient[1])),
                int(random.integers(2**31)),
            )


def _cast(random: np.random.Generator, count: int, event: str, motion: str) -> tuple[list[Thing], Roles]:
    """Draw `count` objects without positions, object 0 being the actor, and the roles."""
    colours = random.permutation(list(COLOURS))[:count]
    shapes = [*random.permutation(SHAPES), SHAPES[random.integers(4)]][:count]
    still = Motion("stays", "nowhere")
    things = [
        Thing(
            str(colour),
            str(shape),
            str(random.choice(list(SIZES))),
            bool(random.integers(2)),
            (0.0, 0.0),
            still,
        )
        for colour, shape in zip(colours, shapes, strict=True)
    ]
    things[0] = replace(things[0], motion=_motion(random, motion))
    if random.random() < 0.35:
        other = str(random.choice([size for size in SIZES if size != things[0].size]))
        things[0] = replace(things[0], grows_to=other, grows_at=float(random.uniform(0.5, SECONDS - _GROWTH - 0.7)))
    guest = None if event == "none" else count - 1
    if event == "appears":
        things[-1] = replace(things[-1], appears=float(random.uniform(0.5, 4.3)))
    elif event == "vanishes":
        things[-1] = replace(things[-1], vanishes=float(random.uniform(0.5, 4.3)))
    changing = int(random.choice([number for number in range(count) if number != guest]))
    things[changing] = replace(things[changing], flips=_flips(random))
    return things, Roles(0, guest, changing)


def _motion(random: np.random.Generator, name: str) -> Motion:
    if name == "stays":
        return Motion(name, "nowhere")
    if name == "shakes":
        along = int(random.integers(2))
        reach, period = random.uniform(3.5, 6), 1 / random.uniform(1.3, 2.2)
        direction = ("sideways", "up-and-down")[along]
        return Motion(name, direction, reach=float(reach), angle=along * np.pi / 2, period=float(period))
    if name == "circles":
        direction = ("clockwise", "counter-clockwise")[random.integers(2)]
        reach, period, angle = random.uniform(7, 11), random.uniform(2.2, 4), random.uniform(0, 2 * np.pi)
        return Motion(name, direction, reach=float(reach), angle=float(angle), period=float(period))
    towards = int(random.integers(8))
    lengths = {"goes": (16, 28), "returns": (16, 28), "darts": (12, 20)}[name]
    begins = {"goes": (0.2, 1.5), "returns": (0.2, 0.9), "darts": (0.3, 3.7)}[name]
    lasts = {"goes": (2, 3.3), "returns": (3.2, 4), "darts": (0.7, 1.1)}[name]
    begin, duration, reach = random.uniform(*begins), random.uniform(*lasts), random.uniform(*lengths)
    angle = towards * np.pi / 4
    return Motion(name, COMPASS[towards], float(begin), float(duration), float(reach), angle)


def _flips(random: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """Draw when a fill is inverted: never, from some time on, or for 0.3 to 0.6 s."""
    change = FILL_CHANGES[random.integers(len(FILL_CHANGES))]
    begin, lasting = float(random.uniform(0.6, 3.9)), float(random.uniform(0.3, 0.6))
    if change == "constant":
        return ()
    return ((begin, math.inf if change == "switches" else begin + lasting),)


def _placed(things: list[Thing], random: np.random.Generator) -> tuple[Thing, ...] | None:
    """Place the objects so that none ever leaves the picture or touches another; None if there is no room."""
    times = times_of(61)
    placed: list[Thing] = []
    paths: list[tuple[np.ndarray, np.ndarray]] = []
    for thing in things:
        offsets, radii = thing.motion.offsets(times), thing.radii(times)
        low = (radii[:, None] + 1 - offsets).max(axis=0)
        high = (SIDE - 2 - radii[:, None] - offsets).min(axis=0)
        start = _free_place(random, low, high, offsets, radii, paths)
        if start is None:
            return None
        placed.append(replace(thing, start=(float(start[0]), float(start[1]))))
        paths.append((start + offsets, radii))
    return tuple(placed)


def _free_place(
    random: np.random.Generator,
    low: np.ndarray,
    high: np.ndarray,
    offsets: np.ndarray,
    radii: np.ndarray,
    paths: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray | None:
    """Find a start (2,) between `low` and `high` from which no other path is touched; None if there is none."""
    if (low > high).any():
        return None
    for _ in range(_PLACINGS):
        start = random.uniform(low, high)
        if not any(_touch(start + offsets, radii, *other) for other in paths):
            return start
    return None


def _touch(path: np.ndarray, radii: np.ndarray, other_path: np.ndarray, other_radii: np.ndarray) -> bool:
    """Whether the boxes around two paths (T, 2) ever come closer than the gap."""
    return bool((np.abs(path - other_path).max(axis=1) < radii + other_radii + _GAP).any())
