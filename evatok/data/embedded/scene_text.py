"""Text about a scene: one caption, and one question per category of seven, with its answer.

The caption names every fact the questions ask for, so that a clip generated from it alone can be questioned; places,
times and background are left to the generator. Words come from a closed vocabulary.

`need` of a question tells what must be seen to answer it:
    key    the first frame, standing still, gives the same answer
    brief  a motion or a change of fill that is shorter than 1.1 s, or to and fro as fast
    path   a slow motion
    late   another frame than the first, of any time after the change
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evatok.data.embedded import camera_text
from evatok.data.embedded.scenes import COLOURS, COMPASS, MOTIONS, SECONDS, SHAPES, SIDE, SIZES, Scene, Thing

OPTIONS: dict[str, tuple[str, ...]] = {
    "counting": ("one", "two", "three", "four", "five"),
    "direction": (*COMPASS, "clockwise", "counter-clockwise", "sideways", "up-and-down", "nowhere"),
    "position": ("left", "right", "above", "below"),
    "size": ("larger", "smaller", "same"),
    "colour": tuple(COLOURS),
    "state": ("stays solid", "stays hollow", "becomes solid", "becomes hollow", "flickers"),
    "motion": MOTIONS,
}
"""The answers of each category; a question offers all of its category's."""
CATEGORIES = tuple(OPTIONS)
NEEDS = ("key", "late", "path", "brief")
STILL = ("counting", "position", "size", "colour", "state")
"""Categories that a single frame can answer: it shows no motion."""
PAIRS = ("position", "size")
"""Categories about two objects."""
BANDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PLACES: dict[str, tuple[str, ...]] = {"row": BANDS, "column": BANDS}
"""Location questions about one object: its row and column in an 8 x 8 grid. They belong to no category."""

_WHEN = {"start": 0.0, "end": SECONDS}
_CLEAR = 1.3  # how much longer one axis must be to count as the direction between two objects
_BRIEF = ("darts", "shakes")
_QUESTIONS = {
    "counting": ("how many objects", "are there at the end ?"),
    "direction": ("which way does", "the moving object go ?"),
    "motion": ("what does", "the moving object do ?"),
}


@dataclass(frozen=True)
class Question:
    """A question as its phrases, its answer, and what must be seen to find it (`NEEDS`)."""

    category: str
    phrases: tuple[str, ...]
    answer: str
    need: str

    @property
    def text(self) -> str:
        return " ".join(self.phrases)

    @property
    def options(self) -> tuple[str, ...]:
        return OPTIONS[self.category]


@dataclass(frozen=True)
class Asked:
    """Subjects of a scene's questions: object indices, and times ("start", "end")."""

    position: tuple[int, int, str]
    size: tuple[int, int, str]
    colour: int | None  # the one whose shape is asked for; None asks for the moving object
    changing: int


def choose(scene: Scene, random: np.random.Generator) -> Asked | None:
    """Choose the subjects of a scene's questions; None if two objects are never clearly beside each other."""
    spots: list[tuple[int, int, str]] = []
    for when in random.permutation(list(_WHEN)):
        held = scene.present(_WHEN[str(when)])
        pairs = [(one, other) for one in held for other in held if one != other]
        clear = [pair for pair in pairs if _beside(scene, *pair, str(when)) is not None]
        if clear and not spots:
            one, other = clear[random.integers(len(clear))]
            spots = [(one, other, str(when))]
    late = scene.present(SECONDS)
    if not spots:
        return None
    when, held = ("end", late) if len(late) > 1 else ("start", scene.present(0.0))
    one, other = random.permutation(held)[:2].tolist()
    shapes = [thing.shape for thing in scene.things]
    alone = [number for number, shape in enumerate(shapes) if shapes.count(shape) == 1]
    by_motion = scene.actor.motion.name != "stays" and random.integers(2) == 1
    colour = None if by_motion or not alone else int(random.choice(alone))
    if colour is None and scene.actor.motion.name == "stays":
        return None
    return Asked(spots[0], (one, other, when), colour, scene.roles.changing)


