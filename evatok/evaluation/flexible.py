"""A tokenizer with a flow decoder as a system to measure, at one length, step count and noise seed.

Legend: B clips, T latent frames, P patches per frame, k tokens per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evatok import models, tokenizers
from evatok.evaluation.systems import Output, System
from evatok.models import latents
from evatok.models.precision import autocast
from evatok.storage.shards import package_version
from evatok.tokenizers import videoflextok
from evatok.tokenizers.videoflextok import FlexTokError, VideoFlexTok
from evatok.tokenizers.videoflextok.blocks import hidden_width


class Flexible(System):
    """VideoFlexTok at one assignment. Each clip's sample depends only on the seed and its index.

    `identity` should name the weights; the assignment, sampling settings, cost, precision and code are added to it.
    """

    def __init__(
        self,
        tokenizer: VideoFlexTok,
        row: Sequence[int],
        identity: dict[str, Any],
        *,
        steps: int = 20,
        guidance: float = 1.0,
        seed: int = 0,
        bf16: bool = False,
    ) -> None:
        """`row`: tokens per latent frame, or one number for all; 0 decodes without tokens.

        Raises:
            FlexTokError: lengths the tokenizer does not support, or fewer than one step.
        """
        blocks = tokenizer.config.blocks
        whole = list(row) * blocks if len(row) == 1 else list(row)
        self.row = tokenizer.checked(torch.tensor([whole]))
        if steps < 1:
            raise FlexTokError(f"the number of flow steps must be at least 1, got {steps}")
        self.tokenizer, self.steps, self.guidance, self.seed, self.bf16 = tokenizer, steps, guidance, seed, bf16
        self.codebook_size = tokenizer.config.codebook_size
        self.length_levels = len(set(whole))
        self.identity = {
            "system": "flexible tokenizer",
            **identity,
            "row": list(row),
            "most_tokens": tokenizer.config.registers,
            "flow_steps": steps,
            "flow_guidance": guidance,
            "noise_seed": seed,
            "flops_per_step": decoder_flops(tokenizer, max(1, max(whole))) * (1 if guidance == 1.0 else 2),
            "precision": "bf16" if bf16 else "fp32",
            "code": package_version(models, latents, tokenizers, videoflextok),
        }

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        lengths = self.row.expand(len(clips), -1).to(clips.device)
        with autocast(clips.device, self.bf16):
            codes = self.tokenizer.encode(clips, lengths)
            made = self.tokenizer.decode(
                codes, steps=self.steps, guidance=self.guidance, seed=self.seed, indices=np.asarray(indices)
            )
        if not codes.codes.shape[1]:
            return Output(made.float())  # no tokens to count
        # All rows have the same length: the codes have no padding.
        return Output(made.float(), codes.codes.flatten(), lengths)


def fixed_row(words: str) -> tuple[str, list[int]]:
    """Parse uniform:16 as ("uniform", [16]), fixed:16,8,8,4 as ("fixed", [16, 8, 8, 4]), others without tokens."""
    kind, _, rest = words.partition(":")
    row = rest.split(",")
    if kind == ("uniform" if len(row) == 1 else "fixed") and all(part.strip().isdigit() for part in row):
        return kind, [int(part) for part in row]
    return kind, []


def decoder_flops(tokenizer: VideoFlexTok, tokens: int) -> int:
    """Count floating-point operations of one decoder pass per clip with `tokens` tokens per latent frame.

    Two per matrix weight and element, and two per query-key pair in attention, masked pairs included.
    """
    config = tokenizer.config
    shown = tokens if config.drop == "truncate" else config.registers
    elements, latents = config.blocks * (shown + config.patches), config.blocks * config.patches
    width = config.decoder_width
    per_layer = (
        2 * elements * (4 * width**2 + 3 * width * hidden_width(width)) + 4 * elements**2 * width + 2 * 12 * width**2
    )
    return config.decoder_layers * per_layer + 2 * 2 * latents * width * config.patch_values
