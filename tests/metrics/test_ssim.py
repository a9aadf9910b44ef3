import math

import pytest
import torch

from evatok.metrics.pixels import psnr
from evatok.metrics.structural_similarity import ssim
from tests.factories import noisy, smooth_clips


def clips(batch=2, frames=3, height=24, width=30, seed=0):
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(seed))


def frames_of(some):
    return some.transpose(1, 2).flatten(0, 1)


NOISE = clips(seed=0), clips(seed=1)
SMOOTH = smooth_clips(), noisy(smooth_clips(), 0.03)
BRIGHT = 0.9 + 0.05 * SMOOTH[0], 0.9 + 0.05 * SMOOTH[1]


@pytest.fixture(scope="module")
def torchmetrics():
    return pytest.importorskip("torchmetrics.functional.image")


@pytest.mark.slow
class TestAgainstTorchmetrics:
    """Of bright even clips it is asked in double: its own float32 loses their variance, and with it the fifth digit."""

    pairs = pytest.mark.parametrize(
        ("real", "fake", "dtype"),
        [(*NOISE, torch.float32), (*SMOOTH, torch.float32), (*BRIGHT, torch.float64)],
        ids=["noise", "smooth", "bright"],
    )

    @pairs
    def test_ssim_is_the_same(self, torchmetrics, real, fake, dtype):
        each = torchmetrics.structural_similarity_index_measure(
            frames_of(fake).to(dtype), frames_of(real).to(dtype), data_range=1.0, reduction="none"
        )
        expected = each.reshape(len(real), -1).mean(dim=1).float()
        torch.testing.assert_close(ssim(real, fake), expected, atol=1e-5, rtol=0)

    @pairs
    def test_without_borders_it_is_that_of_the_windows_inside(self, torchmetrics, real, fake, dtype):
        _, maps = torchmetrics.structural_similarity_index_measure(
            frames_of(fake).to(dtype),
            frames_of(real).to(dtype),
            data_range=1.0,
            reduction="none",
            return_full_image=True,
        )
        inside = maps[..., 5:-5, 5:-5].reshape(len(real), -1).mean(dim=1).float()
        torch.testing.assert_close(ssim(real, fake, borders=False), inside, atol=1e-5, rtol=0)

    @pairs
    def test_psnr_is_the_same(self, torchmetrics, real, fake, dtype):
        each = torchmetrics.peak_signal_noise_ratio(
            fake.to(dtype), real.to(dtype), data_range=1.0, reduction="none", dim=(1, 2, 3, 4)
        )
        torch.testing.assert_close(psnr(real, fake), each.float(), atol=1e-5, rtol=0)


def test_equal_clips_are_one():
    torch.testing.assert_close(ssim(clips(), clips()), torch.ones(2))


def test_it_falls_with_noise():
    real = smooth_clips()
    values = [ssim(real, noisy(real, amount)).mean().item() for amount in (0, 0.02, 0.05, 0.1)]
    assert values == sorted(set(values), reverse=True)


def test_it_is_symmetric():
    torch.testing.assert_close(ssim(clips(), clips(seed=1)), ssim(clips(seed=1), clips()))


def test_even_clips_by_hand():
    """Without any variance the luminance alone is left."""
    real, fake = torch.full((1, 3, 1, 11, 11), 0.5), torch.full((1, 3, 1, 11, 11), 0.25)
    expected = (2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    for borders in (True, False):
        assert ssim(real, fake, borders=borders).item() == pytest.approx(expected, rel=1e-6)


def test_each_clip_stands_alone():
    real, fake = clips(batch=3), clips(batch=3, seed=1)
    alone = torch.cat([ssim(real[i : i + 1], fake[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(ssim(real, fake), alone, atol=0, rtol=0)


def test_a_clip_is_the_mean_of_its_frames():
    real, fake = clips(batch=1), clips(batch=1, seed=1)
    frames = torch.cat([ssim(real[:, :, t : t + 1], fake[:, :, t : t + 1]) for t in range(3)])
    assert ssim(real, fake).item() == pytest.approx(frames.mean().item(), rel=1e-6)


def test_low_precision_clips_are_measured_in_full():
    real, fake = clips().bfloat16(), clips(seed=1).bfloat16()
    assert ssim(real, fake).dtype == torch.float32
    torch.testing.assert_close(ssim(real, fake), ssim(real.float(), fake.float()))


@pytest.mark.parametrize(
    ("fake", "cause"),
    [
        (clips() * 255, "divide 0-255 pixels"),
        (clips() * 2 - 1, r"must lie in \[0, 1\]"),
        (torch.full_like(clips(), math.nan), "fake clips hold NaN"),
        (clips(frames=2), "differ in shape"),
        (clips().mul(255).byte(), "not torch.uint8"),
    ],
)
def test_wrong_clips_are_rejected(fake, cause):
    with pytest.raises(ValueError, match=cause):
        ssim(clips(), fake)


def test_other_layouts_and_small_frames_are_rejected():
    frames_first = clips().transpose(1, 2).repeat(1, 2, 1, 1, 1)
    with pytest.raises(ValueError, match=r"shape \(B, 3, T, H, W\)"):
        ssim(frames_first, frames_first)
    with pytest.raises(ValueError, match="11x11 at least, got 10x30"):
        ssim(clips(height=10), clips(height=10))