def questions(scene: Scene, asked: Asked, categories: Iterable[str] = CATEGORIES) -> list[Question]:
    """Return one question per category, in order."""
    found = {
        "counting": _counting(scene),
        "direction": _moving(scene, "direction"),
        "position": _position(scene, asked),
        "size": _size(scene, asked),
        "colour": _colour(scene, asked),
        "state": _state(scene, asked),
        "motion": _moving(scene, "motion"),
    }
    return [found[category] for category in categories]


def place_lessons(scene: Scene, number: int, when: str) -> list[Question]:
    """Return row and column questions about an object of a still scene."""
    right, down = scene.things[number].places(np.array([_WHEN[when]]))[0].tolist()
    bands = {"row": BANDS[int(down * len(BANDS) / SIDE)], "column": BANDS[int(right * len(BANDS) / SIDE)]}
    told = (scene.things[number].colour, f"one at the {when} ?")
    return [Question(name, (f"in which {name} is the", *told), bands[name], "key") for name in PLACES]


def caption(scene: Scene, asked: Asked, random: np.random.Generator) -> str:
    """State all facts that can be asked for, in fixed clauses; the order of the objects is drawn."""
    first = [number for number in random.permutation(len(scene.things)).tolist() if not scene.things[number].appears]
    clauses = [" , ".join(f"a {_looks(scene.things[number])}" for number in first)]
    one, other, when = asked.position
    way = _beside(scene, one, other, when)
    beside = f"{way} of" if way in ("left", "right") else way
    clauses.append(f"at the {when} the {_name(scene, one)} is {beside} the {_name(scene, other)}")
    clauses.append(_acts(scene))
    clauses += _events(scene)
    return " . ".join(clause for clause in clauses if clause) + " ."


def vocabulary() -> tuple[str, ...]:
    """Return every phrase of a question, every answer and every caption word, once, in a fixed order.

    Those about a camera come last, so that one model can be asked about both sets.
    """
    fixed = [phrase for phrases in _QUESTIONS.values() for phrase in phrases]
    fixed += ["where is the", "one from the", "one at the start ?", "one at the end ?", "how big is the"]
    fixed += ["one beside the", "which colour is the", "moving object ?", *(f"{shape} ?" for shape in SHAPES)]
    fixed += ["what happens to", "the inside of the", "one ?"]
    answers = [option for options in OPTIONS.values() for option in options]
    words = "a , . the at start end is of nothing moves and grows shrinks to appears vanishes becomes flickers goes"
    words += " returns darts back circles shakes solid hollow"
    places = [*(f"in which {name} is the" for name in PLACES), *BANDS]
    camera = [*camera_text.PHRASES, *camera_text.OPTIONS]
    return tuple(dict.fromkeys([*fixed, *answers, *words.split(), *COLOURS, *SHAPES, *SIZES, *places, *camera]))


def _counting(scene: Scene) -> Question:
    last, first = (len(scene.present(_WHEN[when])) for when in ("end", "start"))
    answer = OPTIONS["counting"][last - 1]
    return Question("counting", _QUESTIONS["counting"], answer, "key" if last == first else "late")


def _moving(scene: Scene, category: str) -> Question:
    motion = scene.actor.motion
    answer = motion.direction if category == "direction" else motion.name
    return Question(category, _QUESTIONS[category], answer, _need_of_motion(scene))


def _position(scene: Scene, asked: Asked) -> Question:
    one, other, when = asked.position
    answer = _beside(scene, one, other, when)
    assert answer is not None, "only pairs that stand clearly are asked for"
    before = _way(_apart(scene, one, other, "start")) if {one, other} <= set(scene.present(0.0)) else None
    colours = (scene.things[one].colour, scene.things[other].colour)
    phrases = ("where is the", colours[0], "one from the", colours[1], f"one at the {when} ?")
    return Question("position", phrases, answer, "key" if answer == before else "late")


def _size(scene: Scene, asked: Asked) -> Question:
    one, other, when = asked.size
    answer = _compared(scene.things[one], scene.things[other], when)
    seen = {one, other} <= set(scene.present(0.0))
    key = seen and answer == _compared(scene.things[one], scene.things[other], "start")
    colours = (scene.things[one].colour, scene.things[other].colour)
    phrases = ("how big is the", colours[0], "one beside the", colours[1], f"one at the {when} ?")
    return Question("size", phrases, answer, "key" if key else "late")


