"""EfficientNet-Lite0 (arXiv 1905.11946): an image network of inverted residuals, without squeeze and excitation.

The Lite variant replaces swish by ReLU6 and drops squeeze and excitation, so a block is three convolutions. It only
runs with frozen weights, so each batch norm is folded into the convolution before it.

Legend: N images, C channels, H x W pixels; B clips of T frames, D channels of all views of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from evatok.models.encoder_families import EncoderError, FrozenEncoder

Grid = tuple[int, int, int]

EPSILON = 1e-3  # of its batch norms
STEM, HEAD, CLASSES = 32, 1280, 1000


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: the first one has the stride, the others are residual."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
WIDTHS = (STEM, *(stage.width for stage in STAGES for _ in range(stage.blocks)))
"""C of the stem (0) and of blocks 1 to 16."""

STRIDE = 32
"""Pixels per position, along a side, of the last block's map."""


@dataclass(frozen=True)
class EncoderShape:
    """What `FrozenEncoder` asks of a network, in the words of transformers' configurations."""

    hidden_size: int = WIDTHS[-1]
    num_hidden_layers: int = len(WIDTHS) - 1
    patch_size: int = STRIDE


class Convolution(nn.Module):
    """A convolution with bias that maps sides of S, a multiple of `stride`, to S / stride, padded as in TensorFlow.

    With stride 2, the padding of an even side is one pixel larger at its end.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.uneven = (before, after, before, after) if before != after else None
        self.convolution.padding = (0, 0) if self.uneven else (before, before)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convolution(F.pad(images, self.uneven) if self.uneven else images)


class Block(nn.Module):
    """An inverted residual: expand the channels, filter each one, project; added to its input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = Convolution(inputs, inner) if expansion > 1 else None
        self.filter = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = images if self.expand is None else F.relu6(self.expand(images))
        made = self.project(F.relu6(self.filter(inner)))
        return images + made if self.residual else made


class EfficientNetLite0(nn.Module):
    """Map images (N, 3, H, W), standardised, sides multiples of 32, to ImageNet's classes, or to maps of every depth.

    Standardised means (x - 127) / 128 of pixels in [0, 255]. An untrained one until `load_published`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = EncoderShape()
        self.stem = Convolution(3, STEM, 3, 2)
        shapes = [(stage, stage.stride if first else 1) for stage in STAGES for first in _firsts(stage)]
        self.blocks = nn.ModuleList(
            Block(inputs, outputs, stage.kernel, stride, stage.expansion)
            for (inputs, outputs), (stage, stride) in zip(pairwise(WIDTHS), shapes, strict=True)
        )
        self.head = Convolution(WIDTHS[-1], HEAD)
        self.classifier = nn.Linear(HEAD, CLASSES)

    def maps(self, images: torch.Tensor, deepest: int) -> list[torch.Tensor]:
        """Maps (N, C, h, w) of the stem, and of blocks 1 to `deepest`; C as in `WIDTHS`."""
        found = [F.relu6(self.stem(images))]
        for block in self.blocks[:deepest]:
            found.append(block(found[-1]))
        return found

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1000) of ImageNet's classes, in the order of their WordNet ids."""
        deepest = self.maps(images, len(self.blocks))[-1]
        return self.classifier(F.relu6(self.head(deepest)).mean((2, 3)))

    def load_published(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the tensors of `evatok.weights.efficientnet.load`, every one of them, batch norms folded.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor is left over.
        """
        left = {name for name in state if not name.endswith("num_batches_tracked")}
        for convolution, name, norm in self._published_names():
            names = [f"{name}.weight", *(f"{norm}.{part}" for part in ("running_mean", "running_var"))]
            names += [f"{norm}.weight", f"{norm}.bias"]
            weight, mean, variance, scale, shift = (state[each] for each in names)
            fused = fuse_conv_bn_weights(weight, None, mean, variance, EPSILON, scale, shift)
            convolution.load_state_dict(dict(zip(("weight", "bias"), fused, strict=True)))
            left -= set(names)
        self.classifier.load_state_dict({part: state[f"_fc.{part}"] for part in ("weight", "bias")})
        left -= {"_fc.weight", "_fc.bias"}
        if left:
            raise ValueError(f"{len(left)} tensors belong to no layer of EfficientNet-Lite0, {min(left)} first")

    def _published_names(self) -> Iterator[tuple[nn.Conv2d, str, str]]:
        """Every convolution, with the published names of it and of the batch norm after it."""
        yield self.stem.convolution, "_conv_stem", "_bn0"
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if block.expand is not None:
                yield block.expand.convolution, f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0"
            yield block.filter.convolution, f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1"
            yield block.project.convolution, f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2"
        yield self.head.convolution, "_conv_head", "_bn1"


class EfficientNet(FrozenEncoder):
    """EfficientNet-Lite0 on frames and, with `differences`, on the change from frame to frame.

    Features (B, T', H', W', D) of layer 0 (the stem) and of blocks 1 to 16: T' = T, H' and D depend on the layer. A
    change is shown to the network as a picture: `GAIN` times the difference from the frame before, around mid-grey.
    Its features follow the frame's along D; the first frame, which has none before it, shares those of the second.
    """

    family, network = "efficientnet-lite0", "EfficientNetLite0"
    GAIN: ClassVar[float] = 1.0

    def __init__(self, model: EfficientNetLite0, *, differences: bool = True, **options: Any) -> None:
        mean, deviation = (127 / 255,) * 3, (128 / 255,) * 3
        super().__init__(model.to(memory_format=torch.channels_last), mean=mean, deviation=deviation, **options)
        self.views = 2 if differences else 1
        self.width = self.width_of(self.depth)

    def width_of(self, layer: int) -> int:
        return self.views * WIDTHS[layer]

    def _steps(self, frames: int) -> int:
        if frames < self.views:
            raise EncoderError(f"{self.source}: reads the change from frame to frame, clips have only {frames} frame")
        return frames

    def _outputs(self, pixels: torch.Tensor, grid: Grid, deepest: int) -> list[torch.Tensor]:
        """Maps (frames and differences of all clips, C, h, w) of layers 0 to `deepest`."""
        images = rearrange(pixels, "b c t h w -> (b t) c h w")
        if self.views == 2:
            grey = (0.5 - self.mean) / self.deviation
            changes = rearrange(grey + self.GAIN * pixels.diff(dim=2), "b c t h w -> (b t) c h w")
            images = torch.cat((images, changes))
        return self.model.maps(images.contiguous(memory_format=torch.channels_last), deepest)

    def _as_grid(self, tokens: torch.Tensor, clips: int, grid: Grid) -> torch.Tensor:
        frames = clips * grid[0]
        seen = rearrange(tokens[:frames], "(b t) c y x -> b t y x c", b=clips)
        if self.views == 1:
            return seen
        changes = rearrange(tokens[frames:], "(b t) c y x -> b t y x c", b=clips)
        return torch.cat((seen, torch.cat((changes[:, :1], changes), dim=1)), dim=-1)


def _firsts(stage: Stage) -> Iterator[bool]:
    yield from (block == 0 for block in range(stage.blocks))
