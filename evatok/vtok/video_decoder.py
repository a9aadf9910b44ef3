"""The frozen video decoder: noise to clips by rectified flow, conditioned on visual tokens and a caption (Eq. 11).

It plays HunyuanVideo's role: one decoder for all strategies, trained once on true tokens and captions with conditions
dropped at random, then frozen, so that rows of a table differ only in their tokens. Conditions are a sequence that
every layer attends to: the caption's words after a small encoder, the tokens, and one that is always present. Latents
are principal components of 4 x 8 x 8 pixels; a clip whose number of frames is not a multiple of 4 is padded with copies
of its last frame, which are cropped after decoding.

Legend: B clips, F frames, T x P patches of latents with V values each, M conditions, W words, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.data.embedded.scene_text import vocabulary
from evatok.errors import EvatokError
from evatok.models.attention import Attention
from evatok.models.latents import PatchPCA
from evatok.models.trained import Trained
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.videoflextok.blocks import GatedMLP, NoiseLevel, SelfAttention, norm
from evatok.tokenizers.videoflextok.flow_matching import euler, guided, seeded_noise
from evatok.vtok.captions import LONGEST, PADDING, trimmed
from evatok.vtok.language_model import Layer
from evatok.vtok.strategies import Strategy
from evatok.vtok.token_codes import SPATIAL, TokenCoder, motion_kind, widths
from evatok.vtok.tokens import CELLS, MOMENTS, RawTokens, mlp, placed

_LEAST = 0.05  # noise level below which a velocity is divided no further: that of the last of 20 steps


class VideoDecoderError(EvatokError, ValueError):
    """Clips, captions or tokens the decoder does not accept."""


@dataclass(frozen=True)
class VideoDecoderConfig:
    """Shape of a decoder: clips of `frames` and `size` pixels, `channels` C of the image encoder's features.

    `latents` is the number of components kept of 4 x 8 x 8 pixels, `patch` the patch's side in latent positions.
    """

    frames: int = 31
    size: int = 64
    channels: int = 64
    latents: int = 64
    patch: int = 2
    width: int = 128
    layers: int = 6
    heads: int = 4
    text_layers: int = 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def padded(self) -> int:
        """Number of frames including padding copies of the last one."""
        return -(-self.frames // PatchPCA.stride[0]) * PatchPCA.stride[0]

    @property
    def grid(self) -> tuple[int, int]:
        """T latent frames and the patches along a side of each."""
        return self.padded // PatchPCA.stride[0], self.size // (PatchPCA.stride[1] * self.patch)


class Block(nn.Module):
    """Self-attention, attention to the conditions, gated MLP; the noise level shifts, scales and gates each norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.cross = SelfAttention(width, heads), Attention(width, heads)
        self.mlp = GatedMLP(width)
        self.modulation = nn.Linear(width, 9 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x_BND: torch.Tensor, level_BD: torch.Tensor, sequence_BMD: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        memory = self.cross.keys_values(sequence_BMD)
        shifts = self.modulation(F.silu(level_BD))[:, None].chunk(9, -1)
        parts: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
            lambda x: self.attention(x, None),
            lambda x: self.cross(x, memory, mask),
            self.mlp,
        )
        for number, part in enumerate(parts):
            shift, scale, gate = shifts[3 * number : 3 * number + 3]
            x_BND = x_BND + gate * part(norm(x_BND) * (1 + scale) + shift)
        return x_BND


