"""The world of moving-shapes: one scene at any rate, questions with one answer, captions that tell it."""

import numpy as np
import pytest

from evatok.data import reels, sets
from evatok.data.__main__ import main
from evatok.data.clips import ClipSetError
from evatok.data.embedded import moving_shapes, scene_ruler, scene_text, scenes
from evatok.data.embedded.scene_drawing import draw
from evatok.data.embedded.scene_text import CATEGORIES, OPTIONS

SCENES = 30


@pytest.fixture(scope="module")
def world():
    """Scenes as drawn, none refused, with what is asked of them and what is told."""
    found = []
    for index in range(SCENES):
        random = np.random.default_rng([7, index])
        scene, asked = moving_shapes._asked(random)
        found.append((scene, asked, scene_text.questions(scene, asked), scene_text.caption(scene, asked, random)))
    return found


@pytest.fixture(scope="module")
def filmed(world):
    return np.stack([draw(scene, 31) for scene, *_ in world])


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Each pixel the mean of 2 x 2."""
    padded = np.pad(pixels.astype(float), ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    return ((rows[:, :, :, :-1] + rows[:, :, :, 1:]) / 4).round().astype(np.uint8)


def accuracy(pixels: np.ndarray, world) -> float:
    texts = [[question.text for question in questions] for _, _, questions, _ in world]
    given = scene_ruler.Ruler().answers(pixels, texts)
    right = [
        [q.answer == a for q, a in zip(questions, row, strict=True)]
        for (_, _, questions, _), row in zip(world, given, strict=True)
    ]
    return 100 * float(np.mean(right))


def test_the_ruler_reads_scenes_that_nobody_filtered_and_blurred_ones_too(world, filmed):
    assert accuracy(filmed, world) >= 98
    assert accuracy(blurred(filmed), world) >= 90
    assert accuracy(np.roll(filmed, 1, axis=0), world) <= 35, "another clip's pixels do not answer"


def test_what_needs_only_the_first_frame_is_what_the_frozen_scene_answers(world):
    ruler = scene_ruler.Ruler()
    for scene, _, questions, _ in world:
        still = draw(scene.frozen(0.0), 31)
        given = ruler.answers(still[None], [[question.text for question in questions]])[0]
        same = [answer == question.answer for answer, question in zip(given, questions, strict=True)]
        needs = [question.need == "key" for question in questions]
        assert same == needs, [(q.text, q.answer, a, q.need) for q, a in zip(questions, given, strict=True)]


def test_a_scene_is_the_same_at_every_rate(world):
    scene = world[0][0]
    fast = draw(scene, 61)
    assert np.array_equal(fast[::2], draw(scene, 31))
    assert np.array_equal(fast[::4], draw(scene, 16))
    assert not np.array_equal(fast[1], fast[0]), "noise moves even where nothing else does"


def test_objects_stay_inside_and_apart(world):
    times = scenes.times_of(61)
    for scene, *_ in world:
        paths = [(thing.places(times), thing.radii(times)) for thing in scene.things]
        for number, (places, radii) in enumerate(paths):
            assert (places >= radii[:, None] + 1 - 1e-9).all()
            assert (places <= 62 - radii[:, None] + 1e-9).all()
            assert not any(scenes._touch(places, radii, *other) for other in paths[:number])


def test_every_word_is_in_the_vocabulary_and_every_answer_among_its_options(world):
    known = set(scene_text.vocabulary())
    for _, _, questions, caption in world:
        assert set(caption.split()) <= known
        assert [question.category for question in questions] == list(CATEGORIES)
        for question in questions:
            assert set(question.phrases) <= known
            assert question.answer in OPTIONS[question.category]
            assert scene_ruler.category_of(question.text) == question.category


def test_captions_name_what_the_questions_ask(world):
    for scene, asked, questions, caption in world:
        told = dict(zip(CATEGORIES, questions, strict=True))
        one, other, when = asked.position
        names = [f"{scene.things[number].colour} {scene.things[number].shape}" for number in (one, other)]
        assert f"at the {when} the {names[0]} is {told['position'].answer}" in caption
        assert caption.count(" a ") + 1 == len(scene.things), "each object is told with its looks"
        assert ("nothing moves" in caption) == (told["motion"].answer == "stays")
        assert ("flickers" in caption) == (told["state"].answer == "flickers")
        if told["motion"].answer != "stays":
            assert f" {told['direction'].answer}" in caption


def test_clips_depend_on_stream_and_index_alone_and_splits_share_none(monkeypatch):
    monkeypatch.setattr(moving_shapes, "REEL", 4)
    one, labels = moving_shapes.moving_shapes_reel(reels.stream("test", 0), 0, 16, 4)
    again, same = moving_shapes.moving_shapes_reel(reels.stream("test", 0), 0, 16, 4)
    assert np.array_equal(one, again)
    assert labels == same
    other, _ = moving_shapes.moving_shapes_reel(reels.stream("train", 0), 0, 16, 4)
    assert not {clip.tobytes() for clip in one} & {clip.tobytes() for clip in other}
    sixteen, told = moving_shapes.moving_shapes_reel(reels.stream("test", 0), 0, 16, 2)
    assert told == labels, "the same scenes, however many frames"
    assert np.array_equal(sixteen[:, 0], one[:, 0])


def test_stills_ask_what_a_frame_shows():
    pixels, labels = moving_shapes.stills_reel(3, 0)
    columns = [name.removeprefix("q_") for name in labels[0] if name.startswith("q_")]
    columns = [name for name in columns if name.partition("_")[0] not in scene_text.PLACES]
    pairs = len(scene_text.PAIRS)
    assert len(columns) == len(scene_text.STILL) + pairs * (moving_shapes.PAIRS_ASKED - 1)
    texts = [[row[f"q_{column}"] for column in columns] for row in labels]
    answers = [[row[f"a_{column}"] for column in columns] for row in labels]
    positions = {text for text in texts[0] if text.startswith("where")}
    assert len(positions) > 1, "the same pair is not asked for again and again"
    given = scene_ruler.Ruler().answers(pixels, texts)
    assert np.mean(np.array(given) == np.array(answers)) >= 0.95
    assert {row["motion"] for row in labels} == {"stays"}
    assert "q_motion" not in labels[0]
    with pytest.raises(ClipSetError, match="a still has 1"):
        moving_shapes.stills_reel(3, 0, frames=16)


def test_lessons_of_places_name_the_row_and_the_column_of_what_pixels_show():
    pixels, labels = moving_shapes.stills_reel(3, 0)
    apart = []
    for picture, told in zip(pixels[:, 0], labels, strict=True):
        asked = {told[f"q_row{ending}"].split()[5]: ending for ending in ("", "_2")}
        assert len(asked) == moving_shapes.PLACES_ASKED, "two objects"
        for colour, ending in asked.items():
            assert f" {colour} " in told[f"q_column{ending}"]
            seen = np.abs(picture.astype(int) - scenes.COLOURS[colour]).sum(-1) < 65
            bands = [scene_text.BANDS.index(told[f"a_{name}{ending}"]) for name in ("row", "column")]
            apart.append(np.abs(np.argwhere(seen).mean(0) / 8 - 0.5 - bands).max())
    assert np.mean(np.array(apart) < 0.8) > 0.9, "within the band, but for half-hidden outlines"


def test_a_build_makes_a_sheet_with_captions(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path))
    main(
        ["build", "moving-shapes", "--split", "test", "--frames", "2", "--size", "16", "--count", "3", "--workers", "1"]
    )
    found = sets.clip_set("moving-shapes", "test", 3, size=16, frames=2)
    assert (found.folder / "sheet.png").exists()
    assert "3 of 2 frames, 16 x 16 pixels" in capsys.readouterr().out
    assert found.labels["need_motion"].isin(scene_text.NEEDS).all()
    assert sets.pinned("moving-shapes") == "moving-shapes@1"


def test_the_ruler_says_what_it_cannot_read(filmed):
    ruler = scene_ruler.Ruler()
    with pytest.raises(ValueError, match="64 pixels"):
        ruler.answers(filmed[:1, :, :32, :32], [[]])
    with pytest.raises(ValueError, match="not a question of moving-shapes: 'is it nice"):
        ruler.answers(filmed[:1], [["is it nice ?"]])
    nothing = np.full((1, 4, 64, 64, 3), 40, np.uint8)
    texts = ["how many objects are there at the end ?", "where is the red one from the blue one at the start ?"]
    assert ruler.answers(nothing, [texts]) == [["", ""]], "an empty picture shows nothing to count or compare"
