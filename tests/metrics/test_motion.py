"""Motion figures tell a stack of stills from a moving reconstruction, whatever its pictures are worth."""

import numpy as np
import pytest
import torch

from evatok.metrics import motion_correlation, motion_ratio
from evatok.metrics.motion import BLOCK, MOMENTS, correlation_of, motion_moments, ratio_of


@pytest.fixture
def moving(moving_clips) -> torch.Tensor:
    """Five clips of drifting gratings, (5, 3, 16, 16, 16), that use the middle of the range."""
    pixels = torch.from_numpy(moving_clips(5, size=16)).permute(0, 4, 1, 2, 3)
    return 0.3 + 0.4 * pixels.double() / 255


def stills(clips: torch.Tensor) -> torch.Tensor:
    """Each block its mean frame: the best that one picture per block can do."""
    blocks = clips.unflatten(2, (-1, BLOCK))
    return blocks.mean(3, keepdim=True).expand_as(blocks).flatten(2, 3)


def test_a_stack_of_stills_has_no_motion(moving):
    assert motion_ratio(moving, stills(moving)) == 0
    assert motion_correlation(moving, stills(moving)) == 0


def test_equal_clips_have_all_of_it(moving):
    assert motion_ratio(moving, moving) == 1
    assert motion_correlation(moving, moving) == pytest.approx(1)


def test_half_the_change_is_half_the_motion_and_all_of_it_right(moving):
    halved = (moving + stills(moving)) / 2
    assert motion_ratio(moving, halved) == pytest.approx(0.5, rel=1e-5)
    assert motion_correlation(moving, halved) == pytest.approx(1)


def test_motion_the_wrong_way_round_is_motion_but_not_the_right_one(moving):
    assert motion_ratio(moving, 1 - moving) == pytest.approx(1, rel=1e-5)
    assert motion_correlation(moving, 1 - moving) == pytest.approx(-1)


def test_steps_between_blocks_do_not_count(moving):
    offsets = torch.tensor([0.0, 0.1, -0.1, 0.2]).repeat_interleave(BLOCK)[:, None, None].double()
    moments = motion_moments(moving, moving + offsets)
    assert ratio_of(moments.numpy()) == pytest.approx(1, rel=1e-5)
    assert correlation_of(moments.numpy()) == pytest.approx(1)
    assert moments[:, 0].tolist() == [3 * 12 * 16 * 16] * 5, "of 15 steps, 3 lead from one block to the next"


def test_moments_of_batches_add_up_to_those_of_the_set(moving):
    fake = (moving + stills(moving)) / 2
    whole = motion_moments(moving, fake)
    parts = [motion_moments(moving[rows], fake[rows]).sum(0) for rows in (slice(0, 2), slice(2, 5))]
    assert whole.shape == (5, MOMENTS)
    assert torch.allclose(torch.stack(parts).sum(0), whole.sum(0))
    assert ratio_of(torch.stack(parts).numpy()) == pytest.approx(ratio_of(whole.numpy()))
    assert correlation_of(torch.stack(parts).numpy()) == pytest.approx(correlation_of(whole.numpy()))


def test_noise_moves_but_not_as_the_clips_do(moving):
    noise = torch.rand(moving.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert motion_ratio(moving, noise) > 1
    assert abs(motion_correlation(moving, noise)) < 0.02


def test_clips_that_do_not_move_have_neither_figure(moving):
    assert np.isnan(motion_ratio(stills(moving), moving))
    assert np.isnan(motion_correlation(stills(moving), moving))
    fading = torch.linspace(0.1, 0.9, 16, dtype=torch.float64)[:, None, None].expand_as(moving)
    assert np.isnan(motion_correlation(fading, moving)), "changes that are all equal correlate with nothing"


def test_clips_without_a_step_inside_a_block_are_refused(moving):
    with pytest.raises(ValueError, match="hold no change from frame to frame"):
        motion_moments(moving[:, :, :1], moving[:, :, :1])
    with pytest.raises(ValueError, match="blocks of 1 frames"):
        motion_moments(moving, moving, block=1)
    with pytest.raises(ValueError, match="differ in shape"):
        motion_ratio(moving, moving[:, :, :8])
