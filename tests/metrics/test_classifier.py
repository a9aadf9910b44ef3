"""The classifier sees motion, is shown all classes alike, and says how often it is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSet
from evatok.experiments import train_classifier
from evatok.generation import code_cache
from evatok.metrics import class_consistency
from evatok.metrics.class_consistency import ClassificationError, Classifier, balanced_rows, rates
from evatok.models.classifier import ClassifierConfig, ClipClassifier, motion
from evatok.storage import checkpoints, records
from evatok.storage.checkpoints import CheckpointError

FRAMES, SIZE = 8, 16
CLASSES = ("left", "rest")
SHAPE = ClassifierConfig(classes=2, frames=FRAMES, size=SIZE, width=8, dropout=0.0)


@pytest.fixture
def cloud() -> torch.Tensor:
    """A smooth grey picture (1, 40, 40) that repeats at its rims."""
    noise = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(F.pad(noise, (2, 2, 2, 2), mode="circular"), 5, 1)[:, 0]


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-1, 0), (0, 1), (0, 0)])
def test_motion_is_found_in_pixels(cloud, right, down):
    found = motion(cloud, cloud.roll((down, right), (1, 2)))[0, :, 8:-8, 8:-8].mean((1, 2))
    assert found[:2].tolist() == pytest.approx([right, down], abs=0.25)
    assert (found[2] > 0) == bool(right or down), "change"
    assert found[3] > 0, "texture"


def test_motion_without_texture_is_nothing():
    grey = torch.full((1, 8, 8), 0.5)
    assert torch.equal(motion(grey, grey + 0.1)[:, :2], torch.zeros(1, 2, 8, 8))
    assert motion(grey, torch.rand(1, 8, 8))[:, :2].abs().max() <= 2


def test_a_clip_is_of_the_class_of_most_of_its_steps():
    logits = torch.zeros(1, 5, 3)
    logits[0, :3, 2] = 4.0
    logits[0, 3:, 0] = 4.0
    told = ClipClassifier.of_clip(logits)
    assert told.argmax(1).tolist() == [2]
    assert told.exp().sum().item() == pytest.approx(1.0)
    assert told.exp()[0, 2].item() == pytest.approx(logits.softmax(2)[0, :, 2].mean().item())


def test_steps_vote_and_likelihood_breaks_a_tie():
    sure, unsure = 9.0, 0.1
    logits = torch.zeros(2, 3, 3)
    logits[0, 0, 0], logits[0, 1:, 1] = sure, unsure  # one sure step against two
    logits[1, 0, 0], logits[1, 1, 2], logits[1, 2, 1] = sure, sure / 2, unsure
    assert ClipClassifier.voted(logits).tolist() == [1, 0]


def test_other_clips_are_refused():
    with pytest.raises(ValueError, match=r"must be \(B, 3, 8, 16, 16\), got \(1, 3, 8, 16, 24\)"):
        ClipClassifier(SHAPE)(torch.zeros(1, 3, 8, 16, 24))
    with pytest.raises(ValueError, match="at least 2 classes"):
        ClassifierConfig(classes=1)
    with pytest.raises(ValueError, match="width must be a multiple"):
        ClassifierConfig(classes=2, size=20)


def test_rates_count_clips_and_classes():
    wanted = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    found = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    told = rates(wanted, found, ("often", "rare", "never"))
    assert told.accuracy == pytest.approx(87.5)
    assert told.recall == {"often": 100.0, "rare": 50.0}
    assert told.balanced == pytest.approx(75.0)
    assert told.confusion.tolist() == [[6, 0, 0], [1, 1, 0], [0, 0, 0]]
    many = rates(np.tile(wanted, 100), np.tile(found, 100), ("often", "rare", "never"))
    assert many.half_interval == pytest.approx(1.96 * (87.5 * 12.5 / 800) ** 0.5, rel=0.01)
    assert many.balanced_half_interval > many.half_interval, "a rare class says little"
    sure = rates(wanted, wanted, ("often", "rare", "never"))
    assert sure.half_interval > 0, "eight of eight are not all there are"
    with pytest.raises(ClassificationError, match="N >= 1"):
        rates(wanted[:0], found[:0], CLASSES)


def test_batches_hold_every_class_alike_and_depend_on_seed_and_step():
    labels = np.array([0] * 95 + [1] * 4 + [2])
    rows = balanced_rows(labels, 30, 3, 0)
    assert np.bincount(labels[rows]).tolist() == [10, 10, 10]
    assert np.array_equal(rows, balanced_rows(labels, 30, 3, 0))
    assert not np.array_equal(rows, balanced_rows(labels, 30, 4, 0))
    assert not np.array_equal(rows, balanced_rows(labels, 30, 3, 1))
    assert np.bincount(labels[balanced_rows(labels, 31, 0, 0)]).max() == 11


def moving(count: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Clips of a texture that drifts, or rests: (N, 8, 16, 16, 3) and their labels."""
    random = np.random.default_rng(seed)
    clips, labels = [], []
    for number in range(count):
        texture = random.integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
        speed = number % 2
        clips.append(np.stack([np.roll(texture, -2 * speed * t, axis=1) for t in range(FRAMES)]))
        word = CLASSES[1 - speed]
        labels.append({"motion": word, "motions": " ".join([word] * FRAMES)})
    return np.stack(clips).astype(np.uint8), pd.DataFrame(labels)


