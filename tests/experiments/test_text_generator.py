"""A generator of captions as a user trains and samples it: words of the closed vocabulary, on VideoFlexTok's codes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
import pytest

from evatok.data import clips as clip_sets
from evatok.data.embedded.scene_text import vocabulary
from evatok.evaluation import protocols
from evatok.experiments import sample, stage5_generator
from evatok.experiments.tracking import ConfigError
from evatok.generation import captions, taught
from evatok.generation.captions import Reader
from evatok.generation.conditions import GenerationError
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.generation.video_generator import VideoGenerator
from evatok.storage import checkpoints, records
from tests.factories import (
    FOUR_STEPS,
    ONE_LAYER,
    TINY,
    TINY_FLEX,
    places,
    record_of,
    saved_tokenizer,
    saved_videoflextok,
)

SHAPE = {"frames": TINY_FLEX.frames, "size": TINY_FLEX.size}
WORDS = [word for word in vocabulary() if " " not in word]
SAID = [f"{WORDS[number]} {WORDS[number + 1]}" for number in range(6)]

pytestmark = pytest.mark.usefixtures("runs", "colour_features")


@pytest.fixture
def train(tmp_path, monkeypatch, moving_clips):
    """Trains on gratings with captions: (tokenizer, **changes) -> the run."""
    monkeypatch.setitem(GENERATOR_SIZES, "toy", ONE_LAYER)
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    base = protocols.get("larp-ucf101-generation")
    told = {"name": "brief", "data": "films", "clip_choice": "first", "clip_seed": 0, "clips": 6}
    brief = dataclasses.replace(base, **told, **SHAPE)
    monkeypatch.setitem(protocols.PROTOCOLS, "brief", brief)
    facts = {"name": brief.data, "split": brief.split, "seed": brief.clip_seed, "protocol": brief.hash}
    labels = pd.DataFrame({"caption": SAID})
    clip_sets.save(tmp_path / "taught", moving_clips(6, **SHAPE), labels, {"name": "gratings"})
    clip_sets.save(tmp_path / "clips", moving_clips(6, **SHAPE), labels, facts)

    def run(tokenizer: str, **changes: Any):
        data = {"data": str(tmp_path / "taught"), "train_clips": 4, "validation_clips": 2, "bf16": False}
        how = {**FOUR_STEPS, **places(tmp_path / "one", "generator.safetensors"), "batch": 2, "flip": False}
        how["task"] = "text"
        return stage5_generator.ex.run(config_updates={**how, **data, "tokenizer": tokenizer, **changes})

    return run


def test_captions_are_learned_and_sampled_at_any_number_of_tokens(train, tmp_path):
    tokenizer = saved_videoflextok(tmp_path / "flex.safetensors")
    trained = train(tokenizer, text_slots=2)
    record = record_of(tmp_path, trained)
    assert record.metrics["bits_per_clip_without_text"].value > 0
    assert (record.model["facts"]["task"], record.model["facts"]["text"]) == ("text", "words")
    checkpoint = trained.result["checkpoint"]
    video = VideoGenerator.load(checkpoint, tokenizer=tokenizer)
    assert video.module.config.text == 2
    given = {"generator": checkpoint, "tokenizer": tokenizer, "protocol": "brief", "data": str(tmp_path / "clips")}
    written = {"work": str(tmp_path / "drawn"), "output": str(tmp_path / "shown"), "threads": 1, "router": ""}
    asked = {"kept": 2, "guidance": 1.5, "flow_steps": 1, "records_folder": str(tmp_path / "records"), "per_clip": ""}
    drawn = sample.ex.run(config_updates={**given, **written, **asked})
    found = records.read(tmp_path / "records" / f"{drawn.result['record']}.json")
    assert found.metrics["mean_tokens"].value == TINY_FLEX.blocks * 2
    assert found.metrics["gfvd"].n == 6
    assert (tmp_path / "shown" / "sheet.png").exists()


def test_what_cannot_be_is_refused(train, tmp_path, monkeypatch):
    flex = saved_videoflextok(tmp_path / "flex.safetensors")
    with pytest.raises(ConfigError, match="captions are learned on VideoFlexTok's codes"):
        train(saved_tokenizer(tmp_path / "tokenizer.safetensors", TINY))
    with pytest.raises(ConfigError, match="mirrored clips swap"):
        train(flex, flip=True)
    checkpoint = train(flex, steps=2).result["checkpoint"]
    with pytest.raises(ConfigError, match="task is text, it has no classes"):
        sample.ex.run(
            config_updates={"generator": checkpoint, "tokenizer": flex, "protocol": "brief", "classes": "walk"}
            | {"data": str(tmp_path / "clips"), "work": str(tmp_path / "drawn"), "output": "", "threads": 1}
            | {"records_folder": str(tmp_path / "records")}
        )
    held = checkpoints.load(checkpoint, "generator")
    foreign = dataclasses.replace(held, facts={**held.facts, "text": "owner/name"})
    with pytest.raises(GenerationError, match="pass that language model, text=PATH"):
        taught.reader_of(foreign)
    monkeypatch.setattr(captions, "vocabulary", lambda: ("other", "words"))
    with pytest.raises(GenerationError, match="captions are read by 'words'"):
        VideoGenerator.load(checkpoint, tokenizer=flex)


def test_words_are_cut_to_the_longest_caption():
    read = Reader.of("words").read([SAID[0], f"{SAID[1]} {SAID[2]}"])
    assert read.shape == (2, 4)
