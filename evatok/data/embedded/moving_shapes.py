"""`moving-shapes`: clips of a deterministic world with captions and seven questions each, and stills of that world.

Every question can be answered from pixels: a scene counts only if the ruler (`scene_ruler`) answers all seven from 31
frames of 64 x 64 pixels, so what a judge reaches at best is 100 % there. As this is asked at that one rate and size, a
set holds the same scenes whatever its own frames and size are; with 61 frames the ruler may still miss one.

Labels of a clip: `caption`, `motion`, and for each category q_<category> (the question), a_<category> (its answer) and
need_<category> (what must be seen, see `scene_text`). Stills are asked about further pairs of objects, q_position_2 and
so on: with one pair per still, a model learns the stills by heart sooner than what "left of" means. Lessons of where
single objects are, q_row and q_column, come with them: what is where is learned before what is left of what.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evatok.data.clips import ClipSetError
from evatok.data.embedded import scene_drawing, scene_ruler, scene_text, scenes
from evatok.data.embedded.scene_text import Asked, Question
from evatok.data.embedded.scenes import Scene
from evatok.data.reels import Reel

REEL = 20
CHECKED_FRAMES = 31
_ATTEMPTS = 50

RECIPE: dict[str, Any] = {
    "version": 1,
    "seconds": scenes.SECONDS,
    "colours": scenes.COLOURS,
    "shapes": scenes.SHAPES,
    "sizes": scenes.SIZES,
    "motions": scenes.MOTIONS,
    "events": scenes.EVENTS,
    "fill_changes": scenes.FILL_CHANGES,
    "ring": scene_drawing.RING,
    "arm": scene_drawing.ARM,
    "noise": scene_drawing.NOISE,
    "accepted": f"the ruler {scene_ruler.Ruler.version} answers all questions from {CHECKED_FRAMES} frames",
}
PAIRS_ASKED = 6  # per still, for each category about pairs
PLACES_ASKED = 2  # objects per still whose row and column are asked for

STILLS_RECIPE: dict[str, Any] = {
    **RECIPE,
    "version": 3,  # pixels and earlier labels are those of version 2
    "stills": "one frame of an unchecked scene at a time drawn from 0 to 5 s",
    "pairs": PAIRS_ASKED,
    "places": PLACES_ASKED,
}
_STILL_STREAM = 0x57111  # separates the stills' scenes from the clips'


def recipe_versions() -> dict[str, str]:
    """Return the versions of packages that determine the pixels: none, as numpy's generators keep their streams."""
    return {}


def moving_shapes_reel(stream: int, number: int, size: int = 64, frames: int = 16) -> Reel:
    """Render reel `number` of a random stream: uint8 (REEL, frames, size, size, 3) and one dict of labels per clip."""
    made = [scene_of(stream, number * REEL + place) for place in range(REEL)]
    clips = np.stack([scene_drawing.draw(scene, frames, size) for scene, _, _ in made])
    return clips, [_labels(*one) for one in made]


def stills_reel(stream: int, number: int, size: int = 64, frames: int = 1) -> Reel:
    """Render reel `number` of stills: uint8 (REEL, 1, size, size, 3), with the questions a still can answer.

    Raises:
        ClipSetError: a number of frames other than 1.
    """
    if frames != 1:
        raise ClipSetError(
            f"moving-shapes-stills: a still has 1 frame, {frames} requested (set frames=1, or --frames 1)"
        )
    made = [_still(stream, number * REEL + place, size) for place in range(REEL)]
    return np.stack([pixels for pixels, _ in made]), [labels for _, labels in made]


def scene_of(stream: int, index: int) -> tuple[Scene, list[Question], str]:
    """Return the scene of an index, its seven questions and its caption: the first attempt that the ruler confirms."""
    for attempt in range(_ATTEMPTS):
        random = np.random.default_rng([stream, index, attempt])
        scene, asked = _asked(random)
        questions = scene_text.questions(scene, asked)
        tracks = scene_ruler.measure(scene_drawing.draw(scene, CHECKED_FRAMES))
        if all(scene_ruler.answer(tracks, question.text) == question.answer for question in questions):
            return scene, questions, scene_text.caption(scene, asked, random)
    raise ClipSetError(f"moving-shapes: no scene {index} of stream {stream} in {_ATTEMPTS} attempts")


def _asked(random: np.random.Generator) -> tuple[Scene, Asked]:
    """Draw a scene about which all seven questions can be asked, with their subjects."""
    while True:
        scene = scenes.draw_scene(random)
        asked = scene_text.choose(scene, random)
        if asked is not None:
            return scene, asked


def _still(stream: int, index: int, size: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return one frame and its labels. Those of motion stay empty: a still shows none."""
    random = np.random.default_rng([_STILL_STREAM, stream, index])
    while True:
        scene = scenes.draw_scene(random).frozen(float(random.uniform(0, scenes.SECONDS)))
        asked = scene_text.choose(scene, random)
        if asked is not None:
            questions = scene_text.questions(scene, asked, scene_text.STILL)
            caption = scene_text.caption(scene, asked, random)
            further: dict[str, str] = {}
            for number in range(2, PAIRS_ASKED + 1):
                further |= _pairs(scene, random, number)
            further |= _places(scene, random)
            return scene_drawing.draw(scene, 1, size), {**_labels(scene, questions, caption), **further}


def _pairs(still: Scene, random: np.random.Generator, number: int) -> dict[str, str]:
    """Return the labels of one more question per category about pairs, with newly drawn objects."""
    asked = None
    while asked is None:
        asked = scene_text.choose(still, random)
    return _asked_labels(scene_text.questions(still, asked, scene_text.PAIRS), f"_{number}")


def _places(still: Scene, random: np.random.Generator) -> dict[str, str]:
    """Return the labels of location questions about single objects: q_row, q_column, q_row_2 and so on."""
    told: dict[str, str] = {}
    for place, number in enumerate(random.permutation(still.present(0.0))[:PLACES_ASKED].tolist(), start=1):
        when = ("start", "end")[random.integers(2)]
        told |= _asked_labels(scene_text.place_lessons(still, number, when), f"_{place}" if place > 1 else "")
    return told


def _labels(scene: Scene, questions: list[Question], caption: str) -> dict[str, Any]:
    return {"caption": caption, "motion": scene.actor.motion.name, **_asked_labels(questions)}


def _asked_labels(questions: list[Question], ending: str = "") -> dict[str, str]:
    told: dict[str, str] = {}
    for question in questions:
        column = f"{question.category}{ending}"
        told |= {f"q_{column}": question.text, f"a_{column}": question.answer, f"need_{column}": question.need}
    return told
