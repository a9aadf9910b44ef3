"""Both stages of VideoFlexTok as a user runs them: they record, resume bit for bit, and refuse what cannot be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evatok.experiments import videoflextok_stage1, videoflextok_stage2
from evatok.experiments.tracking import ConfigError
from evatok.models.latents import LatentError
from evatok.storage import checkpoints
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, VideoFlexTok
from evatok.training import loop
from tests.factories import FOUR_STEPS, places, record_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runs", "smaller_flex")]
STAGES = {"stage1": videoflextok_stage1, "stage2": videoflextok_stage2}


@pytest.fixture
def smaller_flex(monkeypatch):
    """Makes the toy size a smaller network on the same clips."""
    widths = {"encoder_width": 16, "encoder_heads": 2, "decoder_width": 16, "decoder_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "registers": 4, "codebook_size": 240}
    shape = replace(VIDEOFLEXTOK_SIZES["toy"], **widths, **layers)
    monkeypatch.setitem(VIDEOFLEXTOK_SIZES, "toy", shape)
    return shape


@pytest.fixture
def stage(tmp_path, data):
    """Runs a stage in a folder of its own: (stage, name, **changes) -> the run."""

    def run(which: str, name: str, **changes):
        inputs = {"data": data, "validation_data": "", "validation_clips": 4, "alignment": "none"}
        common = {**FOUR_STEPS, **inputs, "measured_steps": [1, 2], "bf16": False}
        written = places(tmp_path / name, "flex.safetensors")
        return STAGES[which].ex.run(config_updates={**common, **written, **changes})

    return run


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder of all tests of this file."""
    return tmp_path_factory.mktemp("flextok")


@pytest.fixture
def first(shared, stage) -> str:
    """A checkpoint of stage 1, trained by the first test that asks for it."""
    path = shared / "first.safetensors"
    if not path.exists():
        shutil.copy(stage("stage1", "first").result["checkpoint"], path)
    return str(path)


def test_stage_1_leaves_a_tokenizer_a_curve_and_a_record_of_every_length(stage, tmp_path):
    run = stage("stage1", "one", alignment="results/checkpoints/videomae-toy")
    tokenizer = VideoFlexTok.load(run.result["checkpoint"])
    checkpoint = tokenizer.checkpoint
    assert set(checkpoint.parents) == {"codec", "train_clips", "alignment_encoder"}
    assert checkpoint.parents["codec"] == tokenizer.codec.identity() == tokenizer.config.codec_sha256
    assert checkpoint.facts["stage"] == 1
    record = record_of(tmp_path, run, "one")
    assert (record.kind, record.status) == ("videoflextok_stage1", "toy")
    assert record.protocol["noise_seed"] == 0
    for tokens in (0, 1, 2, 4):
        for steps in (1, 2):
            for name in ("psnr", "l1", "sharpness", "feature_cosine", "motion_ratio", "motion_correlation"):
                assert record.metrics[f"{name}_k{tokens}_steps{steps}"].n == 4
    for name in ("psnr_codec", "l1_codec", "codes_used", "noise_loss_k4", "noise_loss_of_others_k4"):
        assert name in record.metrics
    assert record.metrics["psnr_codec"].value > record.metrics["psnr_k4_steps1"].value
    curve = loop.read_curve(tmp_path / "one" / "work")
    assert [line["step"] for line in curve] == [1, 2, 3, 4]
    assert {"flow", "alignment", "tokens"} <= set(curve[0])


