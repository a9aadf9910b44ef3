"""Metrics take NumPy arrays as they take tensors, and say by name what they do not take."""

import numpy as np
import pytest
import torch

from evatok.metrics import fid, fvd, l1, lpips, motion_correlation, motion_ratio, mse, psnr, ssim, st_lpips
from evatok.metrics.inception import InceptionFeatures

EACH = (l1, mse, psnr, ssim, motion_ratio, motion_correlation)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return tuple(random.random((2, 3, 5, 16, 16), dtype=np.float32) for _ in range(2))


@pytest.mark.parametrize("metric", EACH)
def test_arrays_are_measured_as_the_tensors_of_the_same_values(metric, pair):
    expected = torch.as_tensor(metric(*map(torch.from_numpy, pair)))
    real, fake = pair
    real.flags.writeable = False
    for given in (pair, (real, torch.from_numpy(fake)), (real.astype(">f4"), fake.astype(np.longdouble))):
        assert torch.allclose(torch.as_tensor(metric(*given)), expected.to(torch.as_tensor(metric(*given)).dtype))


def test_arrays_of_images_have_an_fid(pair):
    class Network(torch.nn.Linear):  # a network has a weight, by whose device it is found
        def forward(self, frames):
            return (frames.double().flatten(2).mean(2),)

    network = InceptionFeatures(Network(1, 1))
    expected = fid(*map(torch.from_numpy, pair), network=network)
    assert fid(*pair, network=network) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [*EACH, fid, fvd, lpips, st_lpips])
@pytest.mark.parametrize(
    ("clips", "told"),
    [
        ([[0.5]], r"the (real|fake) (clips|images) must be a tensor or a NumPy array of floats .*, not a list"),
        (np.array(["a"]), "not an array of <U1"),
        (np.zeros((2, 3, 9, 16, 16), np.uint8), "divide by 255 first"),
        (np.zeros((2, 9, 16, 16, 3), np.float32), r"must have the shape .*\(2, 9, 16, 16, 3\)"),
        (np.full((2, 3, 9, 16, 16), 2.0), r"must lie in \[0, 1\]"),
    ],
)
def test_what_is_not_taken_is_named(metric, clips, told):
    with pytest.raises(ValueError, match=told):
        metric(clips, clips)


def test_colours_in_the_last_place_are_told_where_they_belong(pair):
    real, fake = (np.moveaxis(clips, 1, -1) for clips in pair)
    with pytest.raises(ValueError, match="move the colours from the last dimension to the second"):
        psnr(real, fake)
