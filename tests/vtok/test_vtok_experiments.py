"""The chain of VTok's experiments at the smallest size: encoder, stills, strategies; kills, swaps, refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data.clips import ClipSet
from evatok.data.embedded import camera_text, moving_shapes
from evatok.experiments import train_image_encoder, vtok_stills, vtok_understanding
from evatok.experiments.tracking import ConfigError
from evatok.storage import checkpoints, records
from evatok.vtok.scoring import ScoringError

SHORT = {"warmup": 2, "log_every": 5, "save_every": 10, "ema": 0.8, "threads": 1}
MODEL = {"width": 16, "layers": 1, "heads": 2, "batch": 8}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def made(cache, runs, monkeypatch):
    """Where the encoder and the model of stage A lie; made once."""
    monkeypatch.setenv("EVATOK_CACHE", str(cache))
    monkeypatch.setattr(moving_shapes, "REEL", 20)
    places = {"records_folder": str(cache / "records")}
    encoder, stills = cache / "encoder.safetensors", cache / "stills.safetensors"
    if not encoder.exists():
        sizes = {"train_clips": 20, "validation_clips": 20, "steps": 10, "batch": 8, "width": 16, "channels": 8}
        given = {**SHORT, **places, **sizes, "work": str(cache / "encoder"), "checkpoint": str(encoder)}
        train_image_encoder.ex.run(config_updates=given)
        sizes = {**MODEL, "train_clips": 20, "test_clips": 20, "steps": 10, "per_clip": "", "encoder": str(encoder)}
        given = {**SHORT, **places, **sizes, "work": str(cache / "stills"), "checkpoint": str(stills)}
        vtok_stills.ex.run(config_updates=given)
    return {"encoder": str(encoder), "start": str(stills), "cache": cache}


@pytest.fixture
def teach(made, tmp_path):
    """Teaches a strategy: (name, **changes) -> the result."""

    def run(name: str, **changes) -> dict:
        sizes = {**MODEL, "train_clips": 20, "limit": 10, "steps": 10, "encoder": made["encoder"]}
        checkpoint = str(tmp_path / name / "model.safetensors")
        places = {"work": str(tmp_path / name), "checkpoint": checkpoint, "records_folder": str(tmp_path / "records")}
        given = {**SHORT, **sizes, **places, "per_clip": "", "start": made["start"], **changes}
        return vtok_understanding.ex.run(config_updates=given).result

    return run


def record_of(result: dict, folder: Path) -> records.Record:
    return records.read(folder / "records" / f"{result['record']}.json")


@pytest.mark.slow
def test_every_strategy_is_taught_measured_and_recorded(teach, tmp_path, made):
    encoder = checkpoints.load(Path(made["encoder"]), "image_encoder").sha256
    for settings, tokens in (({"strategy": "none"}, 0), ({"strategy": "lavit"}, 61), ({}, 46)):
        record = record_of(teach(f"rows-{tokens}", **settings), tmp_path)
        assert record.metrics["tokens"].value == tokens
        assert record.metrics["accuracy"].n == 70
        assert record.metrics["accuracy.motion"].n == 10
        assert record.protocol["deviations"] == ["limited to 10 clips", "10 clips instead of 600"]
        assert record.model["parents"]["image_encoder"] == encoder
    assert checkpoints.load(Path(made["encoder"]), "image_encoder").sha256 == encoder, "nothing trains the encoder"


@pytest.mark.slow
def test_freedoom_s_clips_are_asked_what_the_camera_does(teach, tmp_path, monkeypatch):
    motions = [*camera_text.OPTIONS, *["idle"] * 6]
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 64, 64, 3), dtype=np.uint8)
    labels = pd.DataFrame({"motion": motions})
    manifest = {"name": "freedoom", "split": "test", "seed": 0, "recipe": {"version": 3}, "sha256": "a" * 64}
    found = ClipSet(pixels, labels, {**manifest, "clips": 12, "shape": list(pixels.shape)})
    monkeypatch.setattr(vtok_understanding, "clip_set", lambda name, *_, **__: {"freedoom@3": found}[name])
    record = record_of(teach("camera", fps=3, protocol="freedoom-understanding", limit=12, batch=4), tmp_path)
    assert record.metrics["tokens"].value == 31
    assert record.metrics["accuracy.motion"].n == 6, "one clip of each motion"


@pytest.mark.slow
def test_a_killed_training_ends_as_the_unbroken_one(teach):
    whole = teach("whole")
    assert teach("sliced", minutes=1e-9) == {"complete": False, "step": 5, "steps": 10}
    finished = teach("sliced")
    one, other = (checkpoints.load(Path(found["checkpoint"]), "video_language_model") for found in (whole, finished))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.mark.slow
def test_a_model_of_frames_is_measured_with_tokens_swapped_in(teach, tmp_path):
    frames = teach("frames", strategy="frames", frames_sampled=8)
    swapped = teach("swap", residual="pooled", steps=0, start=frames["checkpoint"])
    parents = record_of(swapped, tmp_path).model["parents"]
    held = checkpoints.load(Path(frames["checkpoint"]), "video_language_model")
    assert parents["start"] == held.sha256
    assert parents["stills"] == held.parents["stills"]
    now = checkpoints.load(Path(swapped["checkpoint"]), "video_language_model")
    assert all(torch.equal(now.weights[name], held.weights[name]) for name in held.weights)


@pytest.mark.slow
def test_a_judge_that_learned_answers_as_it_was_measured(teach, made):
    from evatok.alignment import triples
    from evatok.alignment.__main__ import answered
    from evatok.alignment.judge import ModelJudge
    from evatok.evaluation import protocols

    result = teach("judge")
    protocol = protocols.get("moving-shapes-understanding")
    judge = ModelJudge.load(Path(result["checkpoint"]), Path(made["encoder"]))
    asked = triples.triples_of(protocol, 10)
    right, _ = triples.right(asked, answered(judge, protocols.clips_of(protocol, limit=10).clips, asked))
    assert 100 * right.mean() == pytest.approx(result["accuracy"], abs=0.06)
    with pytest.raises((ScoringError, checkpoints.CheckpointError)):
        ModelJudge.load(Path(result["checkpoint"]), Path(made["start"]))


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_any_clip_is_made(teach, made):
    with pytest.raises(ConfigError, match="build clips of 61 frames"):
        teach("odd", fps=12)
    with pytest.raises(ConfigError, match="a square"):
        teach("odd", key=8)
    with pytest.raises(ConfigError, match="asks nothing about moving-shapes"):
        teach("odd", protocol="embedded-reconstruction")
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        teach("odd", start="", steps=0)
    with pytest.raises(checkpoints.CheckpointError, match="no such checkpoint"):
        teach("odd", start="nothing.safetensors")