@pytest.fixture
def data(tmp_path) -> str:
    clip_sets.save(tmp_path / "clips", *moving(24, 0), {"name": "textures", "seed": 0})
    return str(tmp_path / "clips")


@pytest.fixture
def train(tmp_path, data, runs):
    """Trains a classifier of textures: (name, **changes) -> the run."""

    def run(name: str = "one", **changes):
        places = {
            "work": str(tmp_path / name / "work"),
            "checkpoint": str(tmp_path / name / "classifier.safetensors"),
            "records_folder": str(tmp_path / name / "records"),
        }
        small = {"frames": FRAMES, "pixels": SIZE, "width": 8, "train_clips": 20, "validation_clips": 10, "batch": 8}
        short = {"steps": 30, "warmup": 2, "log_every": 5, "save_every": 10, "ema": 0.8, "threads": 1, "bf16": False}
        given = {"data": data, **places, **small, **short, **changes}
        return train_classifier.ex.run(config_updates=given)

    return run


@pytest.mark.slow
def test_it_learns_what_moves_and_says_how_well(train, tmp_path):
    result = train().result
    record = records.read(tmp_path / "one" / "records" / f"{result['record']}.json")
    assert record.kind == "train_classifier"
    assert record.metrics["balanced_accuracy"].value == pytest.approx(100.0)
    assert record.metrics["recall.left"].n == 5
    shipped = Classifier.load(Path(result["checkpoint"]))
    assert (shipped.classes, shipped.label) == (CLASSES, "motion")
    assert record.model["sha256"] == shipped.checkpoint.sha256
    clips, labels = moving(20, seed=7)
    assert shipped.judge(clips, list(labels["motion"])).balanced >= 90
    assert shipped.judge(clips[:, ::-1, :, ::-1], list(labels["motion"])).balanced >= 90, "classes are mirror-safe"


@pytest.mark.slow
def test_a_killed_training_ends_as_the_unbroken_one(train, tmp_path):
    whole = train("whole", steps=20).result
    sliced = train("sliced", steps=20, minutes=1e-9).result
    assert sliced == {"complete": False, "step": 5, "steps": 20}
    finished = train("sliced", steps=20).result
    one, other = (checkpoints.load(Path(r["checkpoint"]), "classifier") for r in (whole, finished))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def labelled(words: list[str]) -> ClipSet:
    pixels = np.zeros((len(words), 3, SIZE, SIZE, 3), np.uint8)
    return ClipSet(pixels, pd.DataFrame({"motions": words}), {"name": "textures"})


def test_labels_that_do_not_fit_are_refused(train):
    numbers = train_classifier.frame_numbers(labelled(["left rest rest"]), "motions", list(CLASSES))
    assert numbers.tolist() == [[0, 1]], "the last frame's motion is never seen"
    with pytest.raises(ClassificationError, match="clip 1 has 2 words for 3 frames"):
        train_classifier.frame_numbers(labelled(["left rest rest", "left left"]), "motions", list(CLASSES))
    with pytest.raises(ClassificationError, match="names 'jump', which is not a class"):
        train_classifier.frame_numbers(labelled(["left jump rest"]), "motions", list(CLASSES))
    with pytest.raises(code_cache.CodingError, match="no label column 'game'"):
        train(label="game")


def test_what_it_did_not_learn_it_does_not_judge(tmp_path):
    path = tmp_path / "classifier.safetensors"
    torch.manual_seed(0)
    module = ClipClassifier(SHAPE)
    checkpoints.save(path, module, kind="classifier", config=SHAPE.to_dict(), facts={"classes": CLASSES, "label": "m"})
    found = Classifier.load(path)
    clips, _ = moving(2, 0)
    with pytest.raises(ClassificationError, match="was not trained on class 'fly', only on left, rest"):
        found.judge(clips, ["left", "fly"])
    assert np.array_equal(found.predict(clips, batch=1), found.predict(clips))
    assert np.array_equal(found.predict(clips), class_consistency.predicted(module.eval(), clips))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Classifier.load(tmp_path / "none.safetensors")
