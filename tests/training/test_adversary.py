"""The opponent: when it plays, what it leaves alone, and that its state is all there is to it."""

import copy
import io

import pytest
import torch
from test_discriminators import striped
from torch import nn

from evatok.models.efficientnet import EfficientNet, EfficientNetLite0
from evatok.training.adversary import Adversary, AdversaryConfig
from evatok.training.discriminators import (
    SemanticDiscriminator,
    TransformerDiscriminator,
    TransformerDiscriminatorConfig,
)
from evatok.training.loop import TrainingError, step_generator
from tests.factories import TinyEncoder, noise

TINY = TransformerDiscriminatorConfig(frames=4, size=16, patch=(2, 8, 8), width=16, layers=1, heads=2)
LARP = {"loss": "non_saturating", "start": 0, "learning_rate": 1e-3, "lecam": 0.01, "smoothing": 0.3}
GIGATOK = {"loss": "hinge", "start": 0, "learning_rate": 1e-3, "augment": True}


def transformer(**changes) -> Adversary:
    torch.manual_seed(0)
    return Adversary(TransformerDiscriminator(TINY), AdversaryConfig(**(LARP | changes)), seed=1)


def semantic(**changes) -> Adversary:
    torch.manual_seed(0)
    network = SemanticDiscriminator(TinyEncoder(), (1, 3))
    return Adversary(network, AdversaryConfig(**(GIGATOK | changes)), seed=1)


def on_pictures(**changes) -> Adversary:
    """Heads on an untrained image network that sees frames and their changes, after a warm-up of three steps."""
    torch.manual_seed(0)
    trunk = EfficientNet(EfficientNetLite0(), weights_sha256="0" * 64, resize=32)
    network = SemanticDiscriminator(trunk, (2, 4), kernel=3)
    settings = {"warmup": 3, "lecam": 0.1, "frames": 3}
    torch.manual_seed(0)
    return Adversary(network, AdversaryConfig(**(GIGATOK | settings | changes)), seed=1)


BOTH = pytest.mark.parametrize("make", [transformer, semantic])


def play(adversary: Adversary, first: int, last: int) -> list[dict[str, float]]:
    """Steps as a training makes them, with the terms of each."""
    lines = []
    for step in range(first, last):
        generator = step_generator(0, step)
        real, fake = noise(4, step), striped(noise(4, step + 1000))
        term = adversary.generator_loss(fake, step, generator)
        terms = adversary.learn(real, fake, step, generator)
        lines.append({"adversarial": float(term), **{name: float(value) for name, value in terms.items()}})
    return lines


def weights(adversary: Adversary) -> list[torch.Tensor]:
    return [p.detach().clone() for p in adversary.trained]


def unchanged(adversary: Adversary, before: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, before, adversary.trained))


def saved(adversary: Adversary) -> dict:
    """Its state by way of a file, read as a resumed training reads it."""
    file = io.BytesIO()
    torch.save(adversary.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("make", [transformer, semantic, on_pictures])
@pytest.mark.parametrize("broken_off", [3, 7])
def test_a_resumed_adversary_is_the_unbroken_one_bit_for_bit(make, broken_off):
    unbroken, first = make(interval=2), make(interval=2)
    lines = play(unbroken, 0, 10)
    begun = play(first, 0, broken_off)
    torch.manual_seed(99)
    resumed = make(interval=2)
    for parameter in resumed.trained:
        nn.init.constant_(parameter, 0.5)
    resumed.load_state_dict(saved(first))
    torch.manual_seed(7)
    assert begun + play(resumed, broken_off, 10) == lines
    mine, other = resumed.state_dict(), unbroken.state_dict()
    assert mine["mean_real"] == other["mean_real"] != 0
    for name, value in mine["discriminator"].items():
        same = torch.equal(value, other["discriminator"][name]) if isinstance(value, torch.Tensor) else True
        assert same, name


@BOTH
def test_it_learns_to_win_against_an_opponent_that_stands_still(make):
    adversary = make(augment=False, learning_rate=3e-3)
    lines = play(adversary, 0, 40)
    assert lines[-1]["discriminator"] < lines[0]["discriminator"]
    assert lines[-1]["logit_real"] > lines[-1]["logit_fake"] + 0.15
    assert lines[-1]["discriminator_accuracy"] > max(0.55, lines[0]["discriminator_accuracy"])


def test_nothing_happens_before_the_start():
    adversary = transformer(start=3)
    before = weights(adversary)
    assert play(adversary, 0, 3) == [{"adversarial": 0.0}] * 3
    assert unchanged(adversary, before)
    assert [adversary.active(step) for step in range(5)] == [False, False, False, True, True]
    assert "discriminator" in play(adversary, 3, 4)[0]


@pytest.mark.parametrize("make", [transformer, semantic, on_pictures])
def test_in_the_warm_up_it_learns_and_the_term_is_nothing(make):
    adversary = make(start=1, warmup=2, frames=0)
    before = weights(adversary)
    lines = play(adversary, 0, 5)
    assert ["discriminator" in line for line in lines] == [False, True, True, True, True]
    assert [line["adversarial"] != 0 for line in lines] == [False, False, False, True, True]
    assert not unchanged(adversary, before)
    assert [adversary.plays(step) for step in range(5)] == [False, False, False, True, True]
    fake = noise().requires_grad_()
    assert not adversary.generator_loss(fake, 2, step_generator(0, 2)).requires_grad


def test_a_warm_up_leaves_what_is_learned_as_it_is():
    """The discriminator learns the same from the same reconstructions, whether the tokenizer listens or not."""
    one, other = semantic(warmup=2), semantic()
    for step in range(4):
        for adversary in (one, other):
            generator = step_generator(0, step)
            adversary.learn(noise(4, step), striped(noise(4, step + 1000)), step, generator)
            adversary.generator_loss(striped(noise(4, step)), step, generator)
    assert unchanged(one, weights(other))


def test_it_sees_as_many_successive_frames_as_it_is_told_the_same_of_both():
    seen = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            seen.append(clips.detach())
            return clips.mean((1, 2, 3, 4)) * self.weight

    adversary = Adversary(Spy(), AdversaryConfig(**(GIGATOK | {"augment": False, "frames": 3})), seed=1)
    numbered = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(64, 3, 8, 2, 2)
    adversary.learn(numbered, numbered + 100, 0, step_generator(0, 0))
    real, fake = (clips[:, 0, :, 0, 0] for clips in seen)
    assert real.shape == (64, 3)
    assert torch.equal(fake, real + 100)
    assert torch.equal(real, real[:, :1] + torch.arange(3.0))
    assert set(real[:, 0].tolist()) == {0, 1, 2, 3, 4, 5}
    whole = Adversary(Spy(), AdversaryConfig(**(GIGATOK | {"augment": False, "frames": 8})), seed=1)
    whole.learn(numbered, numbered, 0, step_generator(0, 0))
    assert torch.equal(seen[-1], numbered)


def test_the_discriminator_learns_only_every_interval_from_the_start_on():
    adversary = transformer(start=2, interval=3)
    learned = []
    for step in range(10):
        before = weights(adversary)
        line = play(adversary, step, step + 1)[0]
        assert ("discriminator" in line) != unchanged(adversary, before)
        learned.append("discriminator" in line)
    assert [step for step in range(10) if learned[step]] == [2, 5, 8]


@BOTH
def test_the_generators_loss_moves_the_reconstruction_and_leaves_the_discriminator_alone(make):
    adversary = make()
    play(adversary, 0, 2)
    before = copy.deepcopy(adversary.state_dict()["discriminator"])
    fake = noise().requires_grad_()
    adversary.generator_loss(fake, 2, step_generator(0, 2)).backward()
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.trained)
    after = adversary.state_dict()["discriminator"]
    assert all(torch.equal(v, after[k]) for k, v in before.items() if isinstance(v, torch.Tensor))
    assert adversary.discriminator.training


