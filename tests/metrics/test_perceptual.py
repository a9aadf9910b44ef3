import math
import sys
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from evatok import metrics, weights
from evatok.metrics.perceptual import PerceptualDistance, lpips_distance, perceptual_metric
from evatok.metrics.pixels import check_clips, l1, mse, psnr
from evatok.storage.files import sha256_file
from evatok.weights import WeightsError
from tests.factories import noisy, smooth_clips


def clips(batch=2, frames=2, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, frames, size, size, generator=generator)


class TestPixels:
    def test_closed_forms(self):
        real = torch.full((2, 3, 4, 5, 6), 0.5)
        fake = torch.stack([real[0] + 0.1, real[1] - 0.01])
        torch.testing.assert_close(l1(real, fake), torch.tensor([0.1, 0.01]))
        torch.testing.assert_close(mse(real, fake), torch.tensor([1e-2, 1e-4]))
        torch.testing.assert_close(psnr(real, fake), torch.tensor([20.0, 40.0]), rtol=1e-5, atol=1e-3)

    def test_the_mean_is_taken_before_the_logarithm(self):
        real = torch.zeros(1, 3, 2, 4, 4)
        fake = real.clone()
        fake[:, :, 0] = 0.2
        assert psnr(real, fake).item() == pytest.approx(-10 * math.log10(0.04 / 2), abs=1e-4)

    def test_equal_clips(self):
        real = clips()
        assert (l1(real, real) == 0).all()
        assert (psnr(real, real) == math.inf).all()

    def test_low_precision_clips_are_compared_in_float32(self):
        real, fake = clips(seed=0).bfloat16(), clips(seed=1).bfloat16()
        assert mse(real, fake).dtype == torch.float32
        torch.testing.assert_close(mse(real, fake), mse(real.float(), fake.float()))

    @pytest.mark.parametrize(
        ("fake", "cause"),
        [
            (torch.rand(2, 3, 2, 8, 9), r"differ in shape: \(2, 3, 2, 8, 8\) and \(2, 3, 2, 8, 9\)"),
            (torch.rand(2, 3, 2, 8, 8) * 255, "divide 0-255 pixels"),
            (torch.rand(2, 3, 2, 8, 8) - 0.5, r"must lie in \[0, 1\]"),
            (torch.full((2, 3, 2, 8, 8), math.nan), "fake clips hold NaN"),
            (torch.full((2, 3, 2, 8, 8), math.inf), "fake clips hold NaN or infinite"),
            (torch.zeros((2, 3, 2, 8, 8), dtype=torch.uint8), "not torch.uint8"),
        ],
    )
    @pytest.mark.parametrize("metric", [l1, mse, psnr])
    def test_wrong_clips_are_rejected(self, metric, fake, cause):
        with pytest.raises(ValueError, match=cause):
            metric(torch.full((2, 3, 2, 8, 8), 0.5), fake)

    @pytest.mark.parametrize("shape", [(2, 4, 3, 8, 8), (3, 2, 8, 8), (0, 3, 2, 8, 8)])
    def test_other_layouts_are_rejected(self, shape):
        with pytest.raises(ValueError, match=r"shape \(B, 3, T, H, W\)"):
            check_clips(torch.zeros(shape), torch.zeros(shape))

    def test_rounding_beyond_the_ends_is_accepted(self):
        assert mse(torch.ones(1, 3, 1, 2, 2), torch.full((1, 3, 1, 2, 2), 1.0005)).item() < 1e-6


def random_trunk_lpips(net):
    """LPIPS as published but for a random trunk: the comparison needs no download."""
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def alex():
    return random_trunk_lpips("alex")


@pytest.fixture(scope="module")
def st_lpips():
    try:
        return perceptual_metric("st-lpips")
    except WeightsError as error:
        pytest.skip(str(error))


