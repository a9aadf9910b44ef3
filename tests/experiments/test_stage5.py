"""Stage 5 as a user runs it: codes once, learns, resumes bit for bit, and leaves a generator that samples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.data.sets import clip_set
from evatok.experiments import stage5_generator
from evatok.experiments.tracking import ConfigError
from evatok.generation import code_cache
from evatok.generation.code_cache import CodingError
from evatok.generation.conditions import GenerationError
from evatok.generation.sampling import Sampling
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.generation.video_generator import VideoGenerator
from evatok.routing.trained_router import Router
from evatok.storage import checkpoints
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training import loop
from tests.factories import FOUR_STEPS, ONE_LAYER, curve_of, places, record_of, saved_router, saved_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runs", "smaller")]

VOCABULARY_BITS = math.log2(240 + 3)
MOTIONS = ["walk", "turn", "turn", "walk", "idle", "idle", "walk", "turn", "idle", "walk", "turn", "idle"]


@pytest.fixture(autouse=True)
def small_network(monkeypatch, tmp_path) -> None:
    """A network of one layer, and a cache of this test alone."""
    monkeypatch.setitem(GENERATOR_SIZES, "toy", ONE_LAYER)
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def moving(tmp_path, moving_clips) -> str:
    """The folder of twelve gratings with motions."""
    clip_sets.save(tmp_path / "moving", moving_clips(12), pd.DataFrame({"motion": MOTIONS}), {"name": "gratings"})
    return str(tmp_path / "moving")


@pytest.fixture
def final(smaller, tmp_path) -> str:
    """An untrained tokenizer's checkpoint: its codes are as good as any to learn."""
    return saved_tokenizer(tmp_path / "final.safetensors", smaller, seed=0)


@pytest.fixture
def stage5(tmp_path, moving, final):
    """Runs stage 5 in a folder of its own: (name, **changes) -> the run."""
    router = saved_router(tmp_path / "router.safetensors")

    def run(name: str = "one", **changes):
        inputs = {"data": moving, "tokenizer": final, "router": router, "validation_clips": 5}
        given = {**FOUR_STEPS, **inputs, **places(tmp_path / name, "generator.safetensors"), **changes}
        return stage5_generator.ex.run(config_updates=given)

    return run


LEARNING = {
    "steps": 200,
    "batch": 8,
    "learning_rate": 1e-2,
    "dropout": 0.0,
    "bf16": False,
    "flip": False,
    "log_every": 20,
    "save_every": 100,
}


# Learning


@pytest.mark.parametrize("task", ["class", "frames"])
def test_a_generator_learns_few_clips_by_heart_and_writes_such_again(stage5, tmp_path, moving, final, task):
    run = stage5(task=task, **LEARNING)
    found = record_of(tmp_path, run).metrics
    assert found["bits_per_code"].value < 0.5 * VOCABULARY_BITS
    curve = curve_of(tmp_path)
    assert curve[-1]["codes"] < 0.5 * curve[0]["codes"]
    generator = VideoGenerator.load(run.result["checkpoint"], tokenizer=final)
    clips = clip_set(moving, "train", 4, size=64, frames=16).clips
    if task == "class":
        numbers = [generator.class_index(name) for name in MOTIONS[:4]]
        codes = generator.generate(numbers, range(4), Sampling(guidance=1.5))
    else:
        codes = generator.predict(clips, range(4), Sampling())
        assert (codes.lengths[:, :2] == torch.tensor(generator.prefix)).all()
    assert generator.clips(codes).shape == clips.shape


