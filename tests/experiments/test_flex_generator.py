"""Generators on VideoFlexTok's codes as a user trains and samples them: one training, any number of tokens."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evatok.data import clips as clip_sets
from evatok.evaluation import protocols
from evatok.experiments import sample, stage5_generator
from evatok.experiments.tracking import ConfigError
from evatok.generation import code_cache, flops
from evatok.generation.conditions import GenerationError
from evatok.generation.grammar import GrammarError
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.storage import checkpoints, records
from tests.factories import (
    FOUR_STEPS,
    ONE_LAYER,
    TINY_FLEX,
    configured,
    curve_of,
    places,
    record_of,
    saved_classifier,
    saved_tokenizer,
    saved_videoflextok,
)

COUNT, SHAPE = 6, {"frames": TINY_FLEX.frames, "size": TINY_FLEX.size}
LABELS = ["idle", "walk", "turn", "idle", "turn", "walk"]

pytestmark = pytest.mark.usefixtures("runs", "colour_features")


@pytest.fixture
def moving(tmp_path, monkeypatch, moving_clips) -> str:
    """The folder of gratings with motions, under a protocol "brief"; caches of this test alone."""
    base = protocols.get("larp-ucf101-generation")
    told = {"name": "brief", "data": "films", "clip_choice": "first", "clip_seed": 0, "clips": COUNT}
    brief = dataclasses.replace(base, **told, **SHAPE)
    monkeypatch.setitem(protocols.PROTOCOLS, "brief", brief)
    monkeypatch.setitem(GENERATOR_SIZES, "toy", ONE_LAYER)
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    facts = {"name": brief.data, "split": brief.split, "seed": brief.clip_seed, "protocol": brief.hash}
    clip_sets.save(tmp_path / "clips", moving_clips(COUNT, **SHAPE), pd.DataFrame({"motion": LABELS}), facts)
    return str(tmp_path / "clips")


@pytest.fixture
def train(tmp_path, moving, moving_clips):
    """Trains on a tokenizer's codes: (name, tokenizer, **changes) -> the run."""
    taught = tmp_path / "taught"
    clip_sets.save(taught, moving_clips(COUNT, **SHAPE), pd.DataFrame({"motion": LABELS}), {"name": "gratings"})

    def run(name: str, tokenizer: str, **changes: Any):
        inputs = {"data": str(taught), "tokenizer": tokenizer, "validation_clips": 2, "train_clips": 4, "bf16": False}
        given = {**FOUR_STEPS, **inputs, **places(tmp_path / name, "generator.safetensors"), "batch": 2, **changes}
        return stage5_generator.ex.run(config_updates=given)

    return run


@pytest.fixture
def draw(tmp_path, moving):
    """Samples a generator: (generator, tokenizer, **changes) -> the record."""

    def run(generator: str, tokenizer: str, **changes: Any) -> records.Record:
        judge = saved_classifier(tmp_path / "classifier.safetensors", sorted(set(LABELS)), *SHAPE.values())
        given = {"generator": generator, "tokenizer": tokenizer, "classifier": judge, "protocol": "brief"}
        written = {"work": str(tmp_path / "drawn"), "output": "", "per_clip": str(tmp_path / "per_clip")}
        written |= {"records_folder": str(tmp_path / "records")}
        asked = {"data": moving, "router": "", "threads": 1, "flow_steps": 2}
        found = sample.ex.run(config_updates={**given, **written, **asked, **changes})
        return records.read(tmp_path / "records" / f"{found.result['record']}.json")

    return run


def test_one_training_is_sampled_at_any_number_of_tokens(train, draw, tmp_path):
    tokenizer = saved_videoflextok(tmp_path / "flex.safetensors")
    trained = train("one", tokenizer)
    checkpoint, record = trained.result["checkpoint"], record_of(tmp_path, trained)
    assert record.model["facts"]["order"] == "time-first"
    assert "bits_per_length" not in record.metrics
    assert record.metrics["mean_tokens"].value == TINY_FLEX.blocks * TINY_FLEX.registers
    assert record.model["training_flops"] > 0
    assert all("lengths" not in line for line in curve_of(tmp_path))
    costs = []
    for kept in (1, 0):
        found = draw(checkpoint, tokenizer, kept=kept)
        tokens = kept or TINY_FLEX.registers
        assert found.metrics["mean_tokens"].value == TINY_FLEX.blocks * tokens
        assert (found.model["order"], found.model["kept"], found.model["flow_steps"]) == ("time-first", tokens, 2)
        named = {"gfvd", "class_consistency", "class_consistency_real", "class_consistency_reconstructed"}
        assert named <= found.metrics.keys()
        costs.append((found.model["generator_flops"], found.model["decoder_flops"]))
    assert costs[0][0] < costs[1][0]
    assert costs[0][1] < costs[1][1]