def test_following_the_generators_loss_fools_the_discriminator():
    adversary = transformer()
    play(adversary, 0, 30)
    fake = striped(noise()).requires_grad_()
    before = adversary.generator_loss(fake, 30, step_generator(0, 30))
    before.backward()
    after = adversary.generator_loss(fake - 0.02 * fake.grad.sign(), 30, step_generator(0, 30))
    assert after < before


def test_learning_leaves_no_gradient_in_the_reconstruction():
    fake = noise().requires_grad_()
    transformer().learn(noise(4, 1), fake, 0, step_generator(0, 0))
    assert fake.grad is None


def test_lecam_follows_the_logits_with_its_decay():
    adversary = transformer(lecam_decay=0.75)
    first, second = play(adversary, 0, 2)
    expected = 0.75 * 0.25 * first["logit_real"] + 0.25 * second["logit_real"]
    assert adversary.mean_real == pytest.approx(expected)
    assert "lecam" in first
    hinge = play(semantic(lecam=0.5), 0, 2)[1]
    without = play(semantic(), 0, 2)[1]
    assert hinge["lecam"] > 0
    assert "lecam" not in without
    assert hinge["logit_real"] != without["logit_real"]
    assert "lecam" not in play(transformer(lecam=0.0), 0, 1)[0]


@BOTH
def test_a_term_that_is_not_finite_is_named_before_anything_is_learned(make):
    adversary = make()
    play(adversary, 0, 2)
    before = weights(adversary)
    with pytest.raises(TrainingError, match=r"step 2: the discriminator's terms \['discriminator', 'logit_fake'"):
        adversary.learn(noise(), torch.full_like(noise(), torch.nan), 2, step_generator(0, 2))
    assert unchanged(adversary, before)


def test_a_gradient_that_is_not_finite_is_refused_too():
    adversary = transformer()
    adversary.trained[0].register_hook(lambda gradient: gradient * torch.inf)
    before = weights(adversary)
    with pytest.raises(TrainingError, match="step 0: the discriminator's gradient has norm"):
        adversary.learn(noise(), noise(4, 1), 0, step_generator(0, 0))
    assert unchanged(adversary, before)


@BOTH
def test_it_plays_under_autocast_with_weights_in_float32(make):
    adversary = make()
    before = weights(adversary)
    with torch.autocast("cpu", torch.bfloat16):
        line = play(adversary, 0, 1)[0]
    assert all(p.dtype == torch.float32 for p in adversary.trained)
    assert not unchanged(adversary, before)
    assert line["discriminator"] == pytest.approx(play(make(), 0, 1)[0]["discriminator"], rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "wasserstein"}, "unknown adversarial loss 'wasserstein'"),
        ({"interval": 0}, "interval must be at least 1"),
        ({"warmup": -1}, "warmup and frames at least 0, got 1, 0, -1 and 0"),
        ({"loss": "hinge", "smoothing": 0.1}, "the hinge loss has no labels"),
    ],
)
def test_a_senseless_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AdversaryConfig(**(LARP | changes))
