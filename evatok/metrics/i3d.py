"""FVD's features: the 400 logits of the Kinetics-400 I3D, DeepMind's Inception-v1 inflated to three dimensions.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; Unterthiner et al., "Towards Accurate
Generative Models of Video", 2018. Weights, padding and pooling are those of the TF-Hub original. State the number of
clips with any FVD: its bias falls with 1/N, so values of different N are not comparable
(`evatok.metrics.fvd_extrapolation`).

Legend: B clips, C channels, T frames, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from evatok.metrics.frechet import frechet_distance_of_features
from evatok.metrics.pixels import Clips, as_tensor, check_range
from evatok.weights import i3d as published

SIZE = 224  # side in pixels of the network's input
FEWEST_FRAMES = 9  # 8 would leave a single frame for the last pool, which takes two
CLASSES = 400
BATCH_NORM_EPS = 1e-3

Triple = tuple[int, int, int]


def fvd(real: Clips, fake: Clips, batch: int = 8, device: str | torch.device = "cpu") -> float:
    """Frechet distance of the logits of two sets of clips, (B, 3, T, H, W) and (B', 3, T, H, W) in [0, 1].

    Raises ValueError for invalid clips and for sets that differ in T, H or W, WeightsError if the network's weights are
    not available.
    """
    real, fake = check_clips(real, "the real clips"), check_clips(fake, "the fake clips")
    if real.shape[2:] != fake.shape[2:]:
        raise ValueError(
            f"real and fake clips differ in frames or size: {tuple(real.shape)} and {tuple(fake.shape)}; "
            "an FVD compares clips of equal shape"
        )
    network = load_i3d(device)
    real_logits, fake_logits = (i3d_logits(clips, batch, device, network) for clips in (real, fake))
    return frechet_distance_of_features(real_logits.numpy(), fake_logits.numpy())


def i3d_logits(
    clips: Clips, batch: int = 8, device: str | torch.device = "cpu", network: I3DFeatures | None = None
) -> Tensor:
    """Compute float32 logits (B, 400), on the CPU, of clips (B, 3, T, H, W) in [0, 1], `batch` at a time.

    Passing `network` avoids loading it in every call. Raises ValueError for invalid clips, WeightsError if the weights
    are not available.
    """
    clips = check_clips(clips)
    if batch < 1:
        raise ValueError(f"batch is {batch}, must be at least 1")
    network = network or load_i3d(device)
    logits = [
        network(clips[start : start + batch].to(device)).cpu()
        for start in trange(0, len(clips), batch, desc="I3D", disable=None)
    ]
    return torch.cat(logits)


def load_i3d(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> I3DFeatures:
    """Load the published network, frozen. Use float32 for reported values, bfloat16 to monitor a training.

    Raises WeightsError if the weights are not available.
    """
    with torch.device("meta"):
        network = I3D()
    network.load_state_dict(state_dict(published.load()), assign=True)
    features = I3DFeatures(network, {published.CHECKPOINT: published.CHECKPOINT_SHA256})
    return features.to(device, dtype).to(memory_format=torch.channels_last_3d)


def check_clips(clips: Clips, name: str = "the clips") -> Tensor:
    """Convert clips to a tensor. Raises ValueError unless they are floats (B, 3, T >= 9, H, W) in [0, 1], B > 0."""
    clips = as_tensor(clips, name)
    if clips.ndim != 5 or clips.shape[1] != 3 or clips.numel() == 0:
        raise ValueError(f"{name} must have the shape (B, 3, T, H, W), nowhere 0; got {tuple(clips.shape)}")
    if clips.shape[2] < FEWEST_FRAMES:
        raise ValueError(f"{name} have {clips.shape[2]} frames, the I3D needs at least {FEWEST_FRAMES}")
    if not clips.is_floating_point():
        raise ValueError(f"{name} must be floats in [0, 1], not {clips.dtype}: divide by 255 first")
    check_range(clips, name)
    return clips


class I3DFeatures(nn.Module):
    """Map clips in [0, 1] of any size to logits, with the resizing and value range that define FVD.

    `name` and `weights_sha256` identify the features in records and caches.
    """

    name = "i3d-k400-logits"

    def __init__(self, network: I3D, weights_sha256: Mapping[str, str]) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.weights_sha256 = dict(weights_sha256)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Compute logits (B, 400) float32 of clips (B, 3, T, H, W) in [0, 1], on the network's device.

        Frames are stretched to 224x224: bilinear, corners not aligned, no antialias. Raises as `check_clips`.
        """
        check_clips(clips)
        weight = self.network.Conv3d_1a_7x7.weight
        with torch.autocast(clips.device.type, enabled=False), _full_precision(weight):
            return self.network(_resize(2 * clips.float() - 1).to(weight.dtype)).float()


class I3D(nn.Module):
    """Map clips (B, 3, T, 224, 224) in [-1, 1], T >= 9, to logits (B, 400). Modules have the checkpoint's names."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.Mixed_3b = Mixed(192, 64, (96, 128), (16, 32), 32)
        self.Mixed_3c = Mixed(256, 128, (128, 192), (32, 96), 64)
        self.Mixed_4b = Mixed(480, 192, (96, 208), (16, 48), 64)
        self.Mixed_4c = Mixed(512, 160, (112, 224), (24, 64), 64)
        self.Mixed_4d = Mixed(512, 128, (128, 256), (24, 64), 64)
        self.Mixed_4e = Mixed(512, 112, (144, 288), (32, 64), 64)
        self.Mixed_4f = Mixed(528, 256, (160, 320), (32, 128), 128)
        self.Mixed_5b = Mixed(832, 256, (160, 320), (32, 128), 128)
        self.Mixed_5c = Mixed(832, 384, (192, 384), (48, 128), 128)
        self.Logits = nn.ModuleDict({"Conv3d_0c_1x1": nn.Conv3d(1024, CLASSES, 1)})

    def forward(self, clips: Tensor) -> Tensor:
        if clips.ndim != 5 or clips.shape[2] < FEWEST_FRAMES or clips.shape[3:] != (SIZE, SIZE):
            raise ValueError(f"the I3D takes (B, 3, T >= {FEWEST_FRAMES}, {SIZE}, {SIZE}), got {tuple(clips.shape)}")
        x = max_pool_same(self.Conv3d_1a_7x7(clips), (1, 3, 3), (1, 2, 2))
        x = max_pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = max_pool_same(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
        x = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))))
        x = max_pool_same(x, (2, 2, 2), (2, 2, 2))
        x = F.avg_pool3d(self.Mixed_5c(self.Mixed_5b(x)).float(), (2, 7, 7), stride=1)  # a CPU has it only in float32
        last = self.Logits["Conv3d_0c_1x1"]
        logits = F.conv3d(x, last.get_parameter("weight").float(), last.get_parameter("bias").float())
        return logits.mean(dim=(2, 3, 4))  # over time: one pixel is left


class Unit(nn.Conv3d):
    """A convolution with TF's SAME padding and a ReLU; the BatchNorm between them is folded into its weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = _triple(self.kernel_size), _triple(self.stride)
        padded, padding = pad_same(x, kernel, stride, 0.0)
        return F.conv3d(padded, self.weight, self.bias, stride, padding).relu_()


class Mixed(nn.Module):
    """Inception's block, four parallel branches: 1x1x1, two pairs of 1x1x1 and 3x3x3, and 1x1x1 after a max pool."""

    def __init__(self, inputs: int, direct: int, wide: tuple[int, int], narrow: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.Branch_0 = nn.ModuleDict({"Conv3d_0a_1x1": Unit(inputs, direct, 1)})
        self.Branch_1 = _pair(inputs, *wide)
        self.Branch_2 = _pair(inputs, *narrow)
        self.Branch_3 = nn.ModuleDict({"Conv3d_0b_1x1": Unit(inputs, pooled, 1)})

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.Branch_0["Conv3d_0a_1x1"](x),
            self.Branch_1["Conv3d_0b_3x3"](self.Branch_1["Conv3d_0a_1x1"](x)),
            self.Branch_2["Conv3d_0b_3x3"](self.Branch_2["Conv3d_0a_1x1"](x)),
            self.Branch_3["Conv3d_0b_1x1"](max_pool_same(x, (3, 3, 3), (1, 1, 1))),
        ]
        return torch.cat(branches, dim=1)


def state_dict(checkpoint: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Convert the checkpoint's 230 arrays to the state of an `I3D`, with every BatchNorm folded in.

    Kernels are (kT, kH, kW, in, out). Raises ValueError for an array that is missing, unused or of the wrong
    shape.
    """
    with torch.device("meta"):
        network = I3D()
    left = dict(checkpoint)
    state: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            weight, bias = _convolution(left, path.replace(".", "/"), fold=isinstance(module, Unit))
            if weight.shape != tuple(module.weight.shape) or bias.shape != (module.out_channels,):
                raise ValueError(
                    f"{path} has {weight.shape} weights in the checkpoint, not {tuple(module.weight.shape)}"
                )
            state[f"{path}.weight"], state[f"{path}.bias"] = _float32(weight), _float32(bias)
    if left:
        raise ValueError(f"the checkpoint holds {len(left)} arrays the I3D has no place for, such as {min(left)}")
    return state


def _float32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _convolution(left: dict[str, np.ndarray], name: str, fold: bool) -> tuple[np.ndarray, np.ndarray]:
    """Take the weight (out, in, kT, kH, kW) and the bias (out,) of one convolution out of `left`, in float64.

    BatchNorm has no scale: (y - mean) / sqrt(var + eps) + bias of y = W x is a convolution again.
    """

    def take(key: str) -> np.ndarray:
        if key not in left:
            raise ValueError(f"the checkpoint lacks {key}")
        return left.pop(key).astype(np.float64)

    weight = np.moveaxis(take(f"params/{name}/Conv_0/kernel"), (4, 3), (0, 1))
    if not fold:
        return weight, take(f"params/{name}/Conv_0/bias")
    bias = take(f"params/{name}/BatchNorm_0/bias")
    mean, variance = (take(f"batch_stats/{name}/BatchNorm_0/{key}").reshape(-1) for key in ("mean", "var"))
    scale = 1 / np.sqrt(variance + BATCH_NORM_EPS)
    return weight * scale[:, None, None, None, None], bias - mean * scale


def max_pool_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Max pool of (B, C, T, H, W) with TF's SAME padding, which is never the maximum."""
    padded, padding = pad_same(x, kernel, stride, -math.inf)
    return F.max_pool3d(padded, kernel, stride, padding)


def pad_same(x: Tensor, kernel: Triple, stride: Triple, value: float) -> tuple[Tensor, Triple]:
    """Pad (B, C, T, H, W) like TF's SAME; returns x and the padding that is left to the operation.

    Operations pad both ends equally at no cost; only unequal ends need a copy.
    """
    ends = [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    if all(before == after for before, after in ends):
        return x, (ends[0][0], ends[1][0], ends[2][0])
    return F.pad(x, [end for axis in reversed(ends) for end in axis], value=value), (0, 0, 0)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TF's SAME padding before and after an axis, so that ceil(size / stride) outputs remain; an odd one goes after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pair(inputs: int, inner: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"Conv3d_0a_1x1": Unit(inputs, inner, 1), "Conv3d_0b_3x3": Unit(inner, outputs, 3)})


def _triple(values: Sequence[int]) -> Triple:
    return values[0], values[1], values[2]


def _resize(clips: Tensor) -> Tensor:
    """Resize each frame of (B, 3, T, H, W): (B, 3, T, 224, 224), channels last, as the network wants them.

    The small frames are laid out so, and what the interpolation writes needs no other pass.
    """
    frames = clips.transpose(1, 2)
    flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(flat, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return resized.unflatten(0, frames.shape[:2]).transpose(1, 2)


@contextmanager
def _full_precision(weight: Tensor) -> Iterator[None]:
    """Disable TF32, to which cuDNN rounds float32 convolutions by default, with only ten bits of mantissa."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    if weight.is_cuda and weight.dtype == torch.float32:
        convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        if convolutions.fp32_precision != before:
            convolutions.fp32_precision = before