@pytest.mark.parametrize(("form", "order"), [("flat", "flat"), ("grid", "depth-first"), ("flexible", "depth-first")])
def test_controls_are_sampled_with_all_tokens(train, draw, tmp_path, form, order):
    registers = {"registers": TINY_FLEX.patches} if form == "grid" else {}
    tokenizer = saved_videoflextok(tmp_path / "flex.safetensors", form=form, **registers)
    trained = train("one", tokenizer, order=order, steps=2)
    record = draw(trained.result["checkpoint"], tokenizer, metrics="")
    expected = TINY_FLEX.blocks * registers.get("registers", TINY_FLEX.registers)
    assert record.metrics["mean_tokens"].value == expected


def test_what_cannot_be_is_refused(train, draw, tmp_path, tokenizer):
    flex = saved_videoflextok(tmp_path / "flex.safetensors")
    with pytest.raises(ConfigError, match="key task: generators on VideoFlexTok's codes learn classes"):
        train("frames", flex, task="frames")
    with pytest.raises(GrammarError, match="have the order time-first or depth-first, not flat"):
        train("flat", flex, order="flat")
    trained = train("depth", flex, order="depth-first", steps=2).result["checkpoint"]
    with pytest.raises(GrammarError, match="only time-first and flat ones can be cut"):
        draw(trained, flex, kept=2)
    other = saved_videoflextok(tmp_path / "other.safetensors", encoder_layers=1)
    with pytest.raises(GenerationError, match="was trained on the codes of tokenizer"):
        draw(trained, other)
    adaptive = saved_tokenizer(Path(tmp_path / "adaptive.safetensors"), tokenizer)
    with pytest.raises(Exception, match="adaptive"):
        draw(trained, adaptive)


def test_a_generator_says_how_its_tokenizer_was_trained_and_how_many_tokens_it_has(train, tmp_path):
    told = {"form": "flexible", "decoder_mask": "causal", "alignment": False, "stage": 1, "steps": 7, "kept": "powers"}
    tokenizer = saved_videoflextok(tmp_path / "flex.safetensors", {**told, "seed": 3})
    record = record_of(tmp_path, train("one", tokenizer, kept=2, steps=2))
    assert record.model["facts"]["tokenizer"] == {**told, "registers": TINY_FLEX.registers}
    assert record.model["facts"]["kept"] == 2


def test_reconstructions_are_judged_unless_they_are_not_asked_for(train, draw, tmp_path, monkeypatch):
    tokenizer = saved_videoflextok(tmp_path / "flex.safetensors")
    generator = train("one", tokenizer, steps=2).result["checkpoint"]
    monkeypatch.setattr(code_cache, "code_set", lambda *_, **__: pytest.fail("the real clips were coded"))
    record = draw(generator, tokenizer, judge_reconstructions=False, metrics="")
    assert {"class_consistency", "class_consistency_real"} <= record.metrics.keys()
    assert "class_consistency_reconstructed" not in record.metrics


def test_operations_grow_with_tokens_guidance_and_training():
    from evatok.generation.config import GeneratorConfig

    config = GeneratorConfig(100, 0, 64, 16, 2, 2, classes=2)
    one, two = (flops.generator_operations(config, symbols) for symbols in (16, 32))
    assert 2 * one < two < 2.5 * one
    assert flops.generator_operations(config, 16, training=True) == 3 * one
    assert flops.generator_operations(config, 16, guided=True) == 2 * one


def test_the_shipped_generator_is_named_with_the_tokenizer_it_learnt_from():
    told = configured(sample.ex, "videoflextok")
    generator, tokenizer = (checkpoints.load(records.REPOSITORY / told[key]) for key in ("generator", "tokenizer"))
    assert generator.parents["tokenizer"] == tokenizer.sha256
    assert generator.facts["label"] == "game"