@pytest.mark.parametrize("which", ["stage1", "stage2"])
def test_a_killed_training_resumes_and_ends_as_the_unbroken_one(stage, first, tmp_path, monkeypatch, which):
    changes = {"tokenizer": first} if which == "stage2" else {}
    whole = stage(which, "whole", **changes)
    one_step = loop._one_step

    def mortal(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return one_step(*arguments)

    monkeypatch.setattr(loop, "_one_step", mortal)
    with pytest.raises(KeyboardInterrupt):
        stage(which, "broken", **changes)
    monkeypatch.setattr(loop, "_one_step", one_step)
    again = stage(which, "broken", **changes)
    assert again.result["metrics"] == whole.result["metrics"]
    curves = [(tmp_path / name / "work" / "curve.jsonl").read_text() for name in ("whole", "broken")]
    hashes = [
        checkpoints.load(tmp_path / name / "flex.safetensors", "videoflextok").sha256 for name in ("whole", "broken")
    ]
    assert curves[0] == curves[1]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("changes", [{"form": "flat"}, {"form": "grid", "registers": 16}, {"decoder_mask": "full"}])
def test_the_controls_are_configurations_of_the_same_network(stage, tmp_path, changes):
    run = stage("stage1", "control", steps=2, **changes)
    tokenizer = VideoFlexTok.load(run.result["checkpoint"])
    checkpoint = tokenizer.checkpoint
    for key, value in changes.items():
        assert getattr(tokenizer.config, key) == value
    assert checkpoint.facts["form"] == tokenizer.config.form
    measured = {name.split("_k")[1] for name in run.result["metrics"] if name.startswith("psnr_k")}
    longest = tokenizer.config.registers
    expected = {0, longest} if tokenizer.config.form == "grid" else {0, 1, 2, 4}
    assert measured == {f"{tokens}_steps{steps}" for tokens in expected for steps in (1, 2)}


def test_clips_with_a_causal_first_frame_train_with_the_papers_form_and_mask_tokens(stage, tmp_path, moving_clips):
    import pandas as pd

    from evatok.data import clips as clip_sets

    folder = tmp_path / "seventeen"
    clip_sets.save(
        folder, moving_clips(12, frames=17), pd.DataFrame({"source": ["made"] * 12}), {"name": "gratings", "seed": 0}
    )
    changes = {"data": str(folder), "frames": 17, "form": "time-causal", "drop": "mask", "kept_per": "frame"}
    run = stage("stage1", "causal", alignment="results/checkpoints/videomae-toy", start="plain", **changes)
    tokenizer = VideoFlexTok.load(run.result["checkpoint"])
    assert (tokenizer.config.blocks, tokenizer.config.pooled) == (5, False)


def test_stage_2_leaves_the_encoder_as_it_was_and_moves_the_decoder(stage, first):
    second = stage("stage2", "second", tokenizer=first).result["checkpoint"]
    before, checkpoint = (checkpoints.load(path, "videoflextok") for path in (first, second))
    assert checkpoint.config["decoder_mask"] == "full"
    assert checkpoint.parents["tokenizer"] == before.sha256
    assert (checkpoint.facts["stage"], checkpoint.facts["first_given"]) == (2, 0.5)
    for name, weight in before.weights.items():
        frozen = name.startswith(("codec.", "network.encoder.", "network.quantiser."))
        if frozen:
            assert torch.equal(weight, checkpoint.weights[name]), name
    moved = [name for name, weight in before.weights.items() if not torch.equal(weight, checkpoint.weights[name])]
    assert "network.decoder.given_token" in moved
    assert "network.decoder.to_velocity.weight" in moved


def test_stage_2_control_keeps_the_causal_decoder(stage, first):
    control = stage("stage2", "control", tokenizer=first, decoder_mask="causal", steps=2)
    tokenizer = VideoFlexTok.load(control.result["checkpoint"])
    checkpoint = tokenizer.checkpoint
    assert tokenizer.config.decoder_mask == checkpoint.facts["decoder_mask"] == "causal"


def test_configurations_that_cannot_be_end_in_one_error(stage, tmp_path):
    wrong = {
        "key start: 'warm'": {"start": "warm"},
        "key size: 'huge'": {"size": "huge"},
        "key form: 'spiral'": {"form": "spiral"},
        "key depths: d12-d12 is of size=paper": {"depths": "d12-d12"},
        "key latents: name the folder": {"codec": "vidtok"},
        "key data: name a manifest": {"data": ""},
    }
    for message, changes in wrong.items():
        with pytest.raises(ConfigError, match=message):
            stage("stage1", "wrong", **changes)
    with pytest.raises(LatentError, match="clips of 18 frames"):
        stage("stage1", "wrong", frames=18)
    with pytest.raises(ConfigError, match="key decoder_mask: 'none'"):
        stage("stage2", "wrong", decoder_mask="none")
    with pytest.raises(ConfigError, match="key first_probability"):
        stage("stage2", "wrong", first_probability=2.0)


def test_another_configuration_does_not_resume_a_training(stage, tmp_path):
    stage("stage1", "one")
    with pytest.raises(ConfigError, match=r"holds another training \(noise_mean was 1\.0\)"):
        stage("stage1", "one", noise_mean=0.0)
    claim = json.loads((tmp_path / "one" / "work" / "training.json").read_text())
    assert claim["config"]["noise_mean"] == 1.0
