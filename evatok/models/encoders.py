"""Frozen vision encoders as features of clips: VideoMAE, V-JEPA 2, DINOv2 and DINOv3, from transformers' folders.

The final tokenizer meets two of them (EVATok Sec. 3.4): its decoder's features are aligned to one, and another,
under trainable heads, is its discriminator. An encoder here has one shape of answer whatever its family: grids
(B, T', H', W', width), without class or register tokens. Its weights never change, yet gradients reach the clips.

Legend: B clips, T frames of H x W pixels, N tokens, D the encoder's width.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from einops import rearrange
from torch import nn

from evatok.errors import EvatokError
from evatok.storage import checksums

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_CONFIG = "config.json"
_PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
_WEIGHTS = "model*.safetensors"
_TOY = "python -m evatok.experiments.pretrain_videomae with toy"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class EncoderError(EvatokError, ValueError):
    """An encoder that cannot be had, or clips and layers that it cannot serve."""


class FrozenEncoder(nn.Module):
    """A frozen vision encoder as features of clips; differentiable with respect to the clips.

    Attributes:
        width: D, numbers in a feature.
        depth: transformer layers.
        source: the folder or hub name it was loaded from.
        weights_sha256: hash of the weight files, for records.
        resize: side in pixels to which clips are resized first, or None.
    """

    family: ClassVar[str]
    network: ClassVar[str]  # transformers' class
    unused: ClassVar[tuple[str, ...]] = ()  # weights that features do not need
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
        """Stays in evaluation mode, whatever module it is part of."""
        return super().train(False)

    def grid(self, frames: int, size: int) -> tuple[int, int, int]:
        """(T', H', W') of the features of clips of `frames` frames of `size` x `size` pixels.

        Raises:
            EncoderError: clips this encoder cannot take.
        """
        side = self.resize or size
        tall = self._patches(side)
        return self._steps(frames), tall, tall

    def forward(self, clips: torch.Tensor, layers: Sequence[int]) -> list[torch.Tensor]:
        """Features (B, T', H', W', D) of clips (B, 3, T, H, W) in [0, 1], one tensor for each of `layers`.

        Layer 0 is the embedding with its positions, layers 1 to `depth` are the transformer's; the last one's
        output is passed through the encoder's final norm where it has one, and so is what the encoder hands on.
        Layers beyond the deepest one asked for are not computed.

        Raises:
            EncoderError: clips or layers this encoder does not have.
        """
        self._check_layers(layers)
        if clips.ndim != 5 or clips.shape[1] != 3 or clips.shape[3] != clips.shape[4]:
            raise EncoderError(f"{self.source}: clips must be square, (B, 3, T, S, S), got {tuple(clips.shape)}")
        grid = self.grid(clips.shape[2], clips.shape[3])
        found = self._outputs(self._standardised(clips), grid, max(layers))
        return [self._as_grid(found[layer], len(clips), grid) for layer in layers]

    def _check_layers(self, layers: Sequence[int]) -> None:
        odd = [layer for layer in layers if not 0 <= layer <= self.depth]
        if odd or not layers:
            asked = f"layer {odd[0]}" if odd else "no layer"
            raise EncoderError(f"{self.source}: {asked} asked for, it has 0 (the embedding) to {self.depth}")

    def _standardised(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips at the encoder's size, with the mean and deviation of the pixels it was trained on."""
        if self.resize and self.resize != clips.shape[-1]:
            frames = rearrange(clips, "b c t h w -> (b t) c h w")
            side = (self.resize, self.resize)
            frames = nn.functional.interpolate(frames, side, mode="bilinear", align_corners=False, antialias=True)
            clips = rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips))
        return (clips - self.mean) / self.deviation

    def _outputs(self, pixels: torch.Tensor, grid: tuple[int, int, int], deepest: int) -> list[torch.Tensor]:
        """Outputs of the layers 0 to `deepest`."""
        x_BND, arguments = self._embed(pixels, grid)
        outputs = [x_BND]
        for layer in self._layers()[:deepest]:
            answer = layer(outputs[-1], **arguments)
            outputs.append(answer[0] if isinstance(answer, tuple) else answer)
        norm = self._final_norm()
        if deepest == self.depth and norm is not None:
            outputs[-1] = norm(outputs[-1])
        return outputs

    def _patches(self, side: int) -> int:
        """Patches along a side of `side` pixels."""
        if side % self.patch:
            near = max(self.patch, side // self.patch * self.patch)
            raise EncoderError(
                f"{self.source}: patches of {self.patch} pixels do not tile {side}x{side}; load it with resize={near}"
            )
        return side // self.patch

    def _steps(self, frames: int) -> int:
        """T' of clips of `frames` frames."""
        tubelet = int(self.config.tubelet_size)
        if frames < tubelet or frames % tubelet:
            raise EncoderError(f"{self.source}: takes a multiple of {tubelet} frames, got {frames}")
        return frames // tubelet

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Embedded tokens, and what every layer must be told besides them."""
        raise NotImplementedError

    def _layers(self) -> nn.ModuleList:
        return self.model.encoder.layer

    def _final_norm(self) -> nn.Module | None:
        return self.model.layernorm

    def _as_grid(self, tokens: torch.Tensor, clips: int, grid: tuple[int, int, int]) -> torch.Tensor:
        """Tokens -> (B, T', H', W', D)."""
        t, y, x = grid
        return rearrange(tokens, "b (t y x) d -> b t y x d", t=t, y=y, x=x)


class VideoMAE(FrozenEncoder):
    """VideoMAE: a table of fixed positions, so one number of frames and one size."""

    family, network = "videomae", "VideoMAEModel"

    def grid(self, frames: int, size: int) -> tuple[int, int, int]:
        own, takes = _side(self.config.image_size, self.source), int(self.config.num_frames)
        if frames != takes:
            raise EncoderError(f"{self.source}: a VideoMAE for {takes} frames, the clips have {frames}")
        if (self.resize or size) != own:
            given = self.resize or size
            raise EncoderError(f"{self.source}: a VideoMAE for {own}x{own}, not {given}x{given}; use resize={own}")
        return super().grid(frames, size)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.model.embeddings(rearrange(pixels, "b c t h w -> b t c h w"), None), {}


class VJEPA2(FrozenEncoder):
    """V-JEPA 2: rotary positions, so any number of patches."""

    family, network, unused = "vjepa2", "VJEPA2Model", ("predictor.",)

    def _embed(self, pixels: torch.Tensor, grid: tuple[int, int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        tokens = self.model.encoder.embeddings(rearrange(pixels, "b c t h w -> b t c h w"))
        return tokens, {"position_mask": self._places(grid).to(tokens.device)}

    def _places(self, grid: tuple[int, int, int]) -> torch.Tensor:
        """(1, N) numbers of the tokens in the grid of the configured crop size.

        transformers reads a token's frame, row and column off its number, always as if clips had the crop size
        of the configuration; without this, smaller clips would get the positions of the crop's first rows.
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
    """Encoders of images: every frame on its own, T' = T."""

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


FAMILIES: dict[str, type[FrozenEncoder]] = {kind.family: kind for kind in (VideoMAE, VJEPA2, DINOv2, DINOv3)}


def load_encoder(source: str | Path, *, resize: int | None = None) -> FrozenEncoder:
    """An encoder in float32 from a local folder in transformers' format, or from the hub by its name.

    Args:
        source: a folder with config.json and safetensors weights, or "owner/name" (from the hub's cache if there).
        resize: side in pixels to which clips are resized (bilinear) first; None feeds them as they are.

    Raises:
        EncoderError: weights that are absent, damaged, incomplete or of a family not known here.
    """
    source = str(source)
    folder = _folder(source)
    family = FAMILIES[_model_type(folder, source)]
    files = sorted(folder.glob(_WEIGHTS))
    if not files:
        raise EncoderError(f"{source}: no {_WEIGHTS} beside {_CONFIG}; put the weights there ({_TOY} makes toy ones)")
    try:
        checksums.check(folder)
    except checksums.ChecksumError as error:
        raise EncoderError(str(error)) from error
    model = _network(family, folder, source)
    return family(model, source=source, weights_sha256=_sha256(files), resize=resize, **_pixels(folder, source))


def _folder(source: str) -> Path:
    """Where the encoder's files lie, fetched from the hub if need be."""
    if Path(source).is_dir():
        return Path(source)
    told = f"{source}: no such encoder; put a folder with {_CONFIG} and safetensors there, or make the toy one: {_TOY}"
    if not _HUB_NAME.fullmatch(source):
        raise EncoderError(told)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [_CONFIG, *_PREPROCESSORS, _WEIGHTS]
    try:
        return Path(snapshot_download(source, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(f"{told} (nor had from the hub: {type(error).__name__})") from error


def _model_type(folder: Path, source: str) -> str:
    kind = _json(folder / _CONFIG, source).get("model_type")
    if kind not in FAMILIES:
        raise EncoderError(f"{source}: {_CONFIG} says model_type {kind!r}, known ones are {', '.join(FAMILIES)}")
    return str(kind)


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{source}: {path.name} is missing or not JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise EncoderError(f"{source}: {path.name} is not a JSON object")
    return found


def _pixels(folder: Path, source: str) -> dict[str, Sequence[float]]:
    """Mean and deviation of the pixels the encoder was trained on, where its folder tells; all families' default
    is ImageNet's."""
    told: dict[str, Any] = {}
    for name in _PREPROCESSORS:
        if (folder / name).exists():
            told |= _json(folder / name, source)
    return {
        "mean": told.get("image_mean", IMAGENET_MEAN),
        "deviation": told.get("image_std", IMAGENET_DEVIATION),
    }


def _network(family: type[FrozenEncoder], folder: Path, source: str) -> Any:
    """transformers' model with every weight that features need."""
    import transformers

    network = getattr(transformers, family.network)
    try:
        with quiet():
            model, info = network.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # whatever the format's readers raise, it is the folder's fault
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(f"{source}: its weights cannot be read ({reason}); fetch or make them again") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(family.unused))
    if missing:
        # transformers would go on with random numbers in their place.
        raise EncoderError(f"{source}: {len(missing)} weights are missing, {missing[0]} first; fetch it again, whole")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its bars, and without reports of surplus weights, such as a pre-training's decoder."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _side(value: int | Sequence[int], source: str) -> int:
    """A side in pixels that a configuration tells as a number or a pair."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise EncoderError(f"{source}: {_CONFIG} tells of sides {sorted(sides)}, only squares are supported")
    return int(sides.pop())


def _sha256(files: Sequence[Path]) -> str:
    """Hash of the weight files' content, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
