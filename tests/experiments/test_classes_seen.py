"""What a classifier sees in reconstructions: the rates of real clips and of every assignment are recorded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSet
from evatok.evaluation import Foreign, Identity
from evatok.experiments import classes_seen
from evatok.experiments.tracking import ConfigError
from evatok.storage import records
from tests.factories import saved_classifier, saved_tokenizer


def test_reconstructions_are_what_the_system_makes_of_the_clips_in_order():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 16, 3), dtype=np.uint8)
    clips = ClipSet(pixels, pd.DataFrame(index=range(5)), {"name": "noise"})
    config = {"batch": 2, "device": "cpu"}
    assert np.array_equal(classes_seen.reconstructed(Identity(), clips, config), pixels)
    grey = Foreign(lambda clips: torch.full_like(clips, 0.5))
    assert np.unique(classes_seen.reconstructed(grey, clips, config)).tolist() == [128]


@pytest.fixture
def command(runs, tmp_path, tokenizer, tiny, moving_clips):
    """Runs the experiment on labelled clips with a tokenizer and a classifier of random weights: (**settings)."""
    labels = pd.DataFrame({"motion": ["left", "rest"] * 3})
    clip_sets.save(tmp_path / "clips", moving_clips(6, tiny.frames, tiny.size), labels, {"name": "moving", "seed": 0})
    networks = {
        "checkpoint": saved_tokenizer(tmp_path / "t.safetensors", tokenizer),
        "classifier": saved_classifier(tmp_path / "c.safetensors", ["left", "rest"], tiny.frames, tiny.size),
    }

    def run(**settings):
        places = {"data": str(tmp_path / "clips"), "records_folder": str(tmp_path / "records"), "split": "all"}
        given = {**places, **networks, "clips": 6, "threads": 1, "assignments": ["uniform:4", "random"], **settings}
        return classes_seen.ex.run(config_updates=given).result

    return run


def test_a_record_has_the_rates_of_real_clips_and_of_every_rule(command, tmp_path):
    record = records.read(tmp_path / "records" / f"{command()['record']}.json")
    assert record.kind == "classes_seen"
    assert record.protocol["chance"] == 50
    assert {name.rpartition(".")[0] for name in record.metrics} == {"real", "uniform:4", "random"}
    for text in ("real", "uniform:4", "random"):
        confusion = np.array(record.model["seen"][text]["confusion"])
        assert confusion.sum() == record.metrics[f"{text}.class_consistency"].n == 6
        assert record.metrics[f"{text}.class_consistency"].value == pytest.approx(100 * np.trace(confusion) / 6)


def test_a_level_that_the_tokenizer_lacks_is_named(command):
    with pytest.raises(ConfigError, match=r"config key assignments: .* 3 tokens is not one of the levels"):
        command(assignments=["uniform:3"])
