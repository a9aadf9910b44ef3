"""Latent codecs: video autoencoders in whose latent space a generative tokenizer works.

from evatok.models.latents import PatchPCA
codec = PatchPCA.fit(clips.clips)
latents = codec.encode(to_network(clips.clips))
"""

from evatok.models.latents.codec import LatentCodec, LatentError, latent_frames, weights_sha256
from evatok.models.latents.patch_pca import PatchPCA
from evatok.models.latents.vidtok import VidTok

__all__ = ["LatentCodec", "LatentError", "PatchPCA", "VidTok", "latent_frames", "weights_sha256"]
