"""Latent codecs: video autoencoders in whose latent space a generative tokenizer works.

from evatok.latents import PatchPCA
codec = PatchPCA.fit(clips.clips)
latents = codec.encode(to_network(clips.clips))
"""

from evatok.latents.codec import LatentCodec, LatentError, latent_frames, weights_sha256
from evatok.latents.patch_pca import PatchPCA
from evatok.latents.vidtok import VidTok

__all__ = ["LatentCodec", "LatentError", "PatchPCA", "VidTok", "latent_frames", "weights_sha256"]