def _colour(scene: Scene, asked: Asked) -> Question:
    if asked.colour is None:
        phrases = ("which colour is the", "moving object ?")
        return Question("colour", phrases, scene.actor.colour, _need_of_motion(scene))
    thing = scene.things[asked.colour]
    phrases = ("which colour is the", f"{thing.shape} ?")
    return Question("colour", phrases, thing.colour, "late" if thing.appears else "key")


def _state(scene: Scene, asked: Asked) -> Question:
    thing = scene.things[asked.changing]
    phrases = ("what happens to", "the inside of the", thing.colour, "one ?")
    if not thing.flips:
        return Question("state", phrases, "stays hollow" if thing.hollow else "stays solid", "key")
    if np.isinf(thing.flips[0][1]):
        return Question("state", phrases, "becomes solid" if thing.hollow else "becomes hollow", "late")
    return Question("state", phrases, "flickers", "brief")


def _need_of_motion(scene: Scene) -> str:
    name = scene.actor.motion.name
    return "key" if name == "stays" else "brief" if name in _BRIEF else "path"


def _beside(scene: Scene, one: int, other: int, when: str) -> str | None:
    """Return where `one` is from `other`; None if both axes are about as long."""
    apart = _apart(scene, one, other, when)
    longer, shorter = max(map(abs, apart)), min(map(abs, apart))
    return _way(apart) if longer >= _CLEAR * shorter else None


def _apart(scene: Scene, one: int, other: int, when: str) -> tuple[float, float]:
    """Return the offset in pixels of `one` from `other`, right and down."""
    time = np.array([_WHEN[when]])
    right, down = (scene.things[one].places(time) - scene.things[other].places(time))[0].tolist()
    return right, down


def _way(apart: tuple[float, float]) -> str:
    """Return the answer given by the longer axis."""
    right, down = apart
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "below" if down > 0 else "above"


def _compared(one: Thing, other: Thing, when: str) -> str:
    sizes = [SIZES[thing.final_size if when == "end" else thing.size] for thing in (one, other)]
    return "same" if sizes[0] == sizes[1] else "larger" if sizes[0] > sizes[1] else "smaller"


def _looks(thing: Thing) -> str:
    return f"{thing.size} {'hollow' if thing.hollow else 'solid'} {thing.colour} {thing.shape}"


def _name(scene: Scene, number: int) -> str:
    return f"{scene.things[number].colour} {scene.things[number].shape}"


def _acts(scene: Scene) -> str:
    """Describe the actor: its motion and its growth."""
    actor, name = scene.actor, _name(scene, scene.roles.actor)
    way = actor.motion.direction
    deeds = {
        "stays": "",
        "goes": f"goes {way}",
        "returns": f"goes {way} and returns",
        "darts": f"darts {way} and back",
        "circles": f"circles {way}",
        "shakes": f"shakes {way}",
    }
    grown = ""
    if actor.grows_to:
        verb = "grows" if SIZES[actor.grows_to] > SIZES[actor.size] else "shrinks"
        grown = f"{verb} to {actor.grows_to}"
    if actor.motion.name == "stays":
        return f"nothing moves . the {name} {grown}" if grown else "nothing moves"
    return f"the {name} {deeds[actor.motion.name]}" + (f" and {grown}" if grown else "")


def _events(scene: Scene) -> list[str]:
    """Describe who comes or goes, and whose fill changes."""
    told = []
    if scene.roles.guest is not None:
        guest = scene.things[scene.roles.guest]
        told.append(
            f"a {_looks(guest)} appears" if guest.appears else f"the {_name(scene, scene.roles.guest)} vanishes"
        )
    changing = scene.things[scene.roles.changing]
    if changing.flips:
        once = np.isinf(changing.flips[0][1])
        becomes = f"becomes {'solid' if changing.hollow else 'hollow'}"
        told.append(f"the {_name(scene, scene.roles.changing)} {becomes if once else 'flickers'}")
    return told
