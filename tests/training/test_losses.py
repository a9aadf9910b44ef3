"""The terms of the objective, by hand and by what they are for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evatok.training import losses


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Entropy


def corners(dimension: int = 4) -> torch.Tensor:
    """A codebook of all unit vectors, (D, D)."""
    return torch.eye(dimension)


def test_entropy_is_lowest_when_tokens_are_certain_and_all_codes_used_alike():
    spread = losses.entropy(corners().repeat(8, 1), corners())
    collapsed = losses.entropy(corners()[:1].repeat(32, 1), corners())
    undecided = losses.entropy(torch.full((32, 4), 0.5), corners())
    assert float(spread) == pytest.approx(-math.log(4), abs=1e-5)
    assert float(collapsed) == pytest.approx(0, abs=1e-5)
    assert float(undecided) == pytest.approx(0, abs=1e-5)


def test_entropy_by_hand():
    """One dimension, codes at 0 and 1, temperature 1: a token at x prefers 0 by 1 - 2x nats."""
    share = [1 / (1 + math.exp(-(1 - 2 * x))) for x in (0.0, 0.75)]

    def bits(p: float) -> float:
        return -(p * math.log(p) + (1 - p) * math.log(1 - p))

    expected = sum(map(bits, share)) / 2 - bits(sum(share) / 2)
    found = losses.entropy(torch.tensor([[0.0], [0.75]]), torch.tensor([[0.0], [1.0]]), temperature=1.0)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@given(tokens=st.integers(1, 30), at_once=st.integers(1, 400))
def test_entropy_in_chunks_is_the_entropy_with_its_gradients(tokens, at_once):
    features, codebook = torch.randn(tokens, 3, generator=draws(1)), torch.randn(11, 3, generator=draws(2))
    found = []
    for size in (at_once, 2**20):
        x, c = features.clone().requires_grad_(), codebook.clone().requires_grad_()
        value = losses.entropy(x, c, temperature=0.5, at_once=size)
        found.append((value.detach(), *torch.autograd.grad(value, (x, c))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_entropy_of_codes_out_of_everyones_reach_has_finite_gradients_even_in_bfloat16():
    x = torch.nn.functional.normalize(torch.randn(16, 8, generator=draws())).requires_grad_()
    far = torch.cat((x.detach()[:4], torch.full((1, 8), 100.0)))
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.entropy(x, far)
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.isfinite().all()


def test_entropy_pulls_undecided_tokens_to_a_code():
    x = torch.tensor([[0.6, 0.4], [0.4, 0.6]], requires_grad=True)
    before = losses.entropy(x, corners(2), temperature=0.5)
    before.backward()
    after = losses.entropy(x - 0.1 * x.grad, corners(2), temperature=0.5)
    assert after < before


# Alignment


def test_alignment_is_minus_the_mean_cosine_and_teaches_only_the_student():
    student = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]], requires_grad=True)
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, -1.0]], requires_grad=True)
    value = losses.alignment(student, teacher)
    assert float(value.detach()) == pytest.approx(-(1 + math.sqrt(0.5) - 1) / 3)
    value.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_alignment_of_unlike_grids_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 4, 8\) and \(2, 3, 8\): map the student"):
        losses.alignment(torch.zeros(2, 4, 8), torch.zeros(2, 3, 8))


# Adversarial


def test_hinge_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([[-3.0, 0.0]])
    assert float(losses.hinge_discriminator(real, fake)) == pytest.approx(0.5 * (0.25 + 0.5))
    assert float(losses.hinge_generator(fake)) == 1.5
    assert float(losses.hinge_discriminator(torch.tensor([1.0, 7.0]), torch.tensor([-1.0]))) == 0


def test_non_saturating_losses_by_hand():
    real, fake = torch.tensor([0.0, 1.0]), torch.tensor([-2.0])
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 2 + math.log(1 + math.exp(-2))
    assert float(losses.non_saturating_discriminator(real, fake, 0.0, draws())) == pytest.approx(expected)
    assert float(losses.non_saturating_generator(fake)) == pytest.approx(math.log(1 + math.exp(2)))


def test_smoothing_lowers_real_labels_by_its_half_on_average_and_fake_ones_never():
    """Cross-entropy is linear in the label: each unit of label lost costs the logit."""
    logit, smoothing = 1.5, 0.3
    real, fake = torch.full((20000,), logit), torch.tensor([-2.0])
    plain = losses.non_saturating_discriminator(real, fake, 0.0, draws())
    smooth = losses.non_saturating_discriminator(real, fake, smoothing, draws())
    assert float(smooth - plain) == pytest.approx(logit * smoothing / 2, rel=0.02)
    assert smooth == losses.non_saturating_discriminator(real, fake, smoothing, draws())
    assert smooth != losses.non_saturating_discriminator(real, fake, smoothing, draws(1))


def test_lecam_by_hand_pulls_back_only_what_is_winning():
    real, fake = torch.tensor([2.0, -4.0]), torch.tensor([-1.0, 5.0])
    found = losses.lecam(real, fake, mean_real=1.0, mean_fake=-0.5)
    assert float(found) == pytest.approx(2.5**2 / 2 + 2.0**2 / 2)
    assert float(losses.lecam(torch.tensor([-1.0]), torch.tensor([1.0]), 0.0, 0.0)) == 0


def test_adaptive_weight_is_the_ratio_of_gradient_norms():
    layer = torch.nn.Linear(3, 2, bias=False)
    made = layer(torch.tensor([1.0, 2.0, 2.0]))
    # The gradients are (1, 2, 2) in both rows, and twice that in one.
    weight = losses.adaptive_weight(made.sum(), 2 * made[0], layer.weight)
    assert float(weight) == pytest.approx(math.sqrt(2) * 3 / 6, rel=1e-4)
    assert not weight.requires_grad
    (made.sum() + weight * made[0]).backward()


def test_adaptive_weight_is_limited_where_the_adversary_says_nothing():
    layer = torch.nn.Linear(3, 2, bias=False)
    made = 1e3 * layer(torch.ones(3))
    assert float(losses.adaptive_weight(made.sum(), 0 * made.sum(), layer.weight, limit=50.0)) == 50


def test_every_term_needs_a_weight_and_a_weight_of_zero_switches_off():
    terms = {"l1": torch.tensor(2.0), "adversarial": torch.tensor(3.0)}
    assert float(losses.weighted_sum(terms, {"l1": 0.5, "adversarial": 0.0})) == 1
    with pytest.raises(KeyError, match="adversarial"):
        losses.weighted_sum(terms, {"l1": 0.5})


# Motion within blocks


def test_the_change_term_is_zero_for_the_clip_itself_and_for_one_shifted_in_brightness():
    real = torch.rand(2, 3, 8, 4, 4)
    assert losses.change(real, real, 4) == 0
    assert losses.change(real, real + 0.1, 4) == pytest.approx(0, abs=1e-10)


def test_the_change_term_of_stills_is_the_clips_own_change_within_blocks():
    real = torch.rand(2, 3, 8, 4, 4)
    stills = real.unflatten(2, (2, 4)).mean(3, keepdim=True).expand(-1, -1, -1, 4, -1, -1).flatten(2, 3)
    within = real.unflatten(2, (2, 4)).diff(dim=3).square().mean()
    assert losses.change(real, stills, 4) == pytest.approx(float(within), rel=1e-5)


def test_steps_between_blocks_do_not_count():
    real = torch.zeros(1, 3, 8, 2, 2)
    fake = real.clone()
    fake[:, :, 4:] = 1
    assert losses.change(real, fake, 4) == 0
    assert losses.change(real, fake, 8) > 0
    assert losses.change(real, fake, 1) == 0
