"""The language model: questions that cannot see each other, answers by likelihood, words that are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data.embedded import camera_text, freedoom, moving_shapes
from evatok.data.embedded.scene_text import CATEGORIES, OPTIONS, STILL, vocabulary
from evatok.storage import checkpoints
from evatok.vtok import lessons
from evatok.vtok.features import Features
from evatok.vtok.language_model import LanguageModelConfig, LanguageModelError, VideoLanguageModel, packed_mask
from evatok.vtok.lessons import Lessons
from evatok.vtok.scoring import Outcomes
from evatok.vtok.strategies import Strategy

SHAPE = LanguageModelConfig(channels=6, width=16, layers=2, heads=2)


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving_shapes, "REEL", 6)
        return pd.DataFrame(moving_shapes.moving_shapes_reel(0, 0, 8, 2)[1])


@pytest.fixture
def model() -> VideoLanguageModel:
    torch.manual_seed(0)
    return VideoLanguageModel(SHAPE, Strategy("vtok")).eval()


def features(count: int = 6) -> Features:
    torch.manual_seed(1)
    return Features(torch.randn(count, 8, 8, 6), torch.randn(count, 31, 4, 4, 6))


def test_questions_become_their_phrases_and_answers_single_symbols(labels):
    held = Lessons.of(labels)
    words = vocabulary()
    assert held.categories == CATEGORIES
    for row in range(len(labels)):
        text = " ".join(words[number] for number in held.words[row])
        assert text == " ".join(labels[f"q_{name}"][row] for name in CATEGORIES)
        assert [words[number] for number in held.answers[row]] == [labels[f"a_{name}"][row] for name in CATEGORIES]
    assert held.words.shape[1] == sum(held.lengths)


def test_further_questions_come_beside_the_first_of_their_category_when_they_are_asked_for():
    labels = pd.DataFrame(moving_shapes.stills_reel(0, 0, 8)[1])
    first, all_of_them = Lessons.of(labels), Lessons.of(labels, further=True)
    assert first.categories == STILL
    assert all_of_them.categories.count("position") == moving_shapes.PAIRS_ASKED
    assert all_of_them.categories.count("colour") == 1
    assert all_of_them.categories.count("row") == moving_shapes.PLACES_ASKED
    last = all_of_them.categories.index("size") - 1
    words = [vocabulary()[number] for number in all_of_them.answers[:, last]]
    assert words == list(labels[f"a_position_{moving_shapes.PAIRS_ASKED}"])


def test_some_questions_of_a_category_are_drawn_with_their_words_and_answers():
    labels = pd.DataFrame(moving_shapes.stills_reel(0, 0, 8)[1])
    every = Lessons.of(labels, further=True).take(np.array([3, 1]))
    some = every.drawn(2, np.random.default_rng(0))
    assert [some.categories.count(name) for name in STILL] == [1, 2, 2, 1, 1]
    assert some.words.shape == (2, sum(some.lengths))
    stored = {
        (" ".join(labels[f"q_{column}"][row].split()), labels[f"a_{column}"][row])
        for row in (3, 1)
        for column in (name.removeprefix("q_") for name in labels if name.startswith("q_"))
    }
    words, ends = vocabulary(), np.cumsum(some.lengths)
    for row in range(2):
        for place, end in enumerate(ends):
            text = " ".join(words[number] for number in some.words[row, end - some.lengths[place] : end])
            assert (text, words[some.answers[row, place]]) in stored
    drawn = {every.drawn(2, np.random.default_rng(seed)).words.tobytes() for seed in range(5)}
    assert len(drawn) > 1, "others each time"


def test_a_camera_s_clips_are_balanced_and_asked_one_question_that_counts_as_motion():
    assert tuple(freedoom.MOTIONS) == camera_text.OPTIONS
    labels = pd.DataFrame({"motion": ["idle"] * 3 + list(camera_text.OPTIONS) * 2})
    rows = camera_text.balanced(labels)
    assert rows.tolist() == [0, 1, *range(4, 9), *range(10, 15)], "the first two of each"
    held = Lessons.of(camera_text.asked(labels.iloc[rows]))
    words = vocabulary()
    assert " ".join(words[number] for number in held.words[0]) == "what does the camera do ?"
    assert [words[number] for number in held.answers[:, 0]] == list(labels["motion"].iloc[rows])
    outcomes = Outcomes.of(np.ones((12, 1)), held.needs, held.categories)
    assert {name: metric.n for name, metric in outcomes.metrics().items()} == {
        "accuracy": 12,
        "accuracy.motion": 12,
        "accuracy.key": 2,
        "accuracy.path": 10,
    }
    assert len(camera_text.balanced(labels[labels["motion"] != "run"])) == 0, "one that is missing leaves none"


@torch.no_grad()
def test_packed_questions_answer_as_one_question_at_a_time(model, labels):
    held, seen = Lessons.of(labels), features()
    packed = model(seen, torch.from_numpy(held.words), held.lengths)
    start = 0
    for number, length in enumerate(held.lengths):
        words = torch.from_numpy(held.words[:, start : start + length])
        torch.testing.assert_close(model(seen, words, (length,))[:, 0], packed[:, number])
        start += length


def test_the_mask_lets_nothing_look_ahead_or_aside():
    mask = packed_mask(3, (2, 2))
    assert mask[3].tolist() == [True, True, True, True, False, False, False]
    assert mask[6].tolist() == [True, True, True, False, False, True, True]
    assert mask[1].tolist() == [True, True, False, False, False, False, False]


def test_without_visual_tokens_pixels_do_not_matter(labels):
    blind = VideoLanguageModel(SHAPE, Strategy("none")).eval()
    held = Lessons.of(labels)
    one, other = features(), Features(torch.zeros(6, 8, 8, 6), torch.zeros(6, 31, 4, 4, 6))
    assert np.array_equal(lessons.answered(blind, one, held), lessons.answered(blind, other, held))


def test_answers_are_options_of_their_category_and_shuffling_is_repeatable(labels):
    torch.manual_seed(0)
    shuffled = VideoLanguageModel(SHAPE, Strategy("vtok", residual="shuffled")).eval()
    held = Lessons.of(labels)
    given = lessons.answered(shuffled, features(), held)
    assert np.array_equal(given, lessons.answered(shuffled, features(), held))
    for number, name in enumerate(held.categories):
        assert {vocabulary()[answer] for answer in given[:, number]} <= set(OPTIONS[name])


def test_it_learns_what_features_tell(labels):
    """Answers that a feature gives away are learned in some steps; from words alone they cannot be."""
    torch.manual_seed(0)
    rows = pd.concat([labels] * 8, ignore_index=True)[["q_motion", "a_motion", "need_motion"]]
    rows["a_motion"] = np.array(OPTIONS["motion"])[np.arange(len(rows)) % 2]
    held = Lessons.of(rows)
    frames = torch.zeros(len(rows), 31, 4, 4, 6)
    frames[1::2, 20:, 1, 1] = 3.0
    seen = Features(torch.zeros(len(rows), 8, 8, 6), frames)
    model = VideoLanguageModel(SHAPE, Strategy("vtok"))
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(30):
        loss, _ = lessons.loss(model, seen, held)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (lessons.answered(model, seen, held) == held.answers).mean() > 0.95


def test_what_cannot_be_asked_or_answered_is_told(labels):
    with pytest.raises(LanguageModelError, match="not among its options: one, two"):
        Lessons.of(labels.assign(a_counting="seven"))
    with pytest.raises(LanguageModelError, match="no word 'elephants'"):
        Lessons.of(labels.assign(q_counting="how many objects elephants"))
    with pytest.raises(LanguageModelError, match="not among its options: idle, walk"):
        Lessons.of(camera_text.asked(pd.DataFrame({"motion": ["idle", "flies"]})))
    with pytest.raises(LanguageModelError, match="no questions"):
        Lessons.of(labels[["caption"]])
    uneven = labels.copy()
    uneven.loc[3, "q_motion"] = "what does the moving object do ? a"
    with pytest.raises(LanguageModelError, match="question 3 of motion"):
        Lessons.of(uneven)


def test_a_checkpoint_comes_back_as_it_was_and_of_another_vocabulary_not_at_all(model, labels, tmp_path):
    path = tmp_path / "model.safetensors"
    config = {"model": SHAPE.to_dict(), "strategy": model.strategy.to_dict()}
    save = {"kind": "video_language_model", "config": config}
    checkpoints.save(path, model, facts={"vocabulary": list(vocabulary())}, **save)
    loaded = VideoLanguageModel.load(path)
    held = Lessons.of(labels)
    assert np.array_equal(lessons.answered(loaded, features(), held), lessons.answered(model, features(), held))
    checkpoints.save(path, model, facts={"vocabulary": ["hello"]}, **save)
    with pytest.raises(LanguageModelError, match="vocabulary"):
        VideoLanguageModel.load(path)


def test_a_model_of_another_size_is_no_start(model):
    other = VideoLanguageModel(LanguageModelConfig(channels=6, width=32, layers=2, heads=2), Strategy("key"))
    with pytest.raises(LanguageModelError, match="another size"):
        model.start_from(other)
