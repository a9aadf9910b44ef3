"""Stage 4 as a user runs it: the whole objective, under a router's, uniform or random assignments."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel

from evatok.experiments import stage4_final, tokenizer_training
from evatok.experiments.tracking import ConfigError
from evatok.models.efficientnet import EfficientNet
from evatok.models.encoders import EncoderError
from evatok.routing.trained_router import Router, RoutingError
from evatok.storage import checkpoints
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.training import loop, losses
from evatok.training.loop import TrainingError
from evatok.weights import efficientnet
from tests.factories import FOUR_STEPS, curve_of, places, published_efficientnet, record_of, saved_router

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runs", "smaller")]


@pytest.fixture
def encoder(tmp_path) -> str:
    """The folder of a small VideoMAE for the toy's clips."""
    torch.manual_seed(0)
    shape = VideoMAEConfig(
        image_size=64,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    VideoMAEModel(shape).save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.fixture
def stage4(tmp_path, data, encoder):
    """Runs stage 4 in a folder of its own with every term of the objective: (name, **changes) -> the run."""
    router = saved_router(tmp_path / "router.safetensors", (2, 4, 8))

    def run(name: str = "one", **changes):
        encoders = {"alignment": encoder, "alignment_layer": 1, "semantic_encoder": encoder, "semantic_layers": [1, 2]}
        written = places(tmp_path / name, "final.safetensors")
        given = {"data": data, "router": router, **written, **FOUR_STEPS, **encoders, **changes}
        return stage4_final.ex.run(config_updates=given)

    return run


@pytest.mark.parametrize("discriminator", ["transformer", "semantic"])
def test_the_loss_is_the_weighted_sum_of_every_logged_term(stage4, tmp_path, discriminator):
    stage4(discriminator=discriminator, steps=2, adversarial_weight=0.5)
    for line in curve_of(tmp_path):
        pixels = 10 * line["squared"] + 10 * line["change"]
        told = pixels + line["quantiser"] + 0.7 * line["alignment"] + 0.5 * line["adversarial"]
        assert line["loss"] == pytest.approx(told, rel=1e-4)
        assert {"discriminator", "logit_real", "logit_fake", "discriminator_accuracy", "tokens"} <= line.keys()


def test_a_final_tokenizer_names_all_it_was_made_from(stage4, tmp_path, encoder):
    run = stage4(steps=2)
    found = checkpoints.load(Path(run.result["checkpoint"]), "tokenizer")
    router = checkpoints.load(tmp_path / "router.safetensors", "router")
    assert found.parents["router"] == router.sha256
    assert {"train_clips", "alignment_encoder", "discriminator_encoder"} <= found.parents.keys()
    assert found.facts["assignment"] == "router"
    assert found.facts["discriminator"] == "semantic"
    assert found.facts["alignment"] is True
    record = record_of(tmp_path, run)
    assert record.kind == "stage4_final"
    assert record.model["facts"] == found.facts
    assert 4 * 2 <= record.metrics["mean_tokens"].value <= 4 * 8
    assert 0 <= record.metrics["discriminator_accuracy"].value <= 1
    # Only the tokenizer ships: no head, no discriminator.
    found.fill(AdaptiveTokenizer(TOKENIZER_SIZES["toy"]))


def test_the_router_names_the_assignments_of_the_clips_as_the_tokenizer_sees_them(stage4, monkeypatch):
    seen = []
    forward = AdaptiveTokenizer.forward

    def spying(self, clips, lengths, **options):
        if self.training:
            seen.append((clips.detach().clone(), lengths.clone()))
        return forward(self, clips, lengths, **options)

    monkeypatch.setattr(AdaptiveTokenizer, "forward", spying)
    run = stage4(steps=3, bf16=False)
    router = Router.load(Path(run.config["router"]))
    assert len(seen) == 3
    for clips, lengths in seen:
        assert torch.equal(router.assign(clips), lengths)


@pytest.mark.parametrize(("tokens", "expected"), [(0, 4), (8, 8)])
def test_uniform_assignments_are_the_middle_level_or_the_one_asked_for(stage4, tmp_path, tokens, expected):
    run = stage4(assignment="uniform", uniform_tokens=tokens, steps=1, discriminator="none", alignment="none")
    assert all(line["tokens"] == 4 * expected for line in curve_of(tmp_path))
    assert checkpoints.load(Path(run.result["checkpoint"]), "tokenizer").facts["row"] == [expected]


@pytest.mark.parametrize(
    "opponent",
    [
        {"discriminator": "transformer"},
        {"discriminator": "semantic", "discriminator_warmup": 3, "semantic_lecam": 0.1},
    ],
)
def test_a_killed_training_goes_on_where_it_stopped_opponent_and_all(stage4, tmp_path, monkeypatch, opponent):
    whole = stage4("whole", **opponent)
    one_step = loop._one_step

    def mortal(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return one_step(*arguments)

    monkeypatch.setattr(loop, "_one_step", mortal)
    with pytest.raises(KeyboardInterrupt):
        stage4("broken", **opponent)
    monkeypatch.setattr(loop, "_one_step", one_step)
    again = stage4("broken", **opponent)
    assert again.result["metrics"] == whole.result["metrics"]
    assert curve_of(tmp_path, "broken") == curve_of(tmp_path, "whole")


def test_slices_of_no_time_make_the_unbroken_training(stage4, tmp_path):
    whole = stage4("whole")
    for step in (1, 2, 3):
        part = stage4("sliced", minutes=1e-9).result
        assert (part["complete"], part["step"], part["steps"]) == (False, step, 4)
    last = stage4("sliced", minutes=1e-9)
    assert last.result["complete"] is True
    assert curve_of(tmp_path, "sliced") == curve_of(tmp_path, "whole")
    assert last.result["metrics"] == whole.result["metrics"]


def test_the_discriminator_waits_for_its_first_step(stage4, tmp_path):
    stage4(discriminator_start=2)
    early, late = curve_of(tmp_path)[:2], curve_of(tmp_path)[2:]
    assert not any("adversarial" in line for line in early)
    assert all("adversarial" in line for line in late)


@pytest.mark.parametrize("adaptive", [False, True])
def test_in_its_warm_up_the_discriminator_learns_and_the_tokenizer_learns_as_without_it(stage4, tmp_path, adaptive):
    plain = {"assignment": "uniform", "alignment": "none", "flip": False}
    stage4("without", discriminator="none", **plain)
    stage4("warm", discriminator_warmup=2, adversarial_adaptive=adaptive, **plain)
    for step, (line, alone) in enumerate(zip(curve_of(tmp_path, "warm"), curve_of(tmp_path, "without"), strict=True)):
        assert 0 < line["discriminator_accuracy"] < 1
        if step < 2:
            assert line["adversarial"] == 0
            assert line["loss"] == alone["loss"]
        else:
            assert line["adversarial"] != 0
            assert line["loss"] != alone["loss"]


def test_a_trunk_by_name_judges_a_few_frames_and_the_tokenizer_names_it(stage4, monkeypatch):
    monkeypatch.setattr(efficientnet, "load", published_efficientnet)
    monkeypatch.setattr(efficientnet, "bring", lambda: None)
    seen = []
    trunk = EfficientNet.forward
    monkeypatch.setattr(EfficientNet, "forward", lambda self, x, layers: seen.append(x.shape) or trunk(self, x, layers))
    where = {"semantic_encoder": "efficientnet-lite0", "semantic_layers": [5, 8], "semantic_frames": 3}
    run = stage4(steps=1, assignment="uniform", alignment="none", **where)
    assert seen == [(4, 3, 3, 64, 64)] * 3, "real clips, reconstructions, and these again for the tokenizer"
    parents = checkpoints.load(Path(run.result["checkpoint"]), "tokenizer").parents
    assert parents["discriminator_encoder"] == efficientnet.SHA256


def test_networks_that_differ_in_their_losses_only_start_alike(stage4, tmp_path):
    for name, discriminator in (("with", "semantic"), ("without", "none")):
        stage4(name, steps=1, discriminator=discriminator)
    first = [curve_of(tmp_path, name)[0] for name in ("with", "without")]
    assert first[0]["l1"] == first[1]["l1"]
    assert first[0]["tokens"] == first[1]["tokens"]


def test_an_adaptive_weight_balances_the_gradients_at_the_last_layer(stage4, tmp_path):
    stage4("fixed", steps=1, alignment="none")
    stage4("adaptive", steps=1, alignment="none", adversarial_adaptive=True)
    fixed, adaptive = (curve_of(tmp_path, name)[0] for name in ("fixed", "adaptive"))
    assert fixed["adversarial"] == pytest.approx(adaptive["adversarial"], rel=1e-5)
    assert fixed["loss"] != pytest.approx(adaptive["loss"], rel=1e-5)


# Bad input


def test_an_absent_encoder_is_named_with_the_way_to_it(stage4):
    with pytest.raises(EncoderError, match=r"nowhere.*pretrain_videomae"):
        stage4(alignment="nowhere")


def test_an_encoder_for_other_clips_is_refused(stage4, tmp_path):
    shape = VideoMAEConfig(image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    VideoMAEModel(shape).save_pretrained(tmp_path / "other")
    with pytest.raises(EncoderError, match="32"):
        stage4(semantic_encoder=str(tmp_path / "other"), semantic_layers=[1])


def test_a_layer_the_encoder_lacks_is_a_clear_error(stage4):
    with pytest.raises(ConfigError, match="key semantic_layers: layer 7 of an encoder with only 2 layers"):
        stage4(semantic_layers=[7])


def test_a_router_for_other_levels_is_refused(stage4, tmp_path):
    with pytest.raises(RoutingError, match="made for levels"):
        stage4(router=saved_router(tmp_path / "other.safetensors", (4, 8, 16)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignment": "best"}, "assignment"),
        ({"assignment": "uniform", "uniform_tokens": 5}, "uniform_tokens"),
        ({"discriminator": "pixels"}, "discriminator"),
        ({"entropy_weight": 0.02}, "entropy_weight.*fsq"),
        ({"minutes": -1.0}, "minutes"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(stage4, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        stage4(**change)
    assert not (tmp_path / "one" / "work" / "state.pt").exists()


@pytest.mark.parametrize("term", ["l1", "alignment"])
def test_a_term_that_is_no_number_stops_with_its_name_and_the_last_good_state(stage4, tmp_path, monkeypatch, term):
    true = getattr(losses, term)
    calls = []

    def poisoned(*arguments):
        calls.append(1)
        return true(*arguments) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(losses, term, poisoned)
    with pytest.raises(TrainingError, match=rf"step 3.*{term}"):
        stage4()
    assert torch.load(tmp_path / "one" / "work" / "state.pt", weights_only=True)["step"] == 2


# The entropy term, for quantisers that have a codebook


def test_the_entropy_term_is_part_of_the_sum_where_there_is_a_codebook(stage4, smaller, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(TOKENIZER_SIZES, "toy", replace(smaller, quantiser="vq", codebook_size=32))
    stage4(steps=1, discriminator="none", alignment="none", entropy_weight=0.02)
    (line,) = curve_of(tmp_path)
    assert line["loss"] == pytest.approx(
        10 * line["squared"] + 10 * line["change"] + line["quantiser"] + 0.02 * line["entropy"], rel=1e-4
    )


def test_configurations_of_the_paper_hold_its_figures():
    run = stage4_final.ex._create_run("print_config", named_configs=("paper",))
    config = run.config
    assert (config["steps"], config["batch"], config["learning_rate"]) == (1_000_000, 128, 1e-4)
    assert (config["alignment_weight"], config["entropy_weight"]) == (0.7, 0.02)
    assert json.dumps(tokenizer_training.facts_of(dict(config)))


# Trained longer, or ended sooner


def test_a_training_resumed_with_more_steps_tells_so_and_one_never_changed_does_not(stage4, tmp_path):
    plain = {"discriminator": "none", "alignment": "none", "assignment": "uniform"}
    short = stage4(steps=2, **plain)
    assert "schedule_changes" not in checkpoints.load(Path(short.result["checkpoint"]), "tokenizer").facts
    longer = stage4(steps=4, **plain)
    facts = checkpoints.load(Path(longer.result["checkpoint"]), "tokenizer").facts
    assert facts["schedule_changes"] == [{"after_step": 2, "instead_of": 2}]
    assert [line["step"] for line in curve_of(tmp_path)] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match="already holds a training of 4 steps, 3 requested"):
        stage4(steps=3, **plain)