class TestLPIPS:
    def check_against_the_package(self, model):
        real, fake = clips(seed=0), noisy(clips(seed=0), 0.1)
        expected = [model(real[:, :, t], fake[:, :, t], normalize=True).flatten() for t in range(real.shape[2])]
        metric = lpips_distance(model)
        expected_BT = torch.stack(expected, dim=1).detach()
        torch.testing.assert_close(metric.forward_frames(real, fake), expected_BT, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(metric(real, fake), expected_BT.mean(dim=1), atol=1e-6, rtol=1e-5)

    def test_alex_equals_the_package(self, alex):
        self.check_against_the_package(alex)

    @pytest.mark.slow
    def test_vgg_equals_the_package(self):
        self.check_against_the_package(random_trunk_lpips("vgg"))

    def test_other_versions_are_refused(self, alex, monkeypatch):
        monkeypatch.setattr(alex, "version", "0.0")
        with pytest.raises(ValueError, match=r"version 0\.0"):
            lpips_distance(alex)

    @pytest.mark.parametrize("name", ["lpips-vgg", "lpips-alex"])
    def test_missing_weights_offline_are_one_clear_error(self, name, tmp_path, monkeypatch):
        pytest.importorskip("lpips")

        def unreachable(*args, **kwargs):
            raise URLError("no network")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.urlopen", unreachable)
        with pytest.raises(WeightsError, match="no network") as caught:
            perceptual_metric(name)
        file = {"lpips-vgg": "vgg16-397923af.pth", "lpips-alex": "alexnet-owt-7be5be79.pth"}[name]
        for part in (file, str(tmp_path / "hub" / "checkpoints"), "TORCH_HOME"):
            assert part in str(caught.value)

    def test_a_damaged_file_is_named(self, tmp_path, monkeypatch):
        pytest.importorskip("lpips")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half a download")
        with pytest.raises(WeightsError, match="not the published file") as caught:
            perceptual_metric("lpips-alex")
        assert str(path) in str(caught.value)

    @pytest.mark.slow
    def test_the_trunk_is_read_from_torch_home_without_a_word(self, tmp_path, monkeypatch, alex, capfd):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
        write_alexnet(path, alex)
        monkeypatch.setitem(weights.PUBLISHED, path.name, sha256_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metric = perceptual_metric("lpips-alex")
        real, fake = clips(), clips(seed=1)
        torch.testing.assert_close(metric(real, fake), lpips_distance(alex)(real, fake), atol=1e-6, rtol=1e-5)
        assert set(metric.weights_sha256) == {path.name, "lpips/v0.1/alex.pth"}
        assert capfd.readouterr().out == ""


def write_alexnet(path: Path, model) -> None:
    """A torchvision checkpoint with the trunk of `model`; its unused classifier takes no room on disk."""
    import torchvision

    features = {f"features.{key.split('.', 1)[1]}": value for key, value in model.net.state_dict().items()}
    with torch.device("meta"):
        shapes = torchvision.models.alexnet().state_dict()
    rest = {key: torch.zeros(1).expand(meta.shape) for key, meta in shapes.items() if key not in features}
    path.parent.mkdir(parents=True)
    torch.save(features | rest, path)


class TestSTLPIPS:
    def test_zero_for_equal_and_rising_with_noise(self, st_lpips):
        real = smooth_clips(1, 2, 48)
        values = [st_lpips(real, noisy(real, amount)).item() for amount in (0.0, 0.02, 0.05, 0.1)]
        assert values[0] == 0
        assert values == sorted(set(values))

    def test_a_shift_costs_less_than_another_picture(self, st_lpips):
        real = smooth_clips(1, 1, 48)
        shifted = real.roll(1, dims=-1)
        assert st_lpips(real, shifted) < 0.2 * st_lpips(real, real.flip(-1))

    def test_gradients_are_finite_and_reach_the_fake_alone(self, st_lpips):
        real, fake = smooth_clips(1, 2, 48), noisy(smooth_clips(1, 2, 48), 0.1).requires_grad_()
        st_lpips(real, fake).sum().backward()
        assert torch.isfinite(fake.grad).all()
        assert fake.grad.abs().max() > 0
        assert not any(parameter.requires_grad for parameter in st_lpips.parameters())

    def test_a_low_precision_trunk_gives_nearly_the_same_float32_distance(self, st_lpips):
        real = smooth_clips(1, 2, 48)
        fake = noisy(real, 0.1)
        value = perceptual_metric("st-lpips", dtype=torch.bfloat16)(real, fake)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, st_lpips(real, fake), rtol=0.05, atol=1e-4)

    def test_the_dtype_asked_for_holds_under_autocast(self, st_lpips):
        real = smooth_clips(1, 2, 48)
        fake = noisy(real, 0.1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = st_lpips(real, fake)
        torch.testing.assert_close(value, st_lpips(real, fake), rtol=0, atol=0)

    def test_small_frames_are_refused_and_the_smallest_is_accepted(self, st_lpips):
        assert torch.isfinite(st_lpips(clips(size=21), clips(size=21, seed=1))).all()
        with pytest.raises(ValueError, match="20x20 are too small for this metric, which needs 21x21"):
            st_lpips(clips(size=20), clips(size=20))

    def test_the_weights_are_named_for_the_record(self, st_lpips):
        assert st_lpips.weights_sha256 == {"alex_shift_tolerant.pth": weights.ST_LPIPS_SHA256}

    def test_the_package_is_never_imported(self, st_lpips):
        assert "stlpips_pytorch" not in sys.modules

    def test_without_the_package_the_error_says_how_to_get_it(self, monkeypatch):
        def not_installed(name):
            raise PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.distribution", not_installed)
        with pytest.raises(WeightsError, match="pip install --no-deps stlpips_pytorch"):
            perceptual_metric("st-lpips")

    def test_other_weights_are_refused(self, tmp_path, monkeypatch):
        path = tmp_path / "alex_shift_tolerant.pth"
        path.write_bytes(b"something else")
        monkeypatch.setattr(weights, "_st_lpips_file", lambda: path)
        with pytest.raises(WeightsError, match="not the published file"):
            perceptual_metric("st-lpips")


class OneTap(torch.nn.Module):
    """A trunk that is its own input: distances can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, frames):
        return [frames]


@pytest.fixture
def by_hand():
    """Frames in [0, 1] come out of the standardisation unchanged: 2x - 1 - (-1), over 2."""
    return PerceptualDistance(OneTap(), [torch.tensor([1.0, 2.0, 4.0])], torch.full((3,), -1.0), torch.full((3,), 2.0))


class TestDistance:
    def test_by_hand(self, by_hand):
        red, green = torch.zeros(1, 3, 2, 4, 4), torch.zeros(1, 3, 2, 4, 4)
        red[:, 0], green[:, 1] = 0.3, 0.9
        torch.testing.assert_close(by_hand.forward_frames(red, green), torch.full((1, 2), 1.0 + 2.0))
        green[:, :, 1] = red[:, :, 1]
        torch.testing.assert_close(by_hand(red, green), torch.tensor([1.5]))

    def test_brightness_alone_is_no_distance(self, by_hand):
        dark = clips() * 0.5
        assert by_hand(dark, dark * 2).abs().max() < 1e-9

    def test_a_target_is_compared_with_many_reconstructions_at_once(self, by_hand):
        target, candidates = torch.rand(4, 3, 8, 8), torch.rand(5, 4, 3, 8, 8)
        at_once = by_hand.distance(by_hand.features(target), by_hand.features(candidates))
        assert at_once.shape == (5, 4)
        for candidate, row in zip(candidates, at_once, strict=True):
            one = by_hand.forward_frames(target.transpose(0, 1)[None], candidate.transpose(0, 1)[None])
            torch.testing.assert_close(row, one[0])

    def test_black_frames_have_finite_gradients(self, by_hand):
        fake = torch.zeros(1, 3, 1, 4, 4, requires_grad=True)
        by_hand(torch.zeros_like(fake), fake).sum().backward()
        assert torch.isfinite(fake.grad).all()

    def test_wrong_shapes_are_named(self, by_hand):
        with pytest.raises(ValueError, match="differ in shape"):
            by_hand(clips(), clips(frames=3))
        with pytest.raises(ValueError, match=r"shape \(B, 3, T, H, W\)"):
            by_hand(clips().transpose(1, 2), clips().transpose(1, 2))
        with pytest.raises(ValueError, match=r"\(\.\.\., 3, H, W\)"):
            by_hand.features(torch.zeros(4, 4))


def test_none_is_no_metric():
    assert perceptual_metric("none") is None


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'lpips'.*lpips-vgg, lpips-alex, st-lpips, none"):
        perceptual_metric("lpips")


class TestInOneCall:
    def test_every_name_of_the_room_is_there(self):
        assert set(metrics.__all__) >= {"psnr", "ssim", "lpips", "st_lpips", "i3d_logits", "fvd", "fid"}
        assert all(callable(getattr(metrics, name)) for name in metrics.__all__)

    def test_one_value_a_clip_as_the_module_gives(self, st_lpips):
        real, fake = clips(2), clips(2, seed=1)
        torch.testing.assert_close(metrics.st_lpips(real, fake), st_lpips(real, fake))

    @pytest.mark.parametrize("measure", [metrics.lpips, metrics.st_lpips])
    def test_bytes_are_refused_before_any_weights_are_looked_for(self, measure, monkeypatch, tmp_path):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\] but span"):
            measure(255 * clips(), clips())

    def test_an_unknown_net_is_named(self):
        with pytest.raises(ValueError, match="unknown LPIPS net 'squeeze': choose one of vgg, alex"):
            metrics.lpips(clips(), clips(), net="squeeze")
