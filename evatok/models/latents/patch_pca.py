"""A linear latent codec: the principal components of 4x8x8 patches, fitted in seconds.

It has the geometry of VidTok's KL autoencoder, (4, 8, 8) pixels to 16 channels, so a toy tokenizer has the paper's
sequence lengths without a trained autoencoder. What the components do not span is lost, which bounds the PSNR of every
tokenizer on top of it.

Legend: B clips, F frames, T latent frames of h x w positions, C channels, V = 3 * 4 * 8 * 8 values per patch.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange, repeat

from evatok.models.latents.codec import LatentCodec, LatentError, is_causal, weights_sha256

SCALING = 0.5
"""Channels are divided by this power of their standard deviation. At 1 all would weigh alike in a flow's loss, the
noisiest of them too; at 0 a few leading ones would be all of it."""


class PatchPCA(LatentCodec):
    """Projection on the leading principal components of patches.

    Encoding what was decoded returns the latents, for clips of 4T frames. A causal first frame is repeated to fill its
    patches, and decoded as their mean.
    """

    kind = "patch-pca"
    axes: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = channels
        values = 3 * self.stride[0] * self.stride[1] * self.stride[2]
        self.register_buffer("axes", torch.eye(values)[:, :channels].clone())
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("scale", torch.ones(channels))

    @classmethod
    def fit(cls, clips: np.ndarray, channels: int = 16, *, at_once: int = 32) -> PatchPCA:
        """Fit to uint8 clips (N, F, H, W, 3), `at_once` of them held in float at a time.

        Raises:
            LatentError: clips whose shape the stride does not divide, or fewer patches than channels.
        """
        codec = cls(channels)
        total, mean, square = 0, torch.zeros_like(codec.mean).double(), torch.zeros(()).double()
        for start in range(0, len(clips), at_once):
            batch = torch.from_numpy(np.array(clips[start : start + at_once]))
            batch = rearrange(batch, "b f y x c -> b c f y x").float() / 255
            codec.check_clips(batch)
            patches = codec._patches(batch).flatten(0, 3)
            total += len(patches)
            mean += patches.sum(0, dtype=torch.float64)
            square = square + (patches.T @ patches).double()
        if total <= channels:
            raise LatentError(f"{total} patches cannot give {channels} principal components: fit to more clips")
        mean /= total
        variance, axes = torch.linalg.eigh(square / total - mean[:, None] * mean)
        deviation = variance.flip(0)[:channels].clamp_min(1e-10).sqrt()
        scale = deviation**SCALING
        # Checkpoints store half precision: rounded now, the codec is the same before and after.
        codec.axes.copy_(axes.flip(1)[:, :channels].half())
        codec.mean.copy_(mean.half())
        codec.scale.copy_((scale * (deviation / scale).square().mean().sqrt()).half())
        return codec

    def identity(self) -> str:
        return weights_sha256({name: value.half() for name, value in self.state_dict().items()}, {"kind": self.kind})

    def _encode(self, clips: torch.Tensor) -> torch.Tensor:
        return (self._patches(clips.float()) - self.mean) @ self.axes / self.scale

    def _decode(self, latents: torch.Tensor, frames: int) -> torch.Tensor:
        # The inverse within their span of axes that are orthonormal but for rounding.
        inverse = self.axes @ torch.linalg.inv(self.axes.T @ self.axes)
        patches = (latents.float() * self.scale) @ inverse.T + self.mean
        t, h, w = self.stride
        clips = rearrange(patches, "b t y x (c f h w) -> b c (t f) (y h) (x w)", c=3, f=t, h=h, w=w)
        if not is_causal(frames, t):
            return clips
        return torch.cat((clips[:, :, :t].mean(2, keepdim=True), clips[:, :, t:]), dim=2)

    def _patches(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, V)."""
        t, h, w = self.stride
        if is_causal(clips.shape[2], t):
            clips = torch.cat((repeat(clips[:, :, 0], "b c y x -> b c f y x", f=t - 1), clips), dim=2)
        return rearrange(clips, "b c (t f) (y h) (x w) -> b t y x (c f h w)", f=t, h=h, w=w)
