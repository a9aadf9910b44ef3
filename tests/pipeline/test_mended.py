"""Kinds of faults that the battery found, each in its smallest form."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from battery.small import gratings

from evatok.assignments.rules import Rule
from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSetError
from evatok.errors import LONGEST_LINE, line_of
from evatok.experiments import generator_lesson
from evatok.experiments.runs import RunFolder
from evatok.experiments.tracking import ConfigError
from evatok.models.classifier import ClassifierConfig
from evatok.models.encoders import EncoderError, depth_of
from evatok.pictures.gallery import save_moving
from evatok.routing.networks import RouterConfig
from evatok.routing.trained_router import OperatingPoint
from evatok.storage import checkpoints, checksums, environment
from evatok.storage.locks import lock_of, sole_writer
from evatok.tokenizers.config import TokenizerConfig
from evatok.training import curve
from evatok.training.recipe import TrainingError


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoder_layers", 2.5), ("levels", [2, 4.5, 8]), ("patch", [4, 8]), ("quantiser", 3), ("decoder_heads", True)],
)
def test_a_header_of_another_type_is_no_network(tokenizer, field, value):
    whole = tokenizer.config.to_dict()
    assert TokenizerConfig.from_dict(json.loads(json.dumps(whole))) == tokenizer.config
    with pytest.raises(TypeError, match=f"{field} is "):
        TokenizerConfig.from_dict({**whole, field: value})


def test_whole_numbers_are_rates_too_and_a_rate_is_no_whole_number():
    assert checkpoints.shaped(ClassifierConfig, {"classes": 2, "dropout": 0}).dropout == 0
    with pytest.raises(TypeError, match=r"shrink is 2\.0"):
        checkpoints.shaped(ClassifierConfig, {"classes": 2, "shrink": 2.0})
    with pytest.raises(TypeError, match="head is None"):
        checkpoints.shaped(RouterConfig, {"head": None})


@pytest.mark.parametrize("word", ["NaN", "Infinity"])
def test_a_header_with_what_is_no_number_is_no_header(tokenizer, tmp_path, word):
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, tokenizer, kind="tokenizer", config=tokenizer.config.to_dict(), facts={"x": float(word)})
    with pytest.raises(checkpoints.CheckpointError, match=f"its header holds {word}, which is not a number"):
        checkpoints.load(path)


def test_lists_of_a_header_hold_one_type():
    assert checkpoints.listed(["a", "b"], str) == ("a", "b")
    for values in ("ab", None, ["a", 3], [True]):
        with pytest.raises(TypeError, match="is not a list of str"):
            checkpoints.listed(values, str)


def test_an_operating_point_of_other_types_is_none():
    scale = {"quality_mean": -0.3, "quality_std": 0.02, "length_mean": 14, "length_std": 4.3}
    whole = {"metric": "l1", "w_q": 1.2, "scale": scale}
    assert OperatingPoint.from_dict(whole).scale.length_mean == 14
    for odd in ({"metric": 3}, {"w_q": "many"}, {"scale": {**scale, "quality_std": None}}):
        with pytest.raises(TypeError):
            OperatingPoint.from_dict({**whole, **odd})


def test_labels_that_were_changed_are_not_used(tmp_path):
    labels = pd.DataFrame({"motion": ["walk", "turn"]})
    made = clip_sets.save(tmp_path, gratings(2, 0), labels, {"name": "gratings", "seed": 0})
    assert "labels_and_manifest_sha256" not in made.manifest, "records tell sets apart by their pixels, as before"
    for name, was, now in (("labels.csv", "0,walk", "0,turn"), ("manifest.json", "gratings", "bratings")):
        path = tmp_path / name
        whole = path.read_text()
        path.write_text(whole.replace(was, now))
        with pytest.raises(ClipSetError, match="labels or manifest are not what was written"):
            clip_sets.load(tmp_path)
        path.write_text(whole)
    assert clip_sets.load(tmp_path).labels["motion"].tolist() == ["walk", "turn"]


def test_a_set_from_before_labels_had_a_hash_is_read(tmp_path):
    clip_sets.save(tmp_path, gratings(1, 0), pd.DataFrame({"motion": ["walk"]}), {"name": "gratings"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["labels_and_manifest_sha256"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert len(clip_sets.load(tmp_path)) == 1


class Named(Rule):
    """A rule that is nothing but the hash of its router."""

    def __init__(self, sha256: str) -> None:
        super().__init__({"assignment": "router"}, {"router": sha256})

    def __call__(self, *arguments):
        raise AssertionError("nothing is coded")


def test_a_generator_learns_codes_under_the_router_of_its_tokenizer_alone(tokenizer, monkeypatch):
    monkeypatch.setattr(generator_lesson, "load_routed", lambda *arguments: Named("b" * 64))
    config = {"router": "other.safetensors", "device": "cpu"}
    held = checkpoints.Checkpoint("tokenizer", {}, {}, {}, {}, "t" * 64)
    for parents in ({}, {"router": "b" * 64}):
        tokenizer.checkpoint = dataclasses.replace(held, parents=parents)
        assert generator_lesson.rule_of(config, tokenizer, None, ()).parents == {"router": "b" * 64}
    tokenizer.checkpoint = dataclasses.replace(held, parents={"router": "a" * 64})
    with pytest.raises(ConfigError, match=r"key router: other\.safetensors is b{12}, but .* of a{12}; give"):
        generator_lesson.rule_of(config, tokenizer, None, ())
    assert generator_lesson.rule_of(config, tokenizer, (4, 4, 4), ()).parents == {}, "a fixed row has no router"


def test_the_depth_of_an_encoder_is_known_without_its_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "videomae", "num_hidden_layers": 3}))
    assert depth_of(tmp_path) == 3
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "videomae", "num_hidden_layers": "many"}))
    with pytest.raises(EncoderError, match=r"cannot read its config\.json"):
        depth_of(tmp_path)


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_an_interruption_while_a_lock_is_taken_leaves_none(tmp_path, monkeypatch, call):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, call, interrupted)
        with pytest.raises(KeyboardInterrupt), sole_writer(lock_of(tmp_path)):
            pass
    assert not list(tmp_path.iterdir())
    with sole_writer(lock_of(tmp_path)):
        assert lock_of(tmp_path).exists()


def test_a_run_interrupted_before_it_was_stored_is_no_second_error(tmp_path):
    store, now = RunFolder(tmp_path), datetime.now(UTC)
    store.interrupted_event(now, "INTERRUPTED")
    store.failed_event(now, [])
    assert store.run_entry is None


def test_a_source_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    source = tmp_path / "code.py"
    source.write_text("x = 1\n")

    def cut(source: Path, target: Path) -> None:
        Path(target).write_text("x")
        signal.raise_signal(signal.SIGINT)

    store = RunFolder(tmp_path / "runs")
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", cut)
        with pytest.raises(KeyboardInterrupt):
            store.find_or_save(str(source), tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())
    assert store.find_or_save(str(source), tmp_path / "kept").read_text() == "x = 1\n"


def test_moving_pictures_do_not_depend_on_what_lay_in_memory(tmp_path):
    y, x = np.mgrid[:132, :136]
    steps = [np.sin((x + 3 * t) / 9) + np.cos((y - t) / 7) for t in range(16)]
    picture = np.stack([np.stack([60 * part + 120] * 3, axis=-1) for part in steps]).astype(np.uint8)
    picture[:, 40:90, 40:90] = np.random.default_rng(0).integers(0, 256, (16, 50, 50, 3))
    found = set()
    for number in range(6):
        junk = [np.full(size, 37 * number % 256, np.uint8) for size in range(1000, 300_000, 20_011 + 997 * number)]
        del junk
        found.add(save_moving(picture, tmp_path / "x.mp4").read_bytes())
    assert len(found) == 1


def test_a_line_stays_a_line_whatever_a_file_put_into_it():
    line = line_of(ConfigError("the header is " + "\0\x1b[2J" * 5000 + "; the columns are path"))
    assert line.isprintable()
    assert len(line) == LONGEST_LINE
    assert line.startswith(r"the header is \x00\x1b[2J")
    assert line.endswith("; the columns are path")


def test_a_link_that_leads_back_to_itself_is_named_in_records_as_it_is(tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(link)
    assert environment.portable({"checkpoint": str(link)}) == {"checkpoint": link.name}
    checksums.check(tmp_path)


def test_lines_of_a_curve_are_not_lost_in_silence(tmp_path):
    path = tmp_path / "curve.jsonl"
    lines = [json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in (1, 2, 3)]
    path.write_text("".join([*lines, lines[2][:9]]))
    curve.drop_lines_after(path, 2)
    assert path.read_text() == lines[0] + lines[1], "what a kill left is dropped"
    for damaged in ("x" + "".join(lines), lines[0], "", lines[0] + "{}\n" + lines[2]):
        path.write_text(damaged)
        with pytest.raises(TrainingError, match=r"curve\.jsonl: not a complete curve, .* delete it to go on without"):
            curve.drop_lines_after(path, 3)
        assert path.read_text() == damaged
