"""Pre-training a VideoMAE: it learns, resumes to the bit, and leaves a folder that any reader of VideoMAE takes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.data.clips import to_network
from evatok.experiments import pretrain_videomae
from evatok.experiments.tracking import ConfigError
from evatok.models.encoders import load_encoder
from evatok.training import loop
from evatok.training.masked_video import (
    VIDEOMAE_SIZES,
    hidden_patch_error,
    hidden_places,
    mean_colour_error,
    patch_pixels,
)
from tests.factories import FOUR_STEPS, TINY_VIDEOMAE, places, record_of


@pytest.fixture
def pretrain(tmp_path, moving_clips, monkeypatch):
    """Pre-trains a tiny VideoMAE on twelve clips in a folder of its own: (name, **changes) -> the run."""
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setitem(VIDEOMAE_SIZES, "toy", TINY_VIDEOMAE)
    labels = pd.DataFrame({"motion": ["run", "pan"] * 6})
    clip_sets.save(tmp_path / "clips", moving_clips(12, 16, 16), labels, {"name": "gratings", "seed": 0})

    def run(name: str = "one", **changes):
        inputs = {"data": str(tmp_path / "clips"), "probe_data": str(tmp_path / "clips"), "probe_labels": ["motion"]}
        counts = {"train_clips": 12, "validation_clips": 6, "probe_train_clips": 12, "probe_clips": 6}
        common = {**FOUR_STEPS, **inputs, **counts, "masking": 0.5, "bf16": False}
        updates = {**common, **places(tmp_path / name, "encoder"), **changes}
        return pretrain_videomae.ex.run(config_updates=updates)

    return run


def weights_of(run) -> dict[str, torch.Tensor]:
    return load_encoder(run.result["checkpoint"]).model.state_dict()


@pytest.mark.slow
def test_it_learns_to_reconstruct_what_is_hidden(pretrain, tmp_path):
    four = {"train_clips": 4, "validation_clips": 4, "flip": False}
    run = pretrain(steps=120, learning_rate=1e-2, log_every=10, save_every=120, ema=0.8, **four)
    curve = [line["reconstruction"] for line in loop.read_curve(tmp_path / "one" / "work")]
    assert curve[-1] < 0.85 * curve[0]
    found = record_of(tmp_path, run).metrics
    assert found["reconstruction"].value < 0.97 * found["reconstruction_of_mean_colour"].value


def test_it_leaves_an_encoder_a_record_and_no_scraps(pretrain, tmp_path):
    run = pretrain()
    encoder = load_encoder(run.result["checkpoint"])
    assert encoder.grid(16, 16) == (8, 2, 2)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["encoder", "records", "work"]
    checked = json.loads((tmp_path / "one" / "encoder" / "checksums.json").read_text())
    assert set(checked) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    told = json.loads((tmp_path / "one" / "encoder" / "preprocessor_config.json").read_text())
    assert told["image_mean"] == pytest.approx(encoder.mean.flatten().tolist())
    record = record_of(tmp_path, run)
    assert (record.kind, record.status) == ("pretrain_videomae", "toy")
    assert record.model["sha256"] == encoder.weights_sha256
    probes = {"probe_motion", "probe_motion_untrained", "probe_motion_guess"}
    assert set(record.metrics) == {"reconstruction", "reconstruction_of_mean_colour", *probes}
    assert all(0 <= record.metrics[name].value <= 1 and record.metrics[name].n == 6 for name in probes)


def test_a_second_training_replaces_the_folder(pretrain, tmp_path):
    first = weights_of(pretrain("one"))
    place = str(tmp_path / "one" / "encoder")
    second = weights_of(pretrain("two", checkpoint=place, seed=1))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert [path.name for path in Path(place).parent.glob("*encoder*")] == ["encoder"]


@pytest.mark.slow
def test_killed_it_goes_on_where_it_stopped(pretrain, tmp_path, monkeypatch):
    whole = pretrain("whole")
    one_step = loop._one_step

    def mortal(*arguments, **keywords):
        if 3 in arguments:
            raise KeyboardInterrupt
        return one_step(*arguments, **keywords)

    monkeypatch.setattr(loop, "_one_step", mortal)
    with pytest.raises(KeyboardInterrupt):
        pretrain("killed")
    monkeypatch.setattr(loop, "_one_step", one_step)
    resumed = weights_of(pretrain("killed"))
    assert all(torch.equal(value, resumed[name]) for name, value in weights_of(whole).items())
    assert loop.read_curve(tmp_path / "killed" / "work") == loop.read_curve(tmp_path / "whole" / "work")


def test_without_a_probe_only_reconstruction_is_measured(pretrain, tmp_path):
    run = pretrain(probe_data="none")
    assert set(record_of(tmp_path, run).metrics) == {"reconstruction", "reconstruction_of_mean_colour"}


def test_a_label_the_probes_clips_lack_is_named(pretrain):
    with pytest.raises(ConfigError, match="probe_labels: clip set gratings has no 'map', it has motion"):
        pretrain(probe_labels=["map"])


@pytest.mark.parametrize("normalised", [False, True])
def test_what_is_to_be_reconstructed_is_what_the_network_is_trained_on(normalised, moving_clips, monkeypatch):
    """A network that says zero everywhere errs by the mean square of its targets: ours are transformers'."""
    monkeypatch.setitem(VIDEOMAE_SIZES, "toy", TINY_VIDEOMAE)
    config = {"size": "toy", "seed": 0, "device": "cpu", "bf16": False, "masking": 0.5, "tubes": True}
    config["normalise_patches"] = normalised
    network, pixels = pretrain_videomae._network(config), moving_clips(3, 16, 16)
    for parameter in network.decoder.head.parameters():
        torch.nn.init.zeros_(parameter)
    said = hidden_patch_error(network, pixels, config, torch.Generator().manual_seed(0)).item()
    hidden = hidden_places(3, network.config, config, torch.Generator().manual_seed(0))
    wanted = patch_pixels(to_network(pixels), network.config)[hidden]
    assert said == pytest.approx(wanted.square().mean().item(), rel=1e-4)
    painted = mean_colour_error(network, pixels, config, torch.Generator().manual_seed(0)).item()
    assert painted == pytest.approx(said, rel=1e-4) if normalised else painted < said / 2


def test_tubes_hide_the_same_places_at_every_time():
    shape = type("Shape", (), {"image_size": 64, "patch_size": 8, "num_frames": 16, "tubelet_size": 2})
    config = {"masking": 0.9, "tubes": True}
    hidden = hidden_places(5, shape, config, torch.Generator().manual_seed(0)).view(5, 8, 64)
    assert (hidden == hidden[:, :1]).all()
    assert (hidden[:, 0].sum(1) == 58).all()
    assert len({tuple(row.tolist()) for row in hidden[:, 0]}) == 5


def test_without_tubes_every_time_has_places_of_its_own_and_every_clip_as_many():
    shape = type("Shape", (), {"image_size": 64, "patch_size": 16, "num_frames": 16, "tubelet_size": 2})
    config = {"masking": 0.9, "tubes": False}
    hidden = hidden_places(5, shape, config, torch.Generator().manual_seed(0)).view(5, 8, 16)
    assert (hidden.sum((1, 2)) == 115).all()
    assert not (hidden == hidden[:, :1]).all()
