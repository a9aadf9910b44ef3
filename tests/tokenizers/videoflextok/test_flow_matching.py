"""Rectified flow as pure functions: paths, losses, Euler steps, guidance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evatok.tokenizers.videoflextok.flow_matching import (
    FlowError,
    NoiseLevels,
    euler,
    flow_loss,
    guided,
    noised,
    normalised_guided,
    seeded_noise,
    target,
)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 4, 5, generator=random), torch.randn(2, 3, 4, 4, 5, generator=random)


def test_the_path_runs_from_data_to_noise_at_the_targets_velocity():
    x, noise = pair()
    for sigma, end in ((0.0, x), (1.0, noise)):
        assert torch.equal(noised(x, noise, torch.full((2,), sigma)), end)
    low, high = (noised(x, noise, torch.full((2,), sigma)) for sigma in (0.25, 0.75))
    torch.testing.assert_close((high - low) / 0.5, target(x, noise))


def test_each_clip_has_its_own_noise_level():
    x, noise = pair()
    found = noised(x, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(found[0], x[0])
    assert torch.equal(found[1], noise[1])


@pytest.mark.parametrize("sigma", [float("nan"), -0.1, 1.1])
def test_noise_levels_outside_0_to_1_are_refused(sigma):
    x, noise = pair()
    with pytest.raises(FlowError, match=r"must lie in \[0, 1\]"):
        noised(x, noise, torch.tensor([0.5, sigma]))


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_true_velocity_leads_from_noise_to_data_in_any_number_of_steps(steps):
    x, noise = pair()
    seen = []

    def velocity(at: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(float(sigma[0]))
        torch.testing.assert_close(at, noised(x, noise, sigma))
        return target(x, noise)

    torch.testing.assert_close(euler(velocity, noise, steps), x)
    assert seen == pytest.approx([1 - step / steps for step in range(steps)])


def test_what_is_held_stays_and_is_shown_to_the_velocity_at_every_step():
    x, noise = pair()

    def hold(at: torch.Tensor) -> torch.Tensor:
        return torch.cat((x[:, :1], at[:, 1:]), dim=1)

    def velocity(at: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert torch.equal(at[:, :1], x[:, :1])
        return torch.ones_like(at)

    found = euler(velocity, noise, 4, hold)
    assert torch.equal(found[:, :1], x[:, :1])
    torch.testing.assert_close(found[:, 1:], noise[:, 1:] - 1)


def test_sampling_refuses_no_steps_and_velocities_that_are_not_finite():
    _, noise = pair()
    with pytest.raises(FlowError, match="flow steps must be at least 1, got 0"):
        euler(lambda x, sigma: x, noise, 0)
    with pytest.raises(FlowError, match=r"noise level 0\.500 is not finite"):
        euler(lambda x, sigma: torch.where(sigma[0] < 0.6, torch.nan, x), noise, 2)


def test_frames_that_do_not_count_do_not_move_the_loss():
    x, noise = pair()
    velocity, counted = target(x, noise) + 1.0, torch.tensor([[0.0, 1, 1], [1, 1, 1]])
    assert flow_loss(velocity, target(x, noise)) == pytest.approx(1.0)
    velocity[0, 0] += 100.0
    assert flow_loss(velocity, target(x, noise), counted) == pytest.approx(1.0, rel=1e-5)


def test_noise_is_a_clips_own_whatever_its_batch():
    whole = seeded_noise((2, 3), 7, np.arange(4))
    assert torch.equal(seeded_noise((2, 3), 7, np.array([2, 3])), whole[2:])
    assert not torch.equal(seeded_noise((2, 3), 8, np.arange(4)), whole)
    assert len(whole.flatten().unique()) == whole.numel()


def test_a_shifted_draw_has_more_of_high_noise_and_a_mixture_lies_between():
    def share(**levels: float) -> float:
        drawn = NoiseLevels(**levels).draw(20000, torch.Generator().manual_seed(0))
        assert drawn.min() > 0
        assert drawn.max() < 1
        return float((drawn > 0.8).float().mean())

    # sigmoid(N(mean, 1)) > 0.8 where N(0, 1) > log(4) - mean.
    assert share() == pytest.approx(0.083, abs=0.01)
    assert share(mean=1.0) == pytest.approx(0.350, abs=0.01)
    assert share(mean=1.0, unshifted=0.5) == pytest.approx((0.083 + 0.350) / 2, abs=0.01)


def test_noise_levels_that_mean_nothing_are_refused():
    for wrong in ({"deviation": 0.0}, {"unshifted": 1.5}):
        with pytest.raises(FlowError, match="noise levels need"):
            NoiseLevels(**wrong)


def test_plain_guidance_of_1_is_the_conditional_velocity_and_0_the_other():
    ours, without = pair()
    torch.testing.assert_close(guided(ours, without, 1.0), ours)
    torch.testing.assert_close(guided(ours, without, 0.0), without)
    torch.testing.assert_close(guided(ours, without, 3.0), ours + 2 * (ours - without))


def test_normalised_guidance_moves_across_the_velocity_and_no_further_than_its_limit():
    ours, without = pair()
    moved = normalised_guided(ours, without, 3.0, limit=0.6) - ours
    along = (moved * ours).sum((1, 2, 3))
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-4)
    lengths = moved.square().sum((1, 2, 3)).sqrt()
    assert (lengths <= 2 * 0.6 + 1e-5).all()
    assert lengths.min() > 0
    torch.testing.assert_close(normalised_guided(ours, without, 1.0), ours)


def test_normalised_guidance_leaves_short_differences_their_length():
    ours, _ = pair()
    across = torch.zeros_like(ours)
    across[:, 0] = 1e-3
    moved = normalised_guided(ours, ours - across, 2.0) - ours
    expected = across - (across * ours).sum((1, 2, 3), keepdim=True) / ours.square().sum((1, 2, 3), keepdim=True) * ours
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)
