"""Lengths of every strategy, which frames it reads, and what its tokens see of them."""

import numpy as np
import pytest
import torch

from evatok.vtok import Strategy, StrategyError, length
from evatok.vtok.features import Features, pooled
from evatok.vtok.tokens import VideoTokens

C, D = 6, 20


@pytest.mark.parametrize(
    ("kind", "settings", "tokens"),
    [
        ("none", {}, 0),
        ("key", {}, 16),
        ("frames", {"frames": 4}, 64),
        ("frames", {"frames": 8}, 128),
        ("frames", {"frames": 11, "key": 4}, 44),
        *(("vtok", {"key": key}, key + 30) for key in (1, 4, 9, 16, 25)),
        *(("vtok", {"fps": fps}, 16 + 5 * fps) for fps in (3, 6, 12)),
        *(
            ("vtok", {"residual": residual}, 46)
            for residual in ("grid", "mean", "absolute", "previous", "shuffled", "pooled")
        ),
        ("lavit", {}, 61),
        ("omni", {}, 80),
    ],
)
def test_lengths_are_exact_and_those_of_the_tokens(kind, settings, tokens):
    assert length(kind, **settings) == tokens
    frames = 61 if settings.get("fps") == 12 else 31
    made = VideoTokens.of(kind, channels=C, width=D, **settings)(features(2, frames))
    assert made.shape == (2, tokens, D)


def test_a_clip_of_16_frames_has_31_tokens():
    assert length("vtok", key=16, fps=3) == 31
    assert VideoTokens.of("vtok", channels=C, width=D, fps=3)(features(1, 16)).shape[1] == 31


def test_frames_are_read_at_the_strategy_s_rate():
    assert Strategy("vtok", fps=3).picks(31).tolist() == list(range(0, 31, 2))
    assert Strategy("vtok", fps=12).picks(61).tolist() == list(range(61))
    assert Strategy("frames", frames=4).picks(31).tolist() == [0, 10, 20, 30]
    assert Strategy("frames", frames=1).picks(31).tolist() == [0]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Strategy("vtube"), "not one of none, key"),
        (lambda: Strategy("vtok", residual="max"), "not one of grid"),
        (lambda: Strategy("key", key=8), "a square"),
        (lambda: Strategy("key", key=81), "1, 4, 9"),
        (lambda: Strategy("frames", frames=0), "at least 1"),
        (lambda: length("vtok", frames_sampled=3), "unknown strategy setting 'frames_sampled'"),
        (lambda: length("vtok", seconds=0), "a video of one frame has none"),
        (lambda: length("vtok", seconds=0.25), "whole number"),
        (lambda: Strategy("vtok", fps=12).picks(31), "build clips of 61 frames"),
        (lambda: Strategy("vtok", fps=4).picks(31), "not a multiple: build clips of 21"),
        (lambda: Strategy("frames", frames=40).picks(31), "reads 40 frames, the clip has 31"),
        (lambda: VideoTokens.of("frames", key=25)(features(1, 31, 64)), "later frames are kept at 4 x 4"),
        (lambda: VideoTokens.of("lavit")(features(1, 8, 64)), "the clips have fewer"),
        (
            lambda: VideoTokens.of("key")(Features(torch.zeros(1, 8, 8, 64), torch.zeros(2, 5, 4, 4, 64))),
            "features must",
        ),
    ],
)
def test_what_makes_no_sense_is_told(make, complaint):
    with pytest.raises(StrategyError, match=complaint):
        make()


@torch.no_grad()
def test_a_frame_equal_to_the_key_frame_is_g_of_nothing():
    tokens = VideoTokens.of("vtok", channels=C, width=D)
    still = features(1, 31)
    still = Features(still.first, still.frames[:, :1].expand(-1, 31, -1, -1, -1))
    motion = tokens(still)[0, 16:] - tokens.moments[2::2] - tokens.kinds[1]
    nothing = tokens.motion(torch.zeros(16 * C))
    torch.testing.assert_close(motion, nothing.expand_as(motion))


@torch.no_grad()
def test_a_motion_token_sees_its_own_frame_and_the_key_frame_alone():
    held = features(1, 31)
    changed = held.frames.clone()
    changed[:, 7] += 1
    other = Features(held.first, changed)
    for residual, touched in (("grid", [22]), ("absolute", [22]), ("previous", [22, 23]), ("mean", [22])):
        tokens = VideoTokens.of("vtok", channels=C, width=D, residual=residual)
        odd = (tokens(held) != tokens(other)).any(-1)[0].nonzero().flatten().tolist()
        assert odd == touched, residual
    tokens = VideoTokens.of("frames", channels=C, width=D, frames=4)
    assert torch.equal(tokens(held), tokens(other)), "frame 7 is none of the four"


@torch.no_grad()
def test_shuffled_tokens_are_the_same_ones_in_another_order():
    torch.manual_seed(3)
    plain = VideoTokens.of("vtok", channels=C, width=D)
    shuffled = VideoTokens.of("vtok", channels=C, width=D, residual="shuffled")
    assert shuffled.start_from(plain) == []
    held = features(1, 31)
    times = plain.moments[2::2]
    one, other = (made(held)[0, 16:] - times for made in (plain, shuffled))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one.sum(0), other.sum(0))


def test_what_stills_taught_starts_every_granularity():
    torch.manual_seed(0)
    stills = VideoTokens.of("key", channels=C, width=D)
    coarse = VideoTokens.of("vtok", channels=C, width=D, key=4)
    fresh = coarse.start_from(stills)
    assert fresh == ["motion.0.bias", "motion.0.weight", "motion.2.bias", "motion.2.weight"]
    held = features(1, 31)
    even = Features(held.first[:, :1, :1].expand(-1, 8, 8, -1), held.frames)
    with torch.no_grad():
        same = coarse(even)[0, 0] - pooled(coarse.cells[None], 2)[0, 0, 0]
        torch.testing.assert_close(same, stills(even)[0, 0] - pooled(stills.cells[None], 4)[0, 0, 0])


def test_the_swap_without_training_has_no_parameter_that_frames_lack():
    torch.manual_seed(0)
    frames = VideoTokens.of("frames", channels=C, width=D, frames=8)
    swapped = VideoTokens.of("vtok", channels=C, width=D, residual="pooled")
    assert swapped.start_from(frames) == []


def test_pooling_keeps_means():
    grid = torch.rand(2, 3, 8, 8, C)
    assert pooled(grid, 4).shape == (2, 3, 4, 4, C)
    torch.testing.assert_close(pooled(grid, 1)[:, :, 0, 0], grid.mean((2, 3)))
    torch.testing.assert_close(pooled(grid, 4)[0, 0, 0, 0], grid[0, 0, :2, :2].mean((0, 1)))


def features(count: int, frames: int, channels: int = C) -> Features:
    """Random features of clips."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.normal(size=shape).astype(np.float32))

    motion = values(count, 15, 8, 8, 12) if frames >= 16 else None
    return Features(values(count, 8, 8, channels), values(count, frames, 4, 4, channels), motion)
