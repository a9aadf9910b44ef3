"""Representation alignment (REPA, arXiv 2410.06940) of the decoder: its target and its readout head.

The target is a frozen encoder's features, resized to the decoder's patches and standardised per channel. Otherwise the
features of a small encoder are nearly constant (cosine to their mean 0.99 for videomae-toy), and a cosine loss can be
solved without learning anything.

Legend: B clips, F frames, T latent frames, P patches per frame, D the decoder's width, S the target's.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.data.clips import network_batches
from evatok.models.encoder_families import FrozenEncoder, Images
from evatok.storage.transfer import moved
from evatok.tokenizers.videoflextok.blocks import Block, norm
from evatok.tokenizers.videoflextok.config import VideoFlexTokConfig
from evatok.tokenizers.videoflextok.order import patch_mask
from evatok.training.alignment import AlignmentError


class Teacher:
    """A frozen encoder's standardised features on the decoder's patches.

    Video encoders yield an integer number of steps per latent frame, whose features are concatenated; they do not see a
    causal first frame, which then has no target. Image encoders process every frame, and a latent frame's target is the
    mean over its frames.

    Attributes:
        frames: T' latent frames with a target, the last ones.
        width: S.
    """

    def __init__(self, encoder: FrozenEncoder, config: VideoFlexTokConfig) -> None:
        """Raise AlignmentError unless the encoder's grid can be resized to the decoder's."""
        self.encoder, self.config = encoder, config
        self.of_images = isinstance(encoder, Images)
        self.skipped = 1 if config.causal_first and not self.of_images else 0
        self.frames = config.blocks - self.skipped
        steps, *grid = encoder.grid(config.frames - self.skipped, config.size)
        self.per_frame = 1 if self.of_images else steps // max(1, self.frames)
        fits = self.of_images or (self.frames > 0 and steps % self.frames == 0)
        if not fits or any(own % wanted for own, wanted in zip(grid, config.grid, strict=True)):
            raise AlignmentError(
                f"{encoder.source}: its grid {(steps, *grid)} cannot be resized to {self.frames} latent frames of "
                f"{config.grid} patches: each must be a multiple; choose another size for the encoder"
            )
        self.width = encoder.width * self.per_frame
        self.mean, self.deviation = torch.zeros(self.width), torch.ones(self.width)

    def fit(self, clips: np.ndarray, device: torch.device | str, batch: int = 16) -> Teacher:
        """Standardise to the features of uint8 clips (N, F, H, W, 3); return itself."""
        parts = [self.raw(part) for part, _ in network_batches(clips, batch, device)]
        features = torch.cat(parts).flatten(0, 2).double()
        self.mean = features.mean(0).float()
        self.deviation = features.std(0).clamp_min(1e-6).float()
        return self

    def targets(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, T', P, S), standardised."""
        return self.standardised(self.raw(clips))

    def standardised(self, features: torch.Tensor) -> torch.Tensor:
        """Standardise features (..., S) with the training clips' mean and deviation."""
        return (features - moved(self.mean, features.device)) / moved(self.deviation, features.device)

    @torch.no_grad()
    def raw(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, T', P, S) of clips (B, 3, F, H, W) in [0, 1]."""
        (features,) = self.encoder(clips[:, :, self.skipped :], [self.encoder.depth])
        pooled = F.adaptive_avg_pool2d(rearrange(features.float(), "b t y x d -> (b t) d y x"), self.config.grid)
        patches = rearrange(pooled, "(b t) d y x -> b t (y x) d", b=len(clips))
        if not self.of_images:
            return rearrange(patches, "b (t n) p d -> b t p (n d)", n=self.per_frame)
        every, first = self.config.stride[0], patches[:, :1]
        if self.config.causal_first:
            return torch.cat((first, patches[:, 1:].unflatten(1, (-1, every)).mean(2)), dim=1)
        return patches.unflatten(1, (-1, every)).mean(2)


class ReadoutHead(nn.Module):
    """Decoder features (B, T, P, D) to (B, T', P, S): a two-layer transformer over patches, causal in time like the
    decoder is (F.1), and a linear map. It is used in training only: a finished tokenizer does not have it."""

    def __init__(self, config: VideoFlexTokConfig, teacher: Teacher, depth: int = 2) -> None:
        super().__init__()
        self.frames = teacher.frames
        self.causal = config.decoder_mask == "causal"
        self.layers = nn.ModuleList(Block(config.decoder_width, config.decoder_heads) for _ in range(depth))
        self.project = nn.Linear(config.decoder_width, teacher.width)

    def forward(self, features_BTPD: torch.Tensor) -> torch.Tensor:
        _, frames, patches, _ = features_BTPD.shape
        mask = moved(patch_mask(frames, patches), features_BTPD.device) if self.causal else None
        x = rearrange(features_BTPD, "b t p d -> b (t p) d")
        for layer in self.layers:
            x = layer(x, mask)
        return self.project(rearrange(norm(x), "b (t p) d -> b t p d", t=frames)[:, -self.frames :])


def alignment_loss(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the mean cosine of features (..., S)."""
    return 1 - F.cosine_similarity(student.float(), target.float(), dim=-1).mean()
