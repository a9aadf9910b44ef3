"""Frozen vision encoders of each family behind one interface: VideoMAE, V-JEPA 2, DINOv2, DINOv3 and CLIP.

An encoder maps clips to feature grids (B, T', H', W', D), without class or register tokens, whatever its family. Its
weights never change, but gradients reach the clips.

Legend: B clips, T frames of H x W pixels, N tokens, D the encoder's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from einops import rearrange
from torch import nn

from evatok.errors import EvatokError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class EncoderError(EvatokError, ValueError):
    """An encoder that cannot be loaded, or clips and layers that it does not accept."""


class FrozenEncoder(nn.Module):
    """A frozen vision encoder: maps clips to features, differentiable with respect to the clips.

    Attributes:
        width: D, dimension of a feature of the last layer; `width_of` another one.
        depth: layers after the embedding: a transformer's, or a convolutional network's blocks.
        source: the folder or hub name it was loaded from.
        weights_sha256: hash of the weight files, for records.
        resize: side in pixels to resize clips to first, or None.
    """

    family: ClassVar[str]
    network: ClassVar[str]  # transformers' class
    unused: ClassVar[tuple[str, ...]] = ()  # weights that features do not need
    pixels: ClassVar[tuple[Sequence[float], Sequence[float]]] = (IMAGENET_MEAN, IMAGENET_DEVIATION)  # if not on file
    config: Any  # transformers' configuration
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        model: Any,
        *,
        source: str = "",
        weights_sha256: str = "",
        resize: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.config = model.config
        self.source, self.weights_sha256, self.resize = source, weights_sha256, resize
        self.width, self.depth = int(self.config.hidden_size), int(self.config.num_hidden_layers)
        self.patch = _side(self.config.patch_size, source)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever module it is part of."""
        return super().train(False)

    def width_of(self, layer: int) -> int:
        """D, dimension of a feature of `layer`; in a transformer that of all."""
        return self.width

    def grid(self, frames: int, size: int) -> tuple[int, int, int]:
        """Feature grid (T', H', W') of the last layer for clips of `frames` frames of `size` x `size` pixels.

        Raises:
            EncoderError: clips that this encoder does not accept.
        """
        side = self.resize or size
        tall = self._patches(side)
        return self._steps(frames), tall, tall

    def forward(self, clips: torch.Tensor, layers: Sequence[int]) -> list[torch.Tensor]:
        """Features (B, T', H', W', D) of clips (B, 3, T, H, W) in [0, 1], one tensor for each of `layers`.

        Layer 0 is the embedding with its positions, layers 1 to `depth` are the transformer's; the output of the last
        one is normalised by the encoder's final norm, if it has one. Layers after the deepest requested one are not
        computed.

        Raises:
            EncoderError: clips that this encoder does not accept, or layers that it does not have.
        """
        self._check_layers(layers)
        if clips.ndim != 5 or clips.shape[1] != 3 or clips.shape[3] != clips.shape[4]:
            raise EncoderError(f"{self.source}: clips must be square, (B, 3, T, S, S), got {tuple(clips.shape)}")
        grid = self.grid(clips.shape[2], clips.shape[3])
        outputs = self._outputs(self._standardised(clips), grid, max(layers))
        return [self._as_grid(outputs[layer], len(clips), grid) for layer in layers]

    def _check_layers(self, layers: Sequence[int]) -> None:
        unknown = [layer for layer in layers if not 0 <= layer <= self.depth]
        if unknown or not layers:
            requested = f"layer {unknown[0]}" if unknown else "no layer"
            raise EncoderError(f"{self.source}: {requested} requested, it has 0 (the embedding) to {self.depth}")

    def _standardised(self, clips: torch.Tensor) -> torch.Tensor:
        """Resize clips to the encoder's size, and standardise them with the statistics of its training pixels."""
        if self.resize and self.resize != clips.shape[-1]:
            frames = rearrange(clips, "b c t h w -> (b t) c h w")
            side = (self.resize, self.resize)
            frames = nn.functional.interpolate(frames, side, mode="bilinear", align_corners=False, antialias=True)
            clips = rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips))
        return (clips - self.mean) / self.deviation

    def _outputs(self, pixels: torch.Tensor, grid: tuple[int, int, int], deepest: int) -> list[torch.Tensor]:
        """Outputs of layers 0 to `deepest`."""
        x_BND, arguments = self._embed(pixels, grid)
        outputs = [x_BND]
        for layer in self._layers()[:deepest]:
            output = layer(outputs[-1], **arguments)
            outputs.append(output[0] if isinstance(output, tuple) else output)
        norm = self._final_norm()
        if deepest == self.depth and norm is not None:
            outputs[-1] = norm(outputs[-1])
        return outputs

    def _patches(self, side: int) -> int:
        """Number of patches along a side of `side` pixels."""
        if side % self.patch:
            nearest = max(self.patch, side // self.patch * self.patch)
            raise EncoderError(
                f"{self.source}: patches of {self.patch} pixels do not tile {side}x{side}; load with resize={nearest}"
            )
        return side // self.patch

    def _steps(self, frames: int) -> int:
        """T' of clips with `frames` frames."""
        tubelet = int(self.config.tubelet_size)
        if frames < tubelet or frames % tubelet:
            raise EncoderError(f"{self.source}: takes a multiple of {tubelet} frames, got {frames}")
        return frames // tubelet

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Embed pixels; returns tokens, and further arguments of every layer."""
        raise NotImplementedError

    def _layers(self) -> nn.ModuleList:
        return self.model.encoder.layer

    def _final_norm(self) -> nn.Module | None:
        return self.model.layernorm

    def _as_grid(self, tokens: torch.Tensor, clips: int, grid: tuple[int, int, int]) -> torch.Tensor:
        """Rearrange tokens to (B, T', H', W', D)."""
        t, y, x = grid
        return rearrange(tokens, "b (t y x) d -> b t y x d", t=t, y=y, x=x)


class VideoMAE(FrozenEncoder):
    """VideoMAE: a fixed table of positions, so it takes one number of frames and one size."""

    family, network = "videomae", "VideoMAEModel"

    def grid(self, frames: int, size: int) -> tuple[int, int, int]:
        expected_size, expected_frames = _side(self.config.image_size, self.source), int(self.config.num_frames)
        if frames != expected_frames:
            raise EncoderError(f"{self.source}: a VideoMAE for {expected_frames} frames, the clips have {frames}")
        given = self.resize or size
        if given != expected_size:
            raise EncoderError(
                f"{self.source}: a VideoMAE for {expected_size}x{expected_size}, not {given}x{given}; use "
                f"resize={expected_size}"
            )
        return super().grid(frames, size)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.model.embeddings(rearrange(pixels, "b c t h w -> b t c h w"), None), {}


class VJEPA2(FrozenEncoder):
    """V-JEPA 2: rotary positions, so it takes any number of patches."""

    family, network, unused = "vjepa2", "VJEPA2Model", ("predictor.",)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        tokens = self.model.encoder.embeddings(rearrange(pixels, "b c t h w -> b t c h w"))
        return tokens, {"position_mask": self._token_indices(grid).to(tokens.device)}

    def _token_indices(self, grid: tuple[int, int, int]) -> torch.Tensor:
        """(1, N) indices of the tokens in the grid of the configured crop size.

        transformers derives a token's frame, row and column from its index, assuming clips of the configured crop size;
        without this, smaller clips would get the positions of the crop's first rows.
        """
        side = int(self.config.crop_size) // self.patch
        if grid[1] > side:
            largest = side * self.patch
            raise EncoderError(f"{self.source}: takes at most {largest}x{largest} pixels; use resize={largest}")
        t, y, x = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
        return (t * side * side + y * side + x).flatten()[None]

    def _final_norm(self) -> nn.Module | None:
        return self.model.encoder.layernorm


class Images(FrozenEncoder):
    """Base class of image encoders: every frame is encoded separately, T' = T."""

    def _steps(self, frames: int) -> int:
        return frames

    def _as_grid(self, tokens: torch.Tensor, clips: int, grid: tuple[int, int, int]) -> torch.Tensor:
        t, y, x = grid
        return rearrange(tokens[:, -y * x :], "(b t) (y x) d -> b t y x d", t=t, y=y, x=x)


class DINOv2(Images):
    """DINOv2: a table of positions, interpolated to other sizes."""

    family, network, unused = "dinov2", "Dinov2Model", ("embeddings.mask_token",)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.model.embeddings(rearrange(pixels, "b c t h w -> (b t) c h w")), {}


class DINOv3(Images):
    """DINOv3: rotary positions relative to the image's edges."""

    family, network, unused = "dinov3_vit", "DINOv3ViTModel", ("embeddings.mask_token",)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        images = rearrange(pixels, "b c t h w -> (b t) c h w")
        positions = self.model.rope_embeddings(images)
        return self.model.embeddings(images), {"position_embeddings": positions}

    def _layers(self) -> nn.ModuleList:
        return self.model.model.layer

    def _final_norm(self) -> nn.Module | None:
        return self.model.norm


class CLIP(Images):
    """CLIP's image tower: a table of positions, interpolated to other sizes; patches pass no final norm.

    A folder with both towers works too. LLaVA reads the second-to-last layer.
    """

    family, network, unused = "clip", "CLIPVisionModel", ("post_layernorm.", "vision_model.post_layernorm.")
    pixels = (CLIP_MEAN, CLIP_DEVIATION)

    @property
    def _vision(self) -> Any:
        """The module that holds the parts: the model, or before transformers 5 one inside it."""
        return getattr(self.model, "vision_model", self.model)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        images = rearrange(pixels, "b c t h w -> (b t) c h w")
        tokens = self._vision.pre_layrnorm(self._vision.embeddings(images, interpolate_pos_encoding=True))
        return tokens, {"attention_mask": None}

    def _layers(self) -> nn.ModuleList:
        return self._vision.encoder.layers

    def _final_norm(self) -> nn.Module | None:
        return None


FAMILIES: dict[str, type[FrozenEncoder]] = {
    **{kind.family: kind for kind in (VideoMAE, VJEPA2, DINOv2, DINOv3, CLIP)},
    "clip_vision_model": CLIP,
}
"""By model_type of config.json."""


def _side(value: int | Sequence[int], source: str) -> int:
    """Read a side in pixels, given in a configuration as a number or a pair."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise EncoderError(f"{source}: config.json has sides {sorted(sides)}, only squares are supported")
    return int(sides.pop())