def test_a_generator_tells_what_it_was_made_from(stage5, tmp_path, moving, final):
    run = stage5()
    made = checkpoints.load(Path(run.result["checkpoint"]), "generator")
    router = Router.load(tmp_path / "router.safetensors")
    clips = clip_set(moving, "train", 10, size=64, frames=16)
    assert made.parents == {
        "tokenizer": checkpoints.load(Path(final), "tokenizer").sha256,
        "clips": clips.sha256,
        "router": router.checkpoint.sha256,
    }
    assert made.facts["classes"] == ["idle", "turn", "walk"]
    assert (made.facts["stage"], made.facts["task"], made.facts["label"]) == (5, "class", "motion")
    assert (made.facts["assignment"], made.facts["prefix"]) == ("router", [])
    assert made.facts["variants"] == code_cache.VARIANTS_RULE
    assert (made.config["vocabulary"], made.config["classes"]) == (243, 3)
    mirrored = router.assignments(np.ascontiguousarray(clips.clips[:, :, :, ::-1]))
    tokens = np.concatenate([router.assignments(clips.clips), mirrored]).sum(1).mean()
    assert made.facts["tokens_per_clip"] == pytest.approx(tokens)


def test_the_record_holds_bits_that_add_up_tokens_and_pace(stage5, tmp_path):
    run = stage5()
    record = record_of(tmp_path, run)
    value = {name: metric.value for name, metric in record.metrics.items()}
    assert (record.kind, record.status) == ("stage5_generator", "toy")
    assert record.protocol["clips"] == 5
    told = value["bits_per_code"] * value["validation_tokens"] + 4 * value["bits_per_length"]
    assert value["bits_per_clip"] == pytest.approx(told)
    assert value["bits_per_code"] == pytest.approx(VOCABULARY_BITS, rel=0.1)  # it has hardly begun to learn
    assert 4 * 2 <= value["mean_tokens"] <= 4 * 8
    assert value["step_seconds"] > 0
    assert run.result["metrics"] == value
    assert record.config["schedule"] == "wsd"


def test_a_fixed_tokenizer_is_taken_at_its_own_row(stage5, smaller, tmp_path):
    fixed = saved_tokenizer(tmp_path / "fixed.safetensors", smaller, seed=0, row=[8])
    for name, changes, tokens in (
        ("own", {"tokenizer": fixed}, 8),
        ("middle", {}, 4),
        ("asked", {"uniform_tokens": 2}, 2),
    ):
        run = stage5(name, assignment="uniform", steps=1, **changes)
        assert all(line["symbols"] == 4 * (tokens + 1) for line in curve_of(tmp_path, name))
        made = checkpoints.load(Path(run.result["checkpoint"]), "generator")
        assert (made.facts["row"], made.facts["tokens_per_clip"]) == ([tokens] * 4, 4 * tokens)
        assert "router" not in made.parents


@pytest.mark.parametrize(
    ("assignment", "given", "prefix"),
    [("router", "levels", [8, 4]), ("router", "row", [8, 2]), ("uniform", "", [4, 4])],
)
def test_frame_prediction_is_given_the_first_blocks_of_every_target(stage5, tmp_path, assignment, given, prefix):
    row = {"given": "row", "uniform_tokens": 4} if given == "row" else {}
    run = stage5(task="frames", assignment=assignment, label="not there", steps=1, **row)
    made = checkpoints.load(Path(run.result["checkpoint"]), "generator")
    assert (made.facts["prefix"], made.facts["classes"]) == (prefix, [])
    assert made.facts.get("given", "") == given
    assert made.config["condition"] == sum(prefix) + 2
    assert made.facts["tokens_per_clip"] >= sum(prefix) + 2 * 2


# Each epoch its own choice of variants


