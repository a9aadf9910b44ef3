"""Discriminators: map a clip to logits, positive where it looks real (EVATok Secs. 3.1 and 3.4).

`TransformerDiscriminator` is trained from scratch on pixels, as in LARP; `SemanticDiscriminator` trains small heads
on features of a frozen encoder, of videos as the paper's or of images as those of StyleGAN-T (arXiv 2301.09515) and
GigaTok.

Legend: B clips, K temporal blocks, N patches, D width, L features per clip, X logits per clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, repeat
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from evatok.errors import EvatokError
from evatok.routing.networks import RouterLayer
from evatok.storage import pieces, ranks
from evatok.tokenizers.initialise import sine_cosine

if TYPE_CHECKING:
    from evatok.models.encoders import FrozenEncoder


class DiscriminatorError(EvatokError, ValueError):
    """Options, clips or weights that do not fit a discriminator."""


@dataclass(frozen=True)
class TransformerDiscriminatorConfig:
    """Shape of a discriminator; the defaults are LARP's reproduction script. `patch` is (frames, height, width)."""

    frames: int = 16
    size: int = 128
    patch: tuple[int, int, int] = (4, 8, 8)
    width: int = 512
    layers: int = 12
    heads: int = 8

    def __post_init__(self) -> None:
        clip = (self.frames, self.size, self.size)
        if any(side % step for side, step in zip(clip, self.patch, strict=True)):
            raise DiscriminatorError(
                f"clips of {clip} (frames, height, width) cannot be tiled with patches of {self.patch}"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches of a clip, (blocks, rows, columns)."""
        return self.frames // self.patch[0], self.size // self.patch[1], self.size // self.patch[2]


TRANSFORMER_SIZES: dict[str, TransformerDiscriminatorConfig] = {
    "toy": TransformerDiscriminatorConfig(size=64, patch=(4, 16, 16), width=128, layers=3, heads=4),
    "small": TransformerDiscriminatorConfig(width=256, layers=6, heads=4),
    "paper": TransformerDiscriminatorConfig(),
}


class TransformerDiscriminator(nn.Module):
    """Map clips (B, 3, T, H, W) in [0, 1] to one logit each (B,), read from a CLS token.

    EVATok calls it a "transformer PatchGAN as in LARP"; in LARP, patches enter the transformer but a clip gets one
    logit. The `paper` size has 38,224,385 parameters; positions are fixed sine-cosine encodings, as in LARP.
    """

    position: torch.Tensor

    def __init__(self, config: TransformerDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Linear(3 * prod(config.patch), config.width)
        # Large enough not to be drowned by the positions.
        nn.init.xavier_uniform_(self.patch_embedding.weight)
        self.cls = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        blocks, *plane = config.grid
        position = sine_cosine(blocks, (plane[0], plane[1]), config.width)
        self.register_buffer("position", position.flatten(0, 1), persistent=False)
        self.layers = nn.ModuleList(RouterLayer(config.width, config.heads, 0.0) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (B,), float32.

        Raises:
            DiscriminatorError: the clips do not have the configured shape.
        """
        expected = (3, self.config.frames, self.config.size, self.config.size)
        if tuple(clips.shape[1:]) != expected:
            raise DiscriminatorError(
                f"the discriminator takes clips (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}"
            )
        t, h, w = self.config.patch
        patches = rearrange(2 * clips - 1, "b c (k t) (y h) (x w) -> b (k y x) (c t h w)", t=t, h=h, w=w)
        x_BND = self.patch_embedding(patches) + self.position
        x_BND = torch.cat((repeat(self.cls, "1 1 d -> b 1 d", b=len(clips)).to(x_BND.dtype), x_BND), dim=1)
        for layer in self.layers:
            x_BND = layer(x_BND)
        return self.head(self.norm(x_BND[:, 0]))[:, 0].float()


class SemanticDiscriminator(nn.Module):
    """Map clips (B, 3, T, H, W) in [0, 1] to logits (B, X), one for each feature of each listed layer.

    A head per layer, as wide as the layer, reads the frozen encoder's features of that layer as a sequence. Gradients
    reach the clips through the encoder; only the heads are trained. The encoder is not a sub-module: it stays in eval
    mode and out of parameters and state, which only holds its hash.

    Args:
        layers: of the encoder: 0 is its embedding, 1 to `depth` its layers.
        kernel: width of the heads' convolutions (StyleGAN-T, GigaTok: 9); odd.

    Raises:
        DiscriminatorError: a layer out of range, or an even kernel.
    """

    def __init__(self, encoder: FrozenEncoder, layers: Sequence[int], kernel: int = 9) -> None:
        super().__init__()
        if not layers or any(not 0 <= layer <= encoder.depth for layer in layers):
            raise DiscriminatorError(f"layers must be between 0 and {encoder.depth}, got {list(layers)}")
        if kernel % 2 == 0:
            raise DiscriminatorError(f"the heads' kernel must be odd, got {kernel}")
        # In a tuple, so that nn.Module does not register it as a sub-module.
        self._outside = (encoder.requires_grad_(False).eval(),)
        self.layers = tuple(layers)
        self.heads = nn.ModuleList(SemanticHead(encoder.width_of(layer), kernel) for layer in layers)

    @property
    def encoder(self) -> FrozenEncoder:
        return self._outside[0]

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        features = self.encoder(clips, self.layers)
        sequences = [rearrange(f, "b t h w d -> b d (t h w)") for f in features]
        logits = [head(x_BDL) for head, x_BDL in zip(self.heads, sequences, strict=True)]
        return torch.cat(logits, dim=1).float()

    def get_extra_state(self) -> dict[str, str]:
        return {"encoder": self.encoder.weights_sha256}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Check that the heads in a state were trained on this encoder.

        Raises:
            DiscriminatorError: they were trained on another one.
        """
        current, trained_on = self.encoder.weights_sha256, state["encoder"]
        if current != trained_on:
            raise DiscriminatorError(
                f"these heads were trained on encoder {trained_on[:12]}, not on {current[:12]}: load that one"
            )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SemanticDiscriminator:
        """Move the encoder along with the heads."""
        self.encoder._apply(fn)
        return super()._apply(fn, recurse)


class SemanticHead(nn.Module):
    """Map features (B, D, L) to logits (B, L): a pointwise block, a residual wide block, a pointwise projection."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.enter = _block(width, 1)
        self.mix = _block(width, kernel)
        self.logit = spectral_norm(SpectralConvolution(width, 1, 1))

    def forward(self, x_BDL: torch.Tensor) -> torch.Tensor:
        if x_BDL.shape[-1] < self.reach:
            raise DiscriminatorError(
                f"{x_BDL.shape[-1]} features per clip are fewer than the kernel's reach of {self.reach}"
            )
        x_BDL = self.enter(x_BDL)
        x_BDL = (x_BDL + self.mix(x_BDL)) / sqrt(2)
        return self.logit(x_BDL)[:, 0]


class SpectralConvolution(nn.Conv1d):
    """A circular 1D convolution that keeps the length, to be wrapped in `spectral_norm`."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, padding_mode="circular")

    def forward(self, x_BDL: torch.Tensor) -> torch.Tensor:
        # The power iteration behind `weight` is kept in float32: in bfloat16 the norm would drift.
        with torch.autocast(x_BDL.device.type, enabled=False):
            weight = self.weight
        return self._conv_forward(x_BDL, weight, self.bias)


class VirtualBatchNorm(nn.Module):
    """Batch norm of (B, D, L) over virtual batches of at most 8 clips, always by their own statistics.

    A batch is split into the fewest nearly equal virtual batches. Without running statistics, scale and shift are the
    only state, and real and reconstructed clips never mix.
    """

    CLIPS = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width, 1))
        self.shift = nn.Parameter(torch.zeros(width, 1))

    def forward(self, x_BDL: torch.Tensor) -> torch.Tensor:
        if ranks.parts() > 1 and not pieces.current():  # pieces hold whole virtual batches (`pieces_fit`)
            return _standardise_over_ranks(x_BDL.float(), self.CLIPS) * self.scale + self.shift
        parts = x_BDL.float().tensor_split(-(-len(x_BDL) // self.CLIPS))
        return torch.cat([_standardise(part) for part in parts]) * self.scale + self.shift


def pieces_fit(batch: int, parts: int) -> bool:
    """Whether no virtual batch spans two of the parts a global batch is computed in."""
    return parts == 1 or (batch % VirtualBatchNorm.CLIPS == 0 and batch // parts % VirtualBatchNorm.CLIPS == 0)


def _standardise(x_BDL: torch.Tensor) -> torch.Tensor:
    variance, mean = torch.var_mean(x_BDL, dim=(0, 2), correction=0, keepdim=True)
    return (x_BDL - mean) * (variance + 1e-5).rsqrt()


def _standardise_over_ranks(x_BDL: torch.Tensor, most: int) -> torch.Tensor:
    """Standardise a rank's part of a batch, whose virtual batches (V of them) may span several ranks."""
    clips = ranks.whole(len(x_BDL))
    parts = torch.arange(clips).tensor_split(-(-clips // most))
    of_B = torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])
    mine_BV = torch.nn.functional.one_hot(ranks.share(of_B), len(parts)).to(x_BDL)
    count_V = ranks.total(mine_BV.sum(0)) * x_BDL.shape[2]
    mean_BD = mine_BV @ (ranks.total(mine_BV.T @ x_BDL.sum(2)) / count_V[:, None])
    centred = x_BDL - mean_BD[:, :, None]
    variance_BD = mine_BV @ (ranks.total(mine_BV.T @ centred.square().sum(2)) / count_V[:, None])
    return centred * (variance_BD[:, :, None] + 1e-5).rsqrt()


def _block(width: int, kernel: int) -> nn.Sequential:
    convolution = spectral_norm(SpectralConvolution(width, width, kernel))
    return nn.Sequential(convolution, VirtualBatchNorm(width), nn.LeakyReLU(0.2))
