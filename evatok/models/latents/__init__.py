"""Latent codecs: video autoencoders in whose latent space a generative tokenizer works.

    from evatok.models.latents import PatchPCA
    codec = PatchPCA.fit(uint8_clips)  # (N, F, H, W, 3)
    latents = codec.encode(clips)      # (B, 3, F, H, W) in [0, 1]

A tokenizer only works with the codec it was trained on, identified by its `identity`.
"""

from evatok.models.latents.codec import LatentCodec, LatentError, latent_frames, weights_sha256
from evatok.models.latents.patch_pca import PatchPCA
from evatok.models.latents.vidtok import VidTok

__all__ = ["LatentCodec", "LatentError", "PatchPCA", "VidTok", "latent_frames", "weights_sha256"]
