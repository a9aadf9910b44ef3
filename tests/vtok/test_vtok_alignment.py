"""Samples judged: prompts and questions, names that must fit, scores with intervals and paired differences."""

import numpy as np
import pandas as pd
import pytest

from evatok.alignment import triples as asked_of
from evatok.alignment.__main__ import main
from evatok.data.embedded import moving_shapes
from evatok.data.embedded.scene_text import CATEGORIES, NEEDS
from evatok.evaluation import per_clip, protocols
from evatok.storage import records
from evatok.vtok.scoring import Outcomes, ScoringError, check_same, lead

ALIGN = protocols.get("moving-shapes-align")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def seven(cache, monkeypatch):
    """The first seven prompts, one of each category."""
    monkeypatch.setattr(moving_shapes, "REEL", 7)
    monkeypatch.setenv("EVATOK_CACHE", str(cache))
    return asked_of.triples_of(ALIGN, 7)


@pytest.fixture
def real(seven) -> np.ndarray:
    return np.array(protocols.clips_of(ALIGN, limit=7).clips)


def outcomes(right: list[float], need: str = "key") -> Outcomes:
    rows = np.array(right)[:, None]
    return Outcomes.of(rows, np.full(rows.shape, need), ["motion"])


def test_every_prompt_asks_one_question_and_categories_take_turns(seven):
    assert [questions[0].category for questions in seven.questions] == list(CATEGORIES)
    assert {len(questions) for questions in seven.questions} == {1}
    assert 1001 == 7 * 143 == ALIGN.clips
    everything = asked_of.triples_of(protocols.get("moving-shapes-understanding"), 7)
    assert [len(questions) for questions in everything.questions] == [7] * 7
    assert everything.prompts == seven.prompts


def test_real_clips_score_100_and_those_of_other_prompts_do_not(seven, real, tmp_path, capsys):
    def judged(pixels: np.ndarray, name: str) -> records.Record:
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "samples.npy", pixels)
        places = ["--records", str(tmp_path / "records"), "--per-clip", str(tmp_path / "per_clip")]
        assert main([str(tmp_path / name), "--limit", "7", "--name", name, *places]) == 0
        found = records.query(tmp_path / "records", kind="alignment")
        return next(record for record in found if record.model["name"] == name)

    right = judged(real, "right")
    assert right.metrics["accuracy"].value == 100
    assert {f"accuracy.{name}" for name in CATEGORIES} <= right.metrics.keys()
    assert right.protocol["deviations"][0] == "limited to 7 clips"
    assert judged(real[::-1] / 255.0, "wrong").metrics["accuracy"].value <= 60, "floats in [0, 1] are read too"
    assert "accuracy.motion" in capsys.readouterr().out


def test_samples_named_after_other_prompts_are_refused(seven, real, tmp_path, capsys):
    folder = tmp_path / "samples"
    folder.mkdir()
    for number, clip in enumerate(real):
        np.save(folder / f"{number + 1}.npy", clip)
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), "--limit", "7", "--records", ""])
    assert "found sample '1' where prompt 0 is expected; name the file 0" in capsys.readouterr().err
    (folder / "7.npy").unlink()
    with pytest.raises(ScoringError, match="6 samples for 7 prompts"):
        asked_of.samples_of(folder, seven)


def test_answers_of_a_judge_elsewhere_are_scored_or_refused(seven, tmp_path, capsys):
    main(["--prompts", str(tmp_path / "prompts.csv"), "--limit", "7"])
    table = pd.read_csv(tmp_path / "prompts.csv", dtype=str)
    assert table["prompt"].tolist() == seven.prompts
    given = table[["clip", "category", "answer"]]

    def saved(changed: pd.DataFrame):
        changed.to_csv(tmp_path / "answers.csv", index=False)
        return tmp_path / "answers.csv"

    right, needs = asked_of.right(seven, asked_of.answers_in(saved(given), seven))
    assert right[needs >= 0].all()
    main(["--answers", str(saved(given)), "--limit", "7", "--records", ""])
    assert "100.0" in capsys.readouterr().out
    with pytest.raises(ScoringError, match="see clip 6, motion"):
        asked_of.answers_in(saved(given.iloc[:-1]), seven)
    with pytest.raises(ScoringError, match="'flies' is not one of"):
        asked_of.answers_in(saved(given.assign(answer=[*given["answer"][:-1], "flies"])), seven)
    with pytest.raises(ScoringError, match="missing column 'answer'"):
        asked_of.answers_in(saved(given[["clip", "category"]]), seven)


def test_a_protocol_without_questions_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--real", "--protocol", "embedded-reconstruction"])
    assert "has no questions here" in capsys.readouterr().err


def test_shares_go_by_category_and_need():
    held = Outcomes.of(np.array([[1, 0], [1, 1]]), np.array([["key", "path"], ["late", "path"]]), ["size", "motion"])
    values = {name: metric.value for name, metric in held.metrics().items()}
    assert values["accuracy"] == 75
    assert (values["accuracy.size"], values["accuracy.motion"]) == (100, 50)
    assert (values["accuracy.key"], values["accuracy.path"]) == (100, 50)
    assert "accuracy.counting" not in values
    assert "accuracy.brief" not in values
    with pytest.raises(ScoringError, match="no category or need 'colours'"):
        held.mask("accuracy.colours")


def test_a_paired_interval_is_narrower_than_rows_alone_where_rows_agree():
    random = np.random.default_rng(0)
    base = random.integers(0, 2, 400).astype(float)
    better = np.where(random.random(400) < 0.1, 1.0, base)
    one, other = outcomes(better.tolist()), outcomes(base.tolist())
    gain = lead(one.right - other.right, one.mask())
    assert gain.low > 0
    assert gain.value == pytest.approx(100 * (better - base).mean())
    alone = one.metrics()["accuracy"].spread
    assert alone is not None
    assert gain.high - gain.low < alone
    flat = lead(one.right - one.right, one.mask())
    assert (flat.low, flat.value, flat.high) == (0, 0, 0)


def test_answers_to_other_questions_are_not_compared():
    with pytest.raises(ScoringError, match="different questions"):
        check_same(outcomes([1, 0]), outcomes([1, 0], need="late"))


def test_outcomes_survive_their_file(tmp_path):
    held = outcomes([1, 0, 1])
    path = per_clip.write(held.arrays(), tmp_path, per_clip.MEASURED)
    with np.load(path) as file:
        again = Outcomes.from_arrays(dict(file))
    assert np.array_equal(again.right, held.right)
    assert np.array_equal(again.needs, held.needs)
    assert NEEDS[int(again.needs.max())] == "key"
