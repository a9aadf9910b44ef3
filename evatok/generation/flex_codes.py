"""VideoFlexTok codes for the cache of codes, a generator's training data, at one number of tokens per latent frame.

Legend: B clips, T latent frames.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from evatok import tokenizers
from evatok.generation.code_cache import Coder
from evatok.models import latents
from evatok.models.precision import autocast
from evatok.storage.shards import package_version
from evatok.tokenizers import videoflextok
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok import VideoFlexTok
from evatok.tokenizers.videoflextok.long import chunk_starts, encode_long, joined


def flex_coder(tokenizer: VideoFlexTok, kept: int = 0, *, frames: int = 0, bf16: bool = False) -> Coder:
    """Make an encoder of complete clips with `kept` tokens per latent frame; 0: all.

    Args:
        frames: per long clip, in conditioned chunks; 0: the tokenizer's own.

    Raises:
        FlexTokError: more tokens than the tokenizer has, or frames that chunks do not divide.
    """
    tokens = kept or tokenizer.config.registers
    tokenizer.lengths(tokens, 1)  # rejects invalid lengths before clips are loaded
    if frames:
        chunk_starts(tokenizer.config, frames)

    def encode(clips: torch.Tensor) -> Codes:
        with autocast(clips.device, bf16):
            if frames:
                return joined(encode_long(tokenizer, clips, tokens))
            return tokenizer.encode(clips, tokenizer.lengths(tokens, len(clips)).to(clips.device))

    made_by = {
        "what": "codes",
        "tokenizer": tokenizer.checkpoint.sha256,
        "rule": {"tokens per latent frame": tokens, **({"frames in chunks": frames} if frames else {})},
        "precision": "bf16" if bf16 else "fp32",
        "code": _code(),
    }
    return Coder(encode, made_by)


@lru_cache(maxsize=1)
def _code() -> str:
    return package_version(tokenizers, videoflextok, latents)
