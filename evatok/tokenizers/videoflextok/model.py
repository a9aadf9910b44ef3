"""VideoFlexTok: clips to any number of tokens per latent frame, and back by flow matching (arXiv 2604.12887).

The network works on latents, the tokenizer on clips, with a latent codec in between. Codes and lengths have the same
format as in every tokenizer here (`Codes`): lengths (B, T) are tokens per latent frame, and codes are packed frame by
frame.

Legend: B clips, F frames, T latent frames of h x w positions with C channels, P patches per frame of V values, K the
most tokens per frame, k those of the longest in a batch, D the decoder's width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from einops import rearrange
from torch import nn

from evatok.models.latents import LatentCodec, LatentError, PatchPCA, VidTok
from evatok.models.quantisers import Quantised, Quantiser
from evatok.models.trained import Trained
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok.config import FlexTokError, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.encoder import RegisterEncoder
from evatok.tokenizers.videoflextok.flow_decoder import Condition, FlowDecoder
from evatok.tokenizers.videoflextok.flow_matching import euler, guided, normalised_guided, seeded_noise
from evatok.tokenizers.videoflextok.order import kept_tokens

KIND = "videoflextok"


class FlexNetwork(nn.Module):
    """Encoder, quantiser and decoder: the trained parts of a tokenizer."""

    def __init__(self, config: VideoFlexTokConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = RegisterEncoder(config)
        self.quantiser = Quantiser(
            "fsq", config.codebook_size, encoder_width=config.encoder_width, decoder_width=config.decoder_width
        )
        self.decoder = FlowDecoder(config)

    def patchify(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, C) to (B, T, P, V). Raises FlexTokError for latents of another shape than the network's."""
        config = self.config
        high, wide = (side * config.patch for side in config.grid)
        expected = (config.blocks, high, wide, config.channels)
        if tuple(latents.shape[1:]) != expected:
            raise FlexTokError(f"latents must be (B, {', '.join(map(str, expected))}), got {tuple(latents.shape)}")
        return rearrange(latents, "b t (y p) (x q) c -> b t (y x) (p q c)", p=config.patch, q=config.patch)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, T, P, V) to (B, T, h, w, C)."""
        (high, wide), side = self.config.grid, self.config.patch
        return rearrange(patches, "b t (y x) (p q c) -> b t (y p) (x q) c", y=high, x=wide, p=side, q=side)

    def quantise(self, latents: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor, Quantised]:
        """Codes (B, T, k) of the first `tokens` tokens of each frame, their values (B, T, k, D), and the rest."""
        features = self.encoder(self.patchify(latents), tokens)
        found = self.quantiser(features.flatten(0, 2))
        shape = features.shape[:3]
        return found.codes.reshape(shape), self.padded(found.values.reshape(*shape, -1)), found

    def padded(self, values: torch.Tensor) -> torch.Tensor:
        """Pad values (B, T, k, D) to K tokens with mask tokens, as the decoder expects."""
        if self.config.drop == "truncate":
            return values
        return nn.functional.pad(values, (0, 0, 0, self.config.registers - values.shape[2]))

    def velocity(self, latents: torch.Tensor, sigma_B: torch.Tensor, condition: Condition) -> torch.Tensor:
        """(B, T, h, w, C) of noised latents (B, T, h, w, C)."""
        return self.unpatchify(self.decoder(self.patchify(latents), sigma_B, condition)[0])


class VideoFlexTok(Trained, nn.Module):
    """Clips (B, 3, F, H, W) in [0, 1] and lengths (B, T) to codes, and back with any number of flow steps."""

    KIND = KIND

    def __init__(self, codec: LatentCodec, network: FlexNetwork) -> None:
        super().__init__()
        self.codec, self.network = codec, network

    @property
    def config(self) -> VideoFlexTokConfig:
        return self.network.config

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Checkpoint, path: Path, *, codec: LatentCodec | Path | str | None = None, **parts: Any
    ) -> Self:
        """See `Trained.of_checkpoint`.

        Args:
            codec: the latent codec or the folder of VidTok's weights; a patch-pca codec is part of the checkpoint.

        Raises:
            LatentError: the codec is missing, or is not the one that the tokenizer was trained on.
        """
        config = VideoFlexTokConfig.from_dict(checkpoint.config)
        tokenizer = cls(_codec_of(config, codec, path), FlexNetwork(config), **parts)
        tokenizer.checkpoint = checkpoint
        return tokenizer

    def check_weights(self, path: Path) -> None:
        """Raise LatentError for a codec other than the one the tokenizer was trained on."""
        expected, given = self.config.codec_sha256, self.codec.identity()
        if given != expected:
            raise LatentError(
                f"{path}: trained on the latents of codec {expected[:12]}, this {self.codec.kind} is {given[:12]}; "
                "pass the codec it was trained on"
            )

    def lengths(self, tokens: int, clips: int) -> torch.Tensor:
        """Return (B, T) with `tokens` per latent frame. Raises FlexTokError for an unsupported length."""
        return self.checked(torch.full((clips, self.config.blocks), tokens))

    def checked(self, lengths: torch.Tensor, *, first_given: bool = False) -> torch.Tensor:
        """Return lengths (B, T) if they are valid for this tokenizer.

        0 is allowed for all frames of a clip (its sample is then unconditional), and for a given first frame.

        Raises:
            FlexTokError: another shape, not integers, below 0 or above K; for a grid, anything but K.
        """
        config = self.config
        if lengths.ndim != 2 or lengths.shape[1] != config.blocks or lengths.is_floating_point():
            raise FlexTokError(
                f"lengths must be integers (B, {config.blocks}), got {lengths.dtype} {tuple(lengths.shape)}"
            )
        if bool(((lengths < 0) | (lengths > config.registers)).any()):
            raise FlexTokError(f"lengths must lie between 0 and {config.registers}, got {lengths.unique().tolist()}")
        # The length of a given first frame does not matter.
        asked = lengths[:, 1:] if first_given and config.blocks > 1 else lengths
        if bool(((asked == 0).any(1) & (asked > 0).any(1)).any()):
            raise FlexTokError(
                "lengths must be 0 for all latent frames of a clip or for none; only a first latent frame that is "
                "given needs no tokens"
            )
        if config.form == "grid" and bool(((lengths > 0) & (lengths < config.registers)).any()):
            raise FlexTokError(
                f"a grid cannot be truncated: its lengths must be {config.registers} or 0 per latent frame"
            )
        return lengths

    @torch.no_grad()
    def encode(self, clips: torch.Tensor, lengths: torch.Tensor) -> Codes:
        """Encode clips under lengths (B, T), tokens per latent frame.

        Raises:
            FlexTokError: clips of another shape than the tokenizer's, or unsupported lengths.
        """
        self._check_clips(clips)
        self.checked(lengths)
        if len(lengths) != len(clips):
            raise FlexTokError(f"one row of lengths per clip is needed: {len(lengths)} for {len(clips)} clips")
        longest = max(1, int(lengths.max()))
        codes, _, _ = self.network.quantise(self.codec.encode(clips), longest)
        return pack(codes, lengths)

    @torch.no_grad()
    def decode(
        self,
        codes: Codes,
        *,
        steps: int = 20,
        guidance: float = 1.0,
        normalised: bool = True,
        seed: int = 0,
        indices: np.ndarray | None = None,
        first: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Decode to clips (B, 3, F, H, W), clamped to [0, 1]: one sample per clip.

        Args:
            steps: Euler steps; 1 gives the mean given the tokens, more give samples.
            guidance: above 1, velocities move away from those without tokens (paper: 15 to 30, normalised).
            normalised: adaptive projected guidance; False for plain classifier-free guidance.
            seed, indices: noise is drawn per clip from the seed and the clip's number, by default its place here.
            first: frames (B, 3, f, H, W) that the first latent frame codes, given clean (F.1); the decoder must
                have been trained for this (stage 2), and their own tokens are not used.

        Raises:
            FlexTokError: codes that do not match the lengths, or a first frame of another size.
            FlowError: fewer than one step, or a velocity that is not finite.
        """
        given = None if first is None else self._first_latents(first, len(codes.lengths))
        condition = self._condition(codes, given is not None)
        indices = np.arange(len(codes.lengths)) if indices is None else indices
        noise = seeded_noise(self._latent_shape, seed, indices).to(condition.values.device)

        def hold(x: torch.Tensor) -> torch.Tensor:
            return x if given is None else torch.cat((given.to(x), x[:, 1:]), dim=1)

        latents = euler(self._velocity(condition, guidance, normalised), noise, steps, hold)
        return self.codec.decode(latents, self.config.frames).clamp(0, 1)

    @property
    def _latent_shape(self) -> tuple[int, int, int, int]:
        config = self.config
        high, wide = (side * config.patch for side in config.grid)
        return config.blocks, high, wide, config.channels

    def _condition(self, codes: Codes, first_given: bool) -> Condition:
        lengths = self.checked(codes.lengths, first_given=first_given)
        if first_given and lengths.shape[1] > 1:
            # A given frame's tokens are replaced, whatever they are; there are as many as in the other frames.
            filled = lengths.clone()
            filled[:, 0] = torch.where(lengths[:, 0] == 0, lengths[:, 1], lengths[:, 0])
        else:
            filled = lengths
        grid = unpack(codes, filled)
        device = next(self.network.parameters()).device
        values = self.network.padded(self.network.quantiser.lookup(grid.to(device)))
        null, given = (filled.sum(1) == 0).to(device), torch.ones(len(filled), dtype=torch.bool, device=device)
        return Condition(values, filled.to(device), null if bool(null.any()) else None, given if first_given else None)

    def _velocity(
        self, condition: Condition, guidance: float, normalised: bool
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The guided velocity: the network's, moved away from its own without tokens."""
        if guidance == 1.0:
            return lambda x, sigma: self.network.velocity(x, sigma, condition)
        without, combine = condition.without_tokens(), normalised_guided if normalised else guided

        def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            ours = self.network.velocity(x, sigma, condition)
            return combine(ours.float(), self.network.velocity(x, sigma, without).float(), guidance)

        return velocity

    def _first_latents(self, first: torch.Tensor, clips: int) -> torch.Tensor:
        """(B, 1, h, w, C) of the frames that the first latent frame codes."""
        config = self.config
        expected = (clips, 3, config.first_frames, config.size, config.size)
        if tuple(first.shape) != expected:
            raise FlexTokError(f"the first frames must be {expected}, got {tuple(first.shape)}")
        return self.codec.encode(first)

    def _check_clips(self, clips: torch.Tensor) -> None:
        config = self.config
        expected = (3, config.frames, config.size, config.size)
        if tuple(clips.shape[1:]) != expected:
            raise FlexTokError(f"clips must be (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")


def pack(grid: torch.Tensor, lengths: torch.Tensor) -> Codes:
    """Pack the codes of a grid (B, T, k) to the left, frame by frame; padding is 0."""
    lengths = lengths.to(grid.device)
    kept = kept_tokens(lengths, grid.shape[2])
    totals = lengths.sum(1)
    packed = grid.new_zeros(len(grid), int(totals.max()))
    packed[torch.arange(packed.shape[1], device=grid.device) < totals[:, None]] = grid[kept]
    return Codes(packed, lengths)


def unpack(codes: Codes, filled: torch.Tensor) -> torch.Tensor:
    """Unpack codes into a grid (B, T, k), k at least 1, with 0 where a frame has none.

    Args:
        filled: (B, T) lengths of the grid: those of `codes`, or more where frames have no codes.

    Raises:
        FlexTokError: another number of codes than the lengths ask for.
    """
    lengths = codes.lengths
    totals = lengths.sum(1)
    if tuple(codes.codes.shape) != (len(lengths), int(totals.max())):
        raise FlexTokError(f"{tuple(codes.codes.shape)} codes, the lengths ask for {(len(lengths), int(totals.max()))}")
    grid = codes.codes.new_zeros(*lengths.shape, max(1, int(filled.max())))
    valid = torch.arange(codes.codes.shape[1], device=lengths.device) < totals[:, None]
    grid[kept_tokens(lengths, grid.shape[2])] = codes.codes[valid]
    return grid


def _codec_of(config: VideoFlexTokConfig, codec: LatentCodec | Path | str | None, path: Path) -> LatentCodec:
    if isinstance(codec, LatentCodec):
        return codec
    if config.codec == PatchPCA.kind:
        if codec is not None:
            raise LatentError(f"{path}: its patch-pca codec is in the checkpoint; do not pass another")
        return PatchPCA(config.channels)
    if codec is None:
        raise LatentError(f"{path}: trained on {config.codec} latents; pass the folder of its weights as codec")
    return VidTok.load(codec)