def test_every_epoch_takes_the_variants_that_the_rule_names(stage5, tmp_path, monkeypatch):
    taken = []
    batch = code_cache.CodedSet.batch

    def spying(self, rows, variants=0):
        if self.variants == 2:
            taken.append((rows.tolist(), variants.tolist()))
        return batch(self, rows, variants)

    monkeypatch.setattr(code_cache.CodedSet, "batch", spying)
    stage5(steps=6, batch=5, seed=3)
    assert len(taken) == 6
    for step, (rows, variants) in enumerate(taken):
        assert rows == loop.batch_indices(10, 5, step, 3).tolist()
        assert variants == code_cache.variants_of_epoch(10, step // 2, 3, flip=True)[rows].tolist()
    assert {variant for _, variants in taken for variant in variants} == {0, 1}


def test_without_flip_no_mirrored_clip_is_coded(stage5, monkeypatch):
    coded = []
    encode = AdaptiveTokenizer.encode

    def counting(self, clips, lengths, **options):
        coded.append(len(clips))
        return encode(self, clips, lengths, **options)

    monkeypatch.setattr(AdaptiveTokenizer, "encode", counting)
    stage5(flip=False, steps=1)
    assert sum(coded) == 10 + 5


# Killed, and run again


def test_a_killed_training_goes_on_bit_for_bit_and_codes_nothing_again(stage5, tmp_path, monkeypatch):
    whole = stage5("whole")
    one_step = loop._one_step

    def mortal(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return one_step(*arguments)

    monkeypatch.setattr(loop, "_one_step", mortal)
    with pytest.raises(KeyboardInterrupt):
        stage5("broken")
    monkeypatch.setattr(loop, "_one_step", one_step)
    monkeypatch.setattr(AdaptiveTokenizer, "encode", None)
    again = stage5("broken")
    assert curve_of(tmp_path, "broken") == curve_of(tmp_path, "whole")
    hashes = {checkpoints.load(Path(run.result["checkpoint"]), "generator").sha256 for run in (whole, again)}
    assert len(hashes) == 1
    for name in ("bits_per_code", "bits_per_length", "bits_per_clip"):
        assert again.result["metrics"][name] == whole.result["metrics"][name]


def test_slices_of_no_time_make_the_unbroken_training(stage5, tmp_path):
    stage5("whole")
    for step in (1, 2, 3):
        part = stage5("sliced", minutes=1e-9).result
        assert (part["complete"], part["step"], part["steps"]) == (False, step, 4)
    assert stage5("sliced", minutes=1e-9).result["complete"] is True
    assert curve_of(tmp_path, "sliced") == curve_of(tmp_path, "whole")


def test_looks_at_the_validation_clips_are_kept_and_change_nothing(stage5, tmp_path, runs):
    stage5("often", save_every=1)
    stage5("once", save_every=4)
    assert curve_of(tmp_path, "often") == curve_of(tmp_path, "once")
    kept = json.loads((runs / "stage5_generator" / "1" / "metrics.json").read_text())
    assert kept["validation.bits_per_clip"]["steps"] == [1, 2, 3, 4]


# Bad input


def test_another_tokenizer_is_another_training(stage5, smaller, tmp_path):
    stage5(steps=4)
    saved_tokenizer(tmp_path / "final.safetensors", smaller, seed=1)
    with pytest.raises(ConfigError, match="holds another training"):
        stage5(steps=4)


def test_clips_without_the_label_or_with_an_unknown_class_are_refused(stage5, data, tmp_path):
    with pytest.raises(CodingError, match="no label column 'motion': set label to one of source"):
        stage5(data=data)
    with pytest.raises(GenerationError, match="unknown class 'idle'; known ones: turn, walk"):
        stage5(train_clips=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "sound"}, "task: 'sound' is not one of class, frames"),
        ({"given": "all"}, "given: 'all' is not one of levels, row"),
        ({"given": "row"}, "uniform_tokens: given=row takes the level above"),
        ({"assignment": "random"}, "assignment"),
        ({"assignment": "uniform", "uniform_tokens": 5}, "uniform_tokens: 5 is not one of the levels"),
        ({"positions": "none"}, "positions"),
        ({"dropout": 1.0}, "dropout"),
        ({"model": "XXL"}, "config key model: 'XXL' is not one of toy, small, B, L, XL"),
        ({"schedule": "linear"}, "schedule: 'linear'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(stage5, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        stage5(**change)
    assert not (tmp_path / "one" / "work" / "state.pt").exists()


@pytest.mark.parametrize(
    ("name", "steps", "task"), [("paper_ucf", 223_500, "class"), ("paper_k600", 217_000, "frames")]
)
def test_configurations_of_the_paper_hold_its_figures(name, steps, task):
    config = stage5_generator.ex._create_run("print_config", named_configs=(name,)).config
    assert (config["steps"], config["batch"], config["task"]) == (steps, 128, task)
    assert (config["schedule"], config["final_learning_rate"], config["learning_rate"]) == ("wsd", 0.0, 6e-4)
