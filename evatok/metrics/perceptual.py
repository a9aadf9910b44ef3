"""Perceptual distances of frames: LPIPS (VGG or AlexNet trunk) and ST-LPIPS, its shift-tolerant relative.

All compare feature maps of a frozen network: at each of five taps, channel vectors are normalised to unit length, their
squared differences are weighted by a learned head, summed over channels, averaged over the map, and summed over taps.
They differ in trunk and heads, so their values are never mixed in a column: a record names the metric by its key here.
Lower is better, 0 for equal frames.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018;
Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022.

Legend: B clips, T frames, H x W pixels; N any leading dimensions of a stack of frames.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evatok import weights
from evatok.metrics import catalogue
from evatok.metrics.pixels import Clips, check_clips, check_shapes
from evatok.storage.transfer import moved

METRICS = (*(entry.scored for entry in catalogue.METRICS if entry.network and entry.per == "clip"), "none")

_SMALLEST_FRAME = {"vgg": 16, "alex": 31, "st": 21}  # side in pixels; below it a feature map vanishes


def perceptual_metric(
    name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> "PerceptualDistance | None":
    """Load the metric called `name` (one of METRICS), frozen, on `device`; None for "none".

    `dtype` applies only to the trunk, also under autocast: bfloat16 is faster for a training loss, float32 is for
    reported values. Raises ValueError for an unknown name, WeightsError if the weights are not available.
    """
    if name not in METRICS:
        raise ValueError(f"unknown perceptual metric {name!r}: choose one of {', '.join(METRICS)}")
    if name == "none":
        return None
    metric = _load_st_lpips() if name == "st-lpips" else _load_lpips(name.removeprefix("lpips-"))
    metric.trunk.to(dtype).to(memory_format=torch.channels_last)  # up to twice as fast on a CPU
    return metric.to(device)


def lpips(real: Clips, fake: Clips, net: str = "vgg") -> Tensor:
    """LPIPS of two clips (B, 3, T, H, W) in [0, 1], the mean over frames: (B,) float32, on the clips' device.

    `net` is "vgg" (LARP's and the papers' choice) or "alex". Raises as `check_clips`, ValueError for an unknown net,
    WeightsError if the trunk is not available.
    """
    if net not in weights.TRUNKS:
        raise ValueError(f"unknown LPIPS net {net!r}: choose one of {', '.join(weights.TRUNKS)}")
    return _measured(f"lpips-{net}", real, fake)


def st_lpips(real: Clips, fake: Clips) -> Tensor:
    """ST-LPIPS (AlexNet) of two clips, see `lpips`; its values are not comparable with those of LPIPS."""
    return _measured("st-lpips", real, fake)


@torch.no_grad()
def _measured(name: str, real: Clips, fake: Clips) -> Tensor:
    real, fake = check_clips(real, fake)
    metric = _loaded(name, str(real.device))
    # Clip by clip: the features of a batch of clips would fill the memory.
    return torch.cat([metric(a[None], b[None]) for a, b in zip(real, fake, strict=True)])


@lru_cache(maxsize=4)
def _loaded(name: str, device: str) -> "PerceptualDistance":
    metric = perceptual_metric(name, device)
    assert metric is not None
    return metric


class PerceptualDistance(nn.Module):
    """Distance of frames in [0, 1] by weighted differences of unit-length features; frozen.

    `trunk` maps frames (N, 3, H, W) to one feature map per tap, `heads` are the taps' channel weights, `shift` and
    `scale` (3 values each) standardise frames in [-1, 1] as in the trunk's training. `weights_sha256` names the weight
    files, for records.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        heads: Sequence[Tensor],
        shift: Tensor,
        scale: Tensor,
        *,
        smallest_frame: int = 1,
        weights_sha256: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.smallest_frame = smallest_frame
        self.weights_sha256 = weights_sha256 or {}
        for tap, head in enumerate(heads):
            self.register_buffer(f"head{tap}", head.detach().float().reshape(-1, 1, 1))
        self.register_buffer("shift", shift.detach().float().reshape(3, 1, 1))
        self.register_buffer("scale", scale.detach().float().reshape(3, 1, 1))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean distance over each clip's frames (B,) float32, of two clips (B, 3, T, H, W) in [0, 1].

        Gradients flow to both. Values are not checked, because as a loss it also sees output outside [0, 1].
        Raises ValueError for different shapes, other layouts and integer clips.
        """
        return self.forward_frames(real, fake).mean(dim=1)

    def forward_frames(self, real: Tensor, fake: Tensor) -> Tensor:
        """Like `forward`, but one distance per frame: (B, T) float32."""
        check_shapes(real, fake)
        real_BT3HW, fake_BT3HW = real.transpose(1, 2), fake.transpose(1, 2)
        return self.distance(self.features(real_BT3HW), self.features(fake_BT3HW))

    def features(self, frames: Tensor) -> list[Tensor]:
        """Unit-length features of each tap (*N, C, h, w) float32, of frames (*N, 3, H, W) in [0, 1].

        Computing a target's features once and comparing many reconstructions with `distance` saves half of the work.
        Raises ValueError for other shapes and for frames too small for the trunk.
        """
        if frames.ndim < 3 or frames.shape[-3] != 3:
            raise ValueError(f"frames must have the shape (..., 3, H, W), got {tuple(frames.shape)}")
        if min(frames.shape[-2:]) < self.smallest_frame:
            raise ValueError(
                f"frames of {frames.shape[-2]}x{frames.shape[-1]} are too small for this metric, "
                f"which needs {self.smallest_frame}x{self.smallest_frame}"
            )
        dtype = next(self.trunk.parameters()).dtype
        with torch.autocast(frames.device.type, enabled=False):
            standard = (2 * frames.float() - 1 - self.shift) / self.scale
            maps = self.trunk(standard.reshape(-1, *frames.shape[-3:]).to(dtype))
        return [_unit_length(tap.float()).reshape(*frames.shape[:-3], *tap.shape[1:]) for tap in maps]

    def distance(self, features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
        """Distances (*N,) float32 of two results of `features`, with broadcasting of leading dimensions."""
        values = []
        for tap, (a, b) in enumerate(zip(features_a, features_b, strict=True)):
            values.append((_mean_squares(a - b) * self.get_buffer(f"head{tap}").flatten()).sum(dim=-1))
        return torch.stack(values).sum(dim=0)


class SomeFrames:
    """A perceptual distance on `count` evenly spaced frames only, for when all frames take too long.

    It has the `features` and `distance` of the full metric; a value is an estimate of the mean over all frames.
    """

    def __init__(self, metric: PerceptualDistance, count: int) -> None:
        if count < 1:
            raise ValueError(f"at least 1 frame is needed, got {count}")
        self.metric, self.count = metric, count
        self.weights_sha256 = metric.weights_sha256

    def features(self, frames: Tensor) -> list[Tensor]:
        """See `PerceptualDistance.features`; only of the chosen ones of the frames (*N, T, 3, H, W)."""
        total = frames.shape[-4]
        count = min(self.count, total)
        chosen = [(2 * i + 1) * total // (2 * count) for i in range(count)]
        return self.metric.features(frames[..., chosen, :, :, :])

    def distance(self, features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
        """See `PerceptualDistance.distance`."""
        return self.metric.distance(features_a, features_b)


def scoring_metric(
    name: str, frames: int, device: str | torch.device = "cpu", *, bf16: bool = False
) -> "PerceptualDistance | SomeFrames | None":
    """The metric by which stage 2 scores blocks, on `frames` of each (0: all), trunk in bfloat16 if `bf16`.

    None for "none"; raises as `perceptual_metric`.
    """
    metric = perceptual_metric(name, device, torch.bfloat16 if bf16 else torch.float32)
    return SomeFrames(metric, frames) if metric is not None and frames else metric


def lpips_distance(model: Any, *, weights_sha256: dict[str, str] | None = None) -> PerceptualDistance:
    """Wrap an `lpips.LPIPS` module (version 0.1, with heads, net "vgg" or "alex") as a distance of clips.

    The trunk is shared with `model`, not copied. Raises ValueError for another version or net.
    """
    if model.version != "0.1" or not model.lpips or model.pnet_type not in weights.TRUNKS:
        raise ValueError(
            f"expected an LPIPS of version 0.1 with heads and net vgg or alex, got version {model.version}, "
            f"lpips={model.lpips}, net {model.pnet_type}"
        )
    return PerceptualDistance(
        model.net,
        [layer.model[-1].weight for layer in model.lins],
        model.scaling_layer.shift,
        model.scaling_layer.scale,
        smallest_frame=_SMALLEST_FRAME[model.pnet_type],
        weights_sha256=weights_sha256,
    )


class ShiftTolerantAlexNet(nn.Module):
    """The trunk of ST-LPIPS: an AlexNet that blurs wherever it subsamples, against aliasing.

    The first convolution has stride 1 and is blurred before its ReLU; each max pool has stride 1 and is blurred after
    it. Maps (N, 3, H, W) to five feature maps, each taken after a ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=11, padding=2)
        self.conv2 = nn.Conv2d(64, 192, kernel_size=5, padding=2)
        self.conv3 = nn.Conv2d(192, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, kernel_size=3, padding=1)

    def forward(self, frames: Tensor) -> list[Tensor]:
        tap1 = F.relu(blur_pool(self.conv1(frames)))
        tap2 = F.relu(self.conv2(blur_pool(F.max_pool2d(tap1, 3, stride=1))))
        tap3 = F.relu(self.conv3(blur_pool(F.max_pool2d(tap2, 3, stride=1))))
        tap4 = F.relu(self.conv4(tap3))
        tap5 = F.relu(self.conv5(tap4))
        return [tap1, tap2, tap3, tap4, tap5]


