"""The contract of a latent codec: clips to latent frames and back, at a stride of (4, 8, 8).

Legend: B clips, F frames of H x W pixels, T latent frames of h x w positions, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from evatok.errors import EvatokError


class LatentError(EvatokError, ValueError):
    """Clips or latents a codec does not support, or a codec whose weights are unusable."""


class LatentCodec(nn.Module):
    """Clips (B, 3, F, H, W) in [0, 1] to latents (B, T, h, w, C) and back.

    A clip has 4T frames, four per latent frame, or 4T - 3: then the first latent frame codes only the first frame,
    as a causal video autoencoder does. Latents are scaled for a flow model, to a mean square of about 1.

    Attributes:
        kind: name of the codec in a tokenizer's configuration.
        channels: C.
        stride: (frames, rows, columns) of pixels per latent position.
    """

    kind: str = ""
    channels: int
    stride: tuple[int, int, int] = (4, 8, 8)

    @torch.no_grad()
    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode to (B, T, h, w, C) float32. Raises LatentError for clips whose shape the stride does not divide."""
        self.check_clips(clips)
        return self._encode(clips)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, frames: int) -> torch.Tensor:
        """Decode to clips (B, 3, `frames`, H, W), not clamped. Raises LatentError for latents of another shape."""
        if latents.ndim != 5 or latents.shape[-1] != self.channels:
            raise LatentError(f"latents must be (B, T, h, w, {self.channels}), got {tuple(latents.shape)}")
        if latent_frames(frames, self.stride[0]) != latents.shape[1]:
            held, every = latents.shape[1], self.stride[0]
            raise LatentError(
                f"{held} latent frames decode to {every * held} frames, or to {every * (held - 1) + 1} with a causal "
                f"first frame; {frames} requested"
            )
        return self._decode(latents, frames)

    def identity(self) -> str:
        """sha256 of the codec's weights: a tokenizer only works with the codec it was trained on."""
        raise NotImplementedError

    def check_clips(self, clips: torch.Tensor) -> None:
        """Raise LatentError unless the codec supports these clips."""
        _, rows, columns = self.stride
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise LatentError(f"clips must be (B, 3, F, H, W), got {tuple(clips.shape)}")
        latent_frames(clips.shape[2], self.stride[0])
        if clips.shape[3] % rows or clips.shape[4] % columns:
            raise LatentError(f"clips of {clips.shape[3]}x{clips.shape[4]} pixels: sides must be multiples of {rows}")

    def _encode(self, clips: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _decode(self, latents: torch.Tensor, frames: int) -> torch.Tensor:
        raise NotImplementedError


def latent_frames(frames: int, every: int = 4) -> int:
    """Return T for clips of `frames` frames. Raises LatentError unless 4T, or 4T - 3 with a causal first frame."""
    if frames < 1 or frames % every not in (0, 1):
        near = max(1, frames // every) * every
        raise LatentError(
            f"clips of {frames} frames: take a multiple of {every}, or one more with a causal first frame (such as "
            f"{near} or {near + 1})"
        )
    return frames // every + (frames % every)


def is_causal(frames: int, every: int = 4) -> bool:
    """Whether clips of this many frames have a first latent frame of a single frame."""
    return frames % every == 1


def weights_sha256(weights: Mapping[str, torch.Tensor], told: Mapping[str, Any] | None = None) -> str:
    """Hash tensors by name, in any precision, with further facts `told`."""
    digest = hashlib.sha256(repr(sorted((told or {}).items())).encode())
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
