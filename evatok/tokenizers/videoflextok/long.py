"""Clips longer than a tokenizer's: chunks that overlap by one latent frame (Sec. 3.4).

Each chunk is encoded on its own. When decoding, the last frames generated for a chunk are given to the next as its
first latent frame, so that what the tokens leave open stays consistent. The tokens of shared frames are therefore
needed only once: 81 frames in chunks of 17 take 21 latent frames' tokens.

Legend: B clips, L frames of a long clip, F frames of a chunk, S frames of overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok.config import FlexTokError, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.model import VideoFlexTok, pack, unpack


@dataclass(frozen=True)
class LongCodes:
    """Codes of every chunk; if `conditioned`, those of shared latent frames are in the first chunk that has them."""

    chunks: tuple[Codes, ...]
    conditioned: bool

    @property
    def tokens(self) -> torch.Tensor:
        """(B,) tokens per clip."""
        return torch.stack([codes.lengths.sum(1) for codes in self.chunks]).sum(0)


def latent_frames_of(config: VideoFlexTokConfig, frames: int) -> int:
    """Count the latent frames of a clip in chunks, each once. Raises FlexTokError as `chunk_starts` does."""
    return config.blocks + (len(chunk_starts(config, frames)) - 1) * (config.blocks - 1)


def chunk_starts(config: VideoFlexTokConfig, frames: int) -> list[int]:
    """Return the first frame of each chunk of a clip of `frames` frames.

    Raises:
        FlexTokError: a number of frames that chunks do not divide.
    """
    step = config.frames - config.first_frames
    count, rest = divmod(frames - config.frames, step) if step else (0, frames - config.frames)
    if count < 0 or rest:
        near = config.frames + max(0, count) * step
        raise FlexTokError(
            f"clips of {frames} frames are not filled by chunks of {config.frames} that share {config.first_frames}: "
            f"take {config.frames} + {step} n frames, such as {near} or {near + step}"
        )
    return [step * number for number in range(count + 1)]


def seams(config: VideoFlexTokConfig, frames: int) -> list[int]:
    """Return the first new frame of each later chunk."""
    return [start + config.first_frames for start in chunk_starts(config, frames)[1:]]


@torch.no_grad()
def encode_long(tokenizer: VideoFlexTok, clips: torch.Tensor, tokens: int, *, conditioned: bool = True) -> LongCodes:
    """Encode clips (B, 3, L, H, W) with `tokens` per latent frame.

    Args:
        conditioned: drop tokens of latent frames shared with the previous chunk; otherwise chunks are independent.

    Raises:
        FlexTokError: clips that chunks do not divide, or a form whose tokens belong to no latent frame.
    """
    config = tokenizer.config
    if conditioned and config.form == "flat":
        raise FlexTokError("flat tokens belong to no latent frame, so those of an overlapping frame cannot be dropped")
    lengths = tokenizer.lengths(tokens, len(clips))
    found = []
    for start in chunk_starts(config, clips.shape[2]):
        codes = tokenizer.encode(clips[:, :, start : start + config.frames], lengths)
        found.append(_without_first(codes) if conditioned and start else codes)
    return LongCodes(tuple(found), conditioned)


@torch.no_grad()
def decode_long(
    tokenizer: VideoFlexTok,
    codes: LongCodes,
    *,
    steps: int = 20,
    guidance: float = 1.0,
    seed: int = 0,
    indices: np.ndarray | None = None,
) -> torch.Tensor:
    """Decode to clips (B, 3, L, H, W) in [0, 1]; see `VideoFlexTok.decode`. Each chunk has its own noise."""
    shared = tokenizer.config.first_frames
    made: list[torch.Tensor] = []
    for number, chunk in enumerate(codes.chunks):
        first = made[-1][:, :, -shared:] if number and codes.conditioned else None
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        clip = tokenizer.decode(chunk, steps=steps, guidance=guidance, seed=own_seed, indices=indices, first=first)
        made.append(clip[:, :, shared:] if number else clip)
    return torch.cat(made, dim=2)


def joined(codes: LongCodes) -> Codes:
    """Return codes of all latent frames of conditioned chunks, in order, as one long clip: lengths (B, T).

    Raises:
        FlexTokError: independent chunks, which encode shared frames twice.
    """
    if not codes.conditioned:
        raise FlexTokError("independent chunks code shared latent frames twice: encode them with conditioned=True")
    first, *later = codes.chunks
    lengths = torch.cat([first.lengths, *(chunk.lengths[:, 1:] for chunk in later)], 1)
    return Codes(torch.cat([chunk.codes for chunk in codes.chunks], 1), lengths)


def parted(config: VideoFlexTokConfig, codes: Codes) -> LongCodes:
    """Split the codes of a long clip into chunks, see `joined`; every latent frame has the same number of tokens.

    Raises:
        FlexTokError: latent frames that chunks do not divide, or lengths that differ.
    """
    lengths, step = codes.lengths, config.blocks - 1
    count, rest = divmod(lengths.shape[1] - 1, step) if step else (0, 1)
    if count < 1 or rest or bool((lengths != lengths[0, 0]).any()):
        raise FlexTokError(
            f"{lengths.shape[1]} latent frames with {lengths[:1].tolist()} tokens are not filled by chunks of "
            f"{config.blocks} that share one, with as many tokens in each"
        )
    grid = unpack(codes, lengths)
    chunks = [pack(grid[:, : config.blocks], lengths[:, : config.blocks])]
    for start in range(config.blocks, lengths.shape[1], step):
        own = torch.cat([torch.zeros_like(lengths[:, :1]), lengths[:, start : start + step]], 1)
        part = torch.cat([torch.zeros_like(grid[:, :1]), grid[:, start : start + step]], 1)
        chunks.append(pack(part, own))
    return LongCodes(tuple(chunks), conditioned=True)


def seam_ratio(clips: torch.Tensor, at: list[int]) -> torch.Tensor:
    """(B,) mean change into the frames `at` over the mean change into all other frames, of clips (B, 3, L, H, W).

    1 if seams do not show; above 1 if they jump. NaN for clips that do not change elsewhere.
    """
    change = clips.float().diff(dim=2).abs().mean(dim=(1, 3, 4))
    is_seam = torch.zeros(change.shape[1], dtype=torch.bool, device=clips.device)
    is_seam[[frame - 1 for frame in at]] = True
    elsewhere = change[:, ~is_seam].mean(1)
    return torch.where(elsewhere > 0, change[:, is_seam].mean(1) / elsewhere, torch.nan)


def _without_first(codes: Codes) -> Codes:
    """Return the same codes without those of the first latent frame."""
    lengths = codes.lengths.clone()
    lengths[:, 0] = 0
    return pack(unpack(codes, codes.lengths), lengths)
