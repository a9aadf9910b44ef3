"""FID with the real network's architecture and random weights: what can be known without its published ones."""

import math
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch

from evatok import weights
from evatok.metrics.frechet import Gaussian, frechet_distance
from evatok.metrics.inception import InceptionFeatures, fid, inception_features, load_inception
from evatok.storage.files import sha256_file
from evatok.weights import INCEPTION, WeightsError


def images(count=6, size=20, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    """torch-fidelity's class as its constructor leaves it when the weights it asks for are none."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        random = module.FeatureExtractorInceptionV3("random", ["2048"])
    return InceptionFeatures(random)


class FirstPixel(torch.nn.Module):
    """A network whose feature is the first pixel's bytes: distances can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, frames):
        assert frames.dtype == torch.uint8
        return (frames[:, :, 0, 0].float(),)


@pytest.fixture
def by_hand():
    return InceptionFeatures(FirstPixel())


@pytest.mark.slow
class TestRandomNetwork:
    def test_features_do_not_depend_on_the_batch(self, network):
        at_once = inception_features(images(4), batch=4, network=network)
        in_pieces = inception_features(images(4), batch=3, network=network)
        assert at_once.shape == (4, 2048)
        assert at_once.dtype == torch.float32
        torch.testing.assert_close(at_once, in_pieces, rtol=1e-4, atol=1e-6)

    def test_it_is_zero_for_equal_and_positive_for_other_images(self, network):
        real = images(3)
        assert fid(real, real, network=network) == 0
        assert fid(real, real * 0.5, network=network) > 0

    def test_the_weights_are_read_from_torch_home_and_named(self, network, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = tmp_path / "hub" / "checkpoints" / INCEPTION
        path.parent.mkdir(parents=True)
        torch.save(network.network.state_dict(), path)
        monkeypatch.setitem(weights.PUBLISHED, INCEPTION, sha256_file(path))
        loaded = load_inception()
        assert loaded.weights_sha256 == {INCEPTION: sha256_file(path)}
        torch.testing.assert_close(loaded(images(1)), network(images(1)))


class TestFid:
    def test_it_is_the_distance_with_the_covariance_of_n_minus_one(self, by_hand):
        real, fake = images(9), images(7, seed=1)
        rows = [np.round(255 * some[:, :, 0, 0].numpy()) for some in (real, fake)]
        expected = frechet_distance(*(Gaussian.of(some, ddof=1) for some in rows))
        assert fid(real, fake, network=by_hand) == pytest.approx(expected, rel=1e-9)

    def test_values_are_rounded_not_cut(self, by_hand):
        frames = torch.full((1, 3, 2, 2), 127.6 / 255)
        assert (by_hand(frames) == 128).all()
        assert (by_hand(torch.full((1, 3, 2, 2), 1.0005)) == 255).all()

    def test_clips_are_all_their_frames_in_order(self, by_hand):
        clips = torch.rand(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
        frames = torch.cat([clip.transpose(0, 1) for clip in clips])
        torch.testing.assert_close(inception_features(clips, network=by_hand), by_hand(frames))
        assert fid(clips, frames, network=by_hand) == 0

    @pytest.mark.parametrize("batch", [1, 3, 100])
    def test_batches_of_any_size_keep_the_order(self, by_hand, batch):
        torch.testing.assert_close(inception_features(images(7), batch, network=by_hand), by_hand(images(7)))

    @pytest.mark.parametrize(
        ("fake", "cause"),
        [
            (images() * 255, r"the fake images must lie in \[0, 1\] but span"),
            (images() * 2 - 1, r"must lie in \[0, 1\]"),
            (torch.full((6, 3, 8, 8), math.nan), "the fake images hold NaN"),
            (torch.full((6, 3, 8, 8), math.inf), "the fake images hold NaN or infinite"),
            (images().mul(255).byte(), "not torch.uint8"),
            (images().permute(0, 2, 3, 1), r"\(N, 3, H, W\) or \(B, 3, T, H, W\)"),
            (images()[0], "must have the shape"),
            (images()[:0], "nowhere 0"),
            (images(1), "the second features must hold at least 2 samples"),
        ],
    )
    def test_wrong_images_are_refused(self, by_hand, fake, cause):
        with pytest.raises(ValueError, match=cause):
            fid(images(), fake, network=by_hand)

    def test_an_empty_batch_is_refused(self, by_hand):
        with pytest.raises(ValueError, match="at least one image, got 0"):
            inception_features(images(), batch=0, network=by_hand)


class TestWeights:
    @pytest.fixture(autouse=True)
    def empty_torch_home(self, tmp_path, monkeypatch):
        pytest.importorskip("torch_fidelity")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def test_offline_the_error_says_what_is_missing_and_how_to_bring_it(self, tmp_path, monkeypatch):
        def unreachable(*args, **kwargs):
            raise URLError("no network")

        monkeypatch.setattr("torch.hub.urlopen", unreachable)
        with pytest.raises(WeightsError, match="no network") as caught:
            inception_features(images(1))
        for part in (INCEPTION, str(tmp_path / "hub" / "checkpoints"), "TORCH_HOME", "github.com/toshas"):
            assert part in str(caught.value)

    def test_a_damaged_file_is_named(self, tmp_path):
        path = tmp_path / "hub" / "checkpoints" / INCEPTION
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half a download")
        with pytest.raises(WeightsError, match="not the published file") as caught:
            load_inception()
        assert str(path) in str(caught.value)

    def test_without_the_package_the_error_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
        with pytest.raises(WeightsError, match=r"pip install 'evatok\[fid\]'"):
            load_inception()
