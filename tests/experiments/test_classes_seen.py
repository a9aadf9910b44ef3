"""What a classifier sees in reconstructions: all of it where they are the clips, chance where they are one picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.assignments.rules import Fixed
from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSet
from evatok.experiments import classes_seen
from evatok.experiments.tracking import ConfigError
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import AdaptiveTokenizer


class Copies(torch.nn.Module):
    """Stands for a tokenizer that loses nothing at 4 tokens a block and everything at 2."""

    def __init__(self, tokenizer: AdaptiveTokenizer) -> None:
        super().__init__()
        self.config, self.weight = tokenizer.config, torch.nn.Parameter(torch.zeros(1))

    def forward(self, clips: torch.Tensor, lengths: torch.Tensor):
        made = clips if int(lengths.max()) == 4 else torch.full_like(clips, 0.5)
        return type("Reconstruction", (), {"clips": made * 1.0})


def test_reconstructions_are_the_clips_of_their_rule(tokenizer):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 16, 3), dtype=np.uint8)
    clips, copies = ClipSet(pixels, pd.DataFrame(index=range(5)), {"name": "noise"}), Copies(tokenizer)
    candidates = tokenizer.config.candidates
    assert np.array_equal(classes_seen.reconstructed(copies, clips, Fixed(candidates, [4]), 2), pixels)
    assert np.unique(classes_seen.reconstructed(copies, clips, Fixed(candidates, [2]), 2)).tolist() == [128]


@pytest.fixture
def command(runs, tmp_path, tokenizer, tiny, moving_clips):
    """Runs the experiment on labelled clips with a tokenizer and a classifier of random weights: (**settings)."""
    labels = pd.DataFrame({"motion": ["left", "rest"] * 3})
    clip_sets.save(tmp_path / "clips", moving_clips(6, tiny.frames, tiny.size), labels, {"name": "moving", "seed": 0})
    checkpoints.save(tmp_path / "t.safetensors", tokenizer, kind="tokenizer", config=tiny.to_dict())
    shape = ClassifierConfig(2, tiny.frames, tiny.size, 2, 8, 0.0)
    facts = {"classes": ["left", "rest"], "label": "motion"}
    checkpoints.save(
        tmp_path / "c.safetensors", ClipClassifier(shape), kind="classifier", config=shape.to_dict(), facts=facts
    )

    def run(**settings):
        places = {"data": str(tmp_path / "clips"), "records_folder": str(tmp_path / "records"), "split": "all"}
        networks = {"checkpoint": str(tmp_path / "t.safetensors"), "classifier": str(tmp_path / "c.safetensors")}
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
