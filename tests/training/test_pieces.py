"""A batch in pieces, in float16, or with activations computed again trains what the batch at once does."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from evatok.experiments import runner, stage1_proxy, stage5_generator
from evatok.experiments.config_checks import ConfigError
from evatok.models.dropout import packed
from evatok.models.recompute import recompute
from evatok.storage import pieces, ranks
from evatok.training import discriminators
from evatok.training.discriminators import VirtualBatchNorm, pieces_fit
from evatok.training.loop import Recipe, read_curve, train
from evatok.training.recipe import TrainingError
from tests.factories import configured, places
from tests.training import ranked
from tests.training.test_ranks import CLOSE, WEIGHTS, gap, weights_of, worst

STEPS = 14  # the adversary learns from the tenth on, and plays at once or from the fifteenth
RECIPE = replace(ranked.RECIPE, steps=STEPS, save_every=STEPS)


@pytest.mark.parametrize("name", ["transformer", "vit", "generator", "classifier"])
def test_a_batch_in_pieces_trains_what_it_does_at_once(name, tmp_path):
    """With a codebook's entropy, unequal lengths, dropout, an adversary with LeCam."""
    pieces_of = {"one": 1, "many": 4 if name == "generator" else 2}
    for folder, count in pieces_of.items():
        train(*ranked.TRAININGS[name](), replace(RECIPE, accumulate=count), tmp_path / folder)
    assert worst(tmp_path / "one", tmp_path / "many")[1] < CLOSE, worst(tmp_path / "one", tmp_path / "many")
    apart = gap(weights_of(tmp_path / "one"), weights_of(tmp_path / "many"))
    assert apart < WEIGHTS.get(name, 3e-5)  # Adam takes steps of 2e-5 along gradients that are all rounding


def test_a_term_of_all_clips_that_was_not_rehearsed_is_refused(tmp_path):
    module, objective = ranked.TRAININGS["generator"]()
    objective.rehearses = False
    with pytest.raises(pieces.PieceError, match="train without accumulate"):
        train(module, objective, replace(RECIPE, accumulate=2), tmp_path)


def test_a_virtual_batch_lies_in_one_piece():
    assert pieces_fit(32, 2)
    assert pieces_fit(12, 1)
    assert not pieces_fit(32, 8)  # four clips each
    assert not pieces_fit(24, 2)  # 12 clips are two virtual batches of 6
    norm, x = VirtualBatchNorm(3), torch.rand(16, 3, 5)
    whole = norm(x)
    with ranks.in_step():
        for number in range(2):
            with pieces.within(pieces.Piece(number, 2, pieces.Ledger(complete=True))):
                assert torch.equal(norm(pieces.mine(x)), pieces.mine(whole))


def test_pieces_that_cut_a_batch_or_its_virtual_batches_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"accumulate: 16 clips \(batch\) cannot be cut into 3 pieces"):
        runner._check_shares({"batch": 16, "accumulate": 3})
    from evatok.experiments.tokenizer_parts import _check_pieces

    judge = object.__new__(discriminators.SemanticDiscriminator)
    adversary = type("Adversary", (), {"discriminator": judge})()
    asked = {"accumulate": 4, "fp16": False, "batch": 16, "adversarial_adaptive": False}
    with pytest.raises(ConfigError, match="16 clips in 4 parts would cut them"):
        _check_pieces(asked, adversary)
    with pytest.raises(ConfigError, match="fp16: adversarial_adaptive"):
        _check_pieces({**asked, "accumulate": 1, "fp16": True, "adversarial_adaptive": True}, adversary)


def test_keys_of_memory_change_no_claim(tmp_path):
    """A run may be resumed in other pieces; one of before float16 was an option goes on as it was."""
    for experiment in (stage1_proxy, stage5_generator):
        config = configured(experiment.ex, "toy", **places(tmp_path))
        assert (config["accumulate"], config["fp16"]) == (1, False)
    with pytest.raises(ConfigError, match="fp16: it excludes bf16=True"):
        stage1_proxy.ex.run("print_config", config_updates={"fp16": True, "bf16": True})


# float16


class Steep:
    """A loss whose float16 gradients overflow at the first scales."""

    def __init__(self, height: float) -> None:
        self.height = height

    def __call__(self, module: nn.Module, step: int, generator: torch.Generator):
        with torch.autocast("cpu", torch.float16):
            made = module(torch.ones(2, 4))
        loss = self.height * (made.float() - 1).square().mean()
        return loss, {"error": loss.detach()}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def half(folder: Path, height: float, **changes: object) -> nn.Module:
    recipe = Recipe(steps=12, learning_rate=1e-2, final_learning_rate=1e-2, log_every=1, save_every=1, fp16=True)
    return train(linear(), Steep(height), replace(recipe, **changes), folder)


def test_a_step_that_overflows_is_left_out_and_the_scale_lowered(tmp_path):
    half(tmp_path, 50)
    curve = read_curve(tmp_path)
    assert curve[0]["left_out"] == 1.0
    assert "gradient_norm" not in curve[0]
    assert curve[-1]["left_out"] == 0.0
    assert curve[-1]["error"] < curve[0]["error"]
    held = torch.load(tmp_path / "state.pt", weights_only=True)["optimiser"]["scaler"]["scale"]
    assert held < 2**16


def test_a_resumed_training_keeps_its_scale(tmp_path):
    half(tmp_path / "one", 50)
    recipe = Recipe(steps=12, learning_rate=1e-2, final_learning_rate=1e-2, log_every=1, save_every=1, fp16=True)
    train(linear(), Steep(50), recipe, tmp_path / "two", stop_at=6)
    train(linear(), Steep(50), recipe, tmp_path / "two")
    assert gap(weights_of(tmp_path / "one"), weights_of(tmp_path / "two")) == 0


def test_gradients_that_overflow_at_every_scale_end_the_training(tmp_path):
    with pytest.raises(TrainingError, match=r"the gradient's norm is (inf|nan)"):
        half(tmp_path, 1e12, steps=60)


# Activation checkpointing


def test_a_generator_that_computes_again_has_the_same_gradients_from_less_memory():
    module, objective = ranked.TRAININGS["generator"]()
    again = copy.deepcopy(module)
    recompute(again.layers)
    held, found = [], []
    for network in (module, again):
        saved: list[int] = []
        with (
            ranks.in_step(),
            torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.nbytes) or x, lambda x: x),
        ):
            torch.manual_seed(1)
            loss, _ = objective(network, 0, torch.Generator().manual_seed(0))
        loss.backward()
        held.append(sum(saved))
        found.append([loss, *(parameter.grad for parameter in network.parameters())])
    assert all(torch.allclose(a, b, atol=1e-7, rtol=1e-6) for a, b in zip(*found, strict=True))
    assert held[1] < 0.8 * held[0]


def test_dropout_of_packed_rows_is_the_same_when_computed_again(monkeypatch):
    """The rows that a part has are known while it is computed, and again after that."""
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    from evatok.models.dropout import Dropout

    layer = nn.Sequential(nn.Linear(4, 4), Dropout(0.5))
    plain, x = copy.deepcopy(layer), torch.rand(4, 4)
    recompute([layer])
    gradients = []
    for network in (plain, layer):
        torch.manual_seed(3)
        with ranks.in_step():
            with packed(torch.tensor([2, 5, 1, 3]).numpy()):
                made = network(x)
            made.sum().backward()
        gradients.append(network[0].weight.grad)
    assert torch.equal(*gradients)