def blur_pool(maps: Tensor) -> Tensor:
    """Halve (N, C, H, W): reflect-pad by 2, filter with [1, 2, 1] / 4 in both directions, keep every 2nd pixel.

    A depthwise convolution: on a CPU core three to ten times as fast as two average pools.
    """
    line = torch.tensor((0.25, 0.5, 0.25), dtype=maps.dtype)
    kernel = moved(torch.outer(line, line), maps.device).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(maps, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=maps.shape[1])


def _unit_length(maps: Tensor) -> Tensor:
    """Normalise the channel vectors of (N, C, H, W) to length 1; zero vectors stay zero.

    The root is bounded away from 0, where its infinite derivative would turn gradients into NaN.
    """
    length = torch.linalg.vector_norm(maps, dim=1, keepdim=True).clamp(min=1e-10)
    return maps / (length + 1e-10)


def _mean_squares(difference: Tensor) -> Tensor:
    """(*N, C) means of squares of (*N, C, h, w), which is overwritten where no gradient needs it."""
    squares = difference.square() if difference.requires_grad else difference.square_()
    return squares.mean(dim=(-2, -1))


def _load_lpips(net: str) -> PerceptualDistance:
    import lpips  # here: it imports torchvision and more

    # Both files are read here, because the packages' own loaders could run code from a file.
    state, heads = weights.tensors(weights.trunk(net)), weights.tensors(weights.lpips_heads(net))
    network = {"vgg": lpips.pretrained_networks.vgg16, "alex": lpips.pretrained_networks.alexnet}[net]
    with warnings.catch_warnings(), torch.device("meta"):  # lpips uses two deprecated arguments of torchvision
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated")
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum")
        trunk = network(pretrained=False, requires_grad=False)
    keys = {name: f"features.{name.partition('.')[2]}" for name in trunk.state_dict()}
    trunk.load_state_dict({name: state[key] for name, key in keys.items()}, assign=True)
    standard = lpips.ScalingLayer()
    return PerceptualDistance(
        trunk,
        [heads[f"lin{tap}.model.1.weight"] for tap in range(5)],
        standard.shift,
        standard.scale,
        smallest_frame=_SMALLEST_FRAME[net],
        weights_sha256={
            weights.TRUNKS[net]: weights.PUBLISHED[weights.TRUNKS[net]],
            f"lpips/v0.1/{net}.pth": weights.LPIPS_HEADS[net],
        },
    )


def _load_st_lpips() -> PerceptualDistance:
    state = weights.tensors(weights.st_lpips())
    trunk = ShiftTolerantAlexNet()
    slices = {
        "conv1": "slice1.0",
        "conv2": "slice2.5",
        "conv3": "slice3.9",
        "conv4": "slice4.11",
        "conv5": "slice5.13",
    }
    trunk.load_state_dict(
        {f"{conv}.{kind}": state[f"net.{key}.{kind}"] for conv, key in slices.items() for kind in ("weight", "bias")}
    )
    return PerceptualDistance(
        trunk,
        [state[f"lin{tap}.model.1.weight"] for tap in range(5)],
        state["scaling_layer.shift"],
        state["scaling_layer.scale"],
        smallest_frame=_SMALLEST_FRAME["st"],
        weights_sha256={weights.ST_LPIPS: weights.ST_LPIPS_SHA256},
    )
