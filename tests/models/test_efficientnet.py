"""EfficientNet-Lite0: the published network, and an encoder that sees both what is there and what changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evatok.models.efficientnet import EPSILON, STAGES, WIDTHS, EfficientNet, EfficientNetLite0
from evatok.models.encoders import EncoderError, depth_of, load_encoder
from evatok.weights import efficientnet
from evatok.weights import index as package_index
from evatok.weights.index import ArchiveError
from tests.factories import noise, published_efficientnet


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    """An untrained network whose deepest maps still depend on the pictures, always the same one."""
    made = EfficientNetLite0().eval().requires_grad_(False)
    made.load_published(published_efficientnet())
    return made


@pytest.fixture
def encoder(network) -> EfficientNet:
    return EfficientNet(network, source="untrained")


def clips(count: int = 2, seed: int = 0, frames: int = 4) -> torch.Tensor:
    return noise(count, seed, frames=frames, size=32)


# The network


def logits_of(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network as its paper has it, step by step: same padding, convolution, batch norm."""

    def layer(x: torch.Tensor, name: str, norm: str, stride: int = 1, depthwise: bool = False) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        side = x.shape[-1]
        missing = max(0, (-(-side // stride) - 1) * stride + weight.shape[-1] - side)
        x = F.pad(x, (missing // 2, missing - missing // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=len(weight) if depthwise else 1)
        parts = [state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=EPSILON)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    strides = [stage.stride if block == 0 else 1 for stage in STAGES for block in range(stage.blocks)]
    for index, stride in enumerate(strides):
        at, before = f"_blocks.{index}", x
        if index:
            x = F.relu6(layer(x, f"{at}._expand_conv", f"{at}._bn0"))
        x = F.relu6(layer(x, f"{at}._depthwise_conv", f"{at}._bn1", stride, depthwise=True))
        x = layer(x, f"{at}._project_conv", f"{at}._bn2")
        if stride == 1 and x.shape == before.shape:
            x = x + before
    x = F.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


def test_folded_batch_norms_and_padding_leave_the_published_network_as_it_is(network):
    state = {name: value.double() for name, value in published_efficientnet().items()}
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = logits_of(state, images)
    assert (expected[0] - expected[1]).std() > 0.1
    folded = EfficientNetLite0().double().eval()
    folded.load_published(state)
    torch.testing.assert_close(folded(images), expected)


def test_a_tensor_that_is_missing_or_left_over_is_named(network):
    state = published_efficientnet()
    with pytest.raises(ValueError, match=r"1 tensors belong to no layer of EfficientNet-Lite0, _se\.weight first"):
        EfficientNetLite0().load_published({**state, "_se.weight": torch.zeros(1)})
    del state["_blocks.3._bn1.running_var"]
    with pytest.raises(KeyError, match=r"_blocks\.3\._bn1\.running_var"):
        EfficientNetLite0().load_published(state)


@pytest.mark.skipif(not efficientnet.path().exists(), reason="python -m evatok.weights prefetch efficientnet-lite0")
def test_the_published_weights_see_a_uniform_in_a_photograph():
    matplotlib, images = pytest.importorskip("matplotlib"), pytest.importorskip("PIL.Image")
    photograph = images.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    middle = photograph.resize((256, 303)).crop((16, 39, 240, 263))
    pixels = torch.from_numpy(np.array(middle)).permute(2, 0, 1)[None].float()
    network = EfficientNetLite0().eval()
    network.load_published(efficientnet.load())
    gown, uniform = 400, 652  # of ImageNet's classes; her coat is either
    seen = network((pixels - 127) / 128)[0].topk(5).indices.tolist()
    assert {gown, uniform} <= set(seen)


# The encoder


def test_layers_have_their_own_widths_and_grids(encoder):
    layers = [0, 1, 3, 5, 8, 11, 16]
    found = encoder(noise(2, frames=3, size=64), layers)
    sides = [32, 32, 16, 8, 4, 4, 2]
    assert [tuple(f.shape) for f in found] == [
        (2, 3, side, side, encoder.width_of(layer)) for layer, side in zip(layers, sides, strict=True)
    ]
    assert encoder.width_of(11) == 2 * WIDTHS[11] == 224
    assert encoder.grid(3, 64) == tuple(found[-1].shape[1:4])
    assert encoder.width == found[-1].shape[-1]


def test_every_frame_is_encoded_by_itself_and_every_change_from_the_frame_before(encoder):
    x = clips()
    before = encoder(x, [5])[0]
    x[:, :, 2] = 1 - x[:, :, 2]
    changed = (encoder(x, [5])[0] != before).any(0).any(1).any(1)
    half = WIDTHS[5]
    assert changed[:, :half].any(1).tolist() == [False, False, True, False]
    assert changed[:, half:].any(1).tolist() == [False, False, True, True]


def test_a_clip_that_rests_and_one_that_moves_differ_by_their_changes_alone(network):
    """Both hold the same four pictures; one holds each of them for two frames, the other changes at each."""
    one, other = clips(1, 1, 1), clips(1, 2, 1)
    rests, moves = torch.cat((one, one, other, other), 2), torch.cat((one, other, one, other), 2)
    features = {}
    for differences in (False, True):
        judge = EfficientNet(network, differences=differences)
        features[differences] = [judge(x, [3])[0].mean((1, 2, 3)) for x in (rests, moves)]
    torch.testing.assert_close(*features[False])
    half = WIDTHS[3]
    (still, moving) = features[True]
    torch.testing.assert_close(still[:, :half], moving[:, :half])
    assert (still - moving)[:, half:].abs().max() > 0.05 * still[:, half:].abs().max()


def test_gradients_reach_the_clips_and_not_the_trunk_which_stays_in_evaluation_mode(encoder):
    x = clips().requires_grad_()
    encoder.train()(x, [5, 8])[1].square().sum().backward()
    assert (x.grad.abs().amax((1, 3, 4)) > 0).all()
    assert not any(module.training for module in encoder.modules())
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())


def test_clips_are_resized_and_others_are_refused(network, encoder):
    resized = EfficientNet(network, resize=64)
    assert resized(clips(), [8])[0].shape[2:4] == (4, 4)
    with pytest.raises(EncoderError, match="patches of 32 pixels do not tile 48x48; load with resize=32"):
        encoder(noise(1, size=48), [1])
    with pytest.raises(EncoderError, match="clips have only 1 frame"):
        encoder(clips(frames=1), [1])
    with pytest.raises(EncoderError, match="layer 17 requested"):
        encoder(clips(), [17])


# By name


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Iterator[None]:
    def refuse(project, version, path):
        raise ArchiveError("no network")

    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path))
    monkeypatch.setattr(package_index, "fetch_archive", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("ask", [load_encoder, depth_of])
def test_without_network_the_error_says_what_to_put_where(tmp_path, ask):
    with pytest.raises(EncoderError, match=r"efficientnet-lite0: .*no network") as caught:
        ask("efficientnet-lite0")
    assert efficientnet.ARCHIVE in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_it_is_loaded_by_name_with_and_without_changes(monkeypatch):
    monkeypatch.setattr(efficientnet, "load", published_efficientnet)
    monkeypatch.setattr(efficientnet, "bring", lambda: None)
    whole, frames = load_encoder("efficientnet-lite0"), load_encoder("efficientnet-lite0:frames")
    assert whole.weights_sha256 == frames.weights_sha256 == efficientnet.SHA256
    x = clips()
    torch.testing.assert_close(whole(x, [5])[0][..., : WIDTHS[5]], frames(x, [5])[0])
    assert frames.width_of(5) == WIDTHS[5]
    assert frames.depth == depth_of("efficientnet-lite0") == 16
    resized = load_encoder("efficientnet-lite0:frames", resize=64)
    assert resized(x, [5])[0].shape[2:4] == (8, 8)