class Conditions(nn.Module):
    """Captions and raw tokens of any strategy to a sequence (B, M, D) and its mask (B, M)."""

    def __init__(self, config: VideoDecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.empty = nn.Parameter(0.02 * torch.randn(width))
        self.words = nn.Embedding(len(vocabulary()), width)
        self.positions = nn.Parameter(0.02 * torch.randn(LONGEST, width))
        self.text = nn.ModuleList(Layer(width, config.heads) for _ in range(config.text_layers))
        self.projectors = nn.ModuleDict({kind: mlp(inputs, width) for kind, inputs in widths(config.channels).items()})
        self.cells = nn.Parameter(0.5 * torch.randn(CELLS, CELLS, width))
        self.moments = nn.Parameter(0.5 * torch.randn(MOMENTS, width))
        self.kinds = nn.ParameterDict({kind: 0.5 * torch.randn(2, width) for kind in ("text", *self.projectors)})

    def forward(
        self, captions_BW: torch.Tensor, raw: RawTokens, strategy: Strategy, kept: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`kept`: (B,) clips whose caption is used, and (B,) those whose tokens are."""
        kind = motion_kind(strategy)
        visual = torch.cat([self.projectors[SPATIAL](raw.spatial), self.projectors[kind](raw.motion)], 1)
        visual = visual + placed(strategy, raw.frames, self.cells, self.moments, self.kinds[kind])
        captions_BW = trimmed(captions_BW)
        said = captions_BW != PADDING
        text = self.words(captions_BW.clamp_min(0)) + self.positions[: captions_BW.shape[1]]
        for layer in self.text:
            text = layer(text, said[:, None, None])
        empty = self.empty.expand(len(visual), 1, -1)
        there = torch.ones_like(said[:, :1])
        shown = kept[1][:, None].expand(-1, visual.shape[1])
        sequence = torch.cat([empty, text + self.kinds["text"][0], visual], 1)
        return sequence, torch.cat([there, said & kept[0][:, None], shown], 1)


class VideoDecoder(Trained, nn.Module):
    """Raw tokens and captions to clips; holds the coder of the tokens it was trained with."""

    KIND = "vtok_decoder"

    def __init__(self, config: VideoDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, (frames, side) = config.width, config.grid
        self.codec = PatchPCA(config.latents)
        self.coder = TokenCoder(config.channels)
        self.conditions = Conditions(config)
        values = config.latents * config.patch**2
        self.embedding = nn.Linear(values, width)
        self.places = nn.Parameter(0.02 * torch.randn(frames * side * side, width))
        self.noise_level = NoiseLevel(width)
        self.layers = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.last_modulation = nn.Linear(width, 2 * width)
        self.to_latents = nn.Linear(width, values)
        for linear in (self.last_modulation, self.to_latents):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        """See `Trained.of_checkpoint`. Raises VideoDecoderError for a checkpoint of another vocabulary."""
        if checkpoint.facts.get("vocabulary") != list(vocabulary()):
            raise VideoDecoderError(f"{path}: its vocabulary is not the current one of moving-shapes; train it again")
        decoder = cls(checkpoints.shaped(VideoDecoderConfig, checkpoint.config), **parts)
        decoder.checkpoint = checkpoint
        return decoder

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, T P, V) latents of clips (B, 3, F, H, W) in [0, 1]. Raises VideoDecoderError for another shape."""
        config = self.config
        if tuple(clips.shape[1:]) != (3, config.frames, config.size, config.size):
            raise VideoDecoderError(
                f"clips must be (B, 3, {config.frames}, {config.size}, {config.size}), got {tuple(clips.shape)}"
            )
        return self.patches(self.codec.encode(filled(clips, config.padded)))

    def patches(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, T P, V) of latents (B, T, h, w, C)."""
        side = self.config.patch
        return rearrange(latents, "b t (y p) (x q) c -> b (t y x) (p q c)", p=side, q=side)

    def clips(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, 3, F, H, W) in [0, 1] of latents (B, T P, V)."""
        (frames, side), patch = self.config.grid, self.config.patch
        shape = {"t": frames, "y": side, "x": side, "p": patch, "q": patch}
        latents = rearrange(patches, "b (t y x) (p q c) -> b t (y p) (x q) c", **shape)
        return self.codec.decode(latents, self.config.padded)[:, :, : self.config.frames].clamp(0, 1)

    def velocity(
        self, noised: torch.Tensor, sigma_B: torch.Tensor, conditions: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """(B, T P, V) of noised latents (B, T P, V) at noise levels (B,), under what `Conditions` gives.

        The layers predict the latents themselves, from which the velocity follows: noise has more dimensions than a
        narrow network can carry through.
        """
        sequence, there = conditions
        x = self.embedding(noised) + self.places
        level, mask = self.noise_level(sigma_B), there[:, None, None]
        for layer in self.layers:
            x = layer(x, level, sequence, mask)
        shift, scale = self.last_modulation(F.silu(level))[:, None].chunk(2, -1)
        clean = self.to_latents(norm(x) * (1 + scale) + shift)
        return (noised - clean) / sigma_B.clamp_min(_LEAST)[:, None, None]

    @torch.no_grad()
    def sample(
        self,
        captions_BW: torch.Tensor,
        raw: RawTokens,
        strategy: Strategy,
        *,
        indices: np.ndarray,
        text: bool = True,
        steps: int = 20,
        guidance: float = 1.0,
        seed: int = 0,
    ) -> torch.Tensor:
        """Sample clips (B, 3, F, H, W) in [0, 1], one per caption.

        Args:
            indices: (B,) numbers of the clips: noise is drawn from the seed and a clip's number.
            text: whether the decoder sees the captions besides the tokens.
            steps: Euler steps.
            guidance: above 1, velocities move away from those without conditions.

        Raises:
            VideoDecoderError: different numbers of captions and of token sequences.
            FlowError: fewer than one step, or a velocity that is not finite.
        """
        if not len(captions_BW) == len(raw.spatial) == len(indices):
            raise VideoDecoderError(
                f"one caption, one number and tokens a clip are needed, got {len(captions_BW)}, {len(indices)} and "
                f"{len(raw.spatial)}"
            )
        everywhere = torch.ones(len(indices), dtype=torch.bool, device=captions_BW.device)
        given = self.conditions(captions_BW, raw, strategy, (everywhere & text, everywhere))
        without = (given[0], given[1] & (torch.arange(given[1].shape[1], device=everywhere.device) == 0))

        def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            ours = self.velocity(x, sigma, given)
            return ours if guidance == 1 else guided(ours, self.velocity(x, sigma, without), guidance)

        noise = seeded_noise(self._shape, seed, indices).to(everywhere.device)
        return self.clips(euler(velocity, noise, steps))

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.places), self.to_latents.out_features


def filled(clips: torch.Tensor, frames: int) -> torch.Tensor:
    """Pad clips (B, 3, F, H, W) with copies of the last frame up to `frames`."""
    return torch.cat([clips, clips[:, :, -1:].expand(-1, -1, frames - clips.shape[2], -1, -1)], 2)
