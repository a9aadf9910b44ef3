"""The adaptive-length tokenizer: an embedding of patches, a Q-Former encoder, a codebook, a Q-Former decoder.

EVATok's proxy and its final tokenizer are both this model (Sec. 3.1, Fig. 3, supplement F). Everything is
block-causal: the codes and pixels of temporal block k depend on the clip's first k blocks and on the assignment's first
k entries, and on nothing later.

Legend: B clips, K temporal blocks, P patches per block, N tokens of the longest clip in the batch, M tokens in all,
D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from evatok.models.quantisers import Quantised, Quantiser
from evatok.models.trained import Trained
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.config import IMAGE_SIZES, MODALITIES, TOKENIZER_SIZES, TokenizerConfig
from evatok.tokenizers.grouping import Groups
from evatok.tokenizers.layout import Layout
from evatok.tokenizers.networks import Decoder, Encoder

__all__ = ["IMAGE_SIZES", "MODALITIES", "TOKENIZER_SIZES", "AdaptiveTokenizer", "Reconstruction", "TokenizerConfig"]


@dataclass(frozen=True)
class Reconstruction:
    """Outputs of a forward pass that a training step needs.

    Attributes:
        clips: (B, 3, T, H, W), not clamped.
        codes: of the complete batch.
        quantised: of the batch's M tokens, clip after clip within a group.
        tapped: (B, K, P, D) patch features after the requested decoder layer, else None.
    """

    clips: torch.Tensor
    codes: Codes
    quantised: Quantised
    tapped: torch.Tensor | None = None


class AdaptiveTokenizer(Trained, nn.Module):
    """Encode clips (B, 3, T, H, W) in [0, 1] under assignments (B, K) to codes, and decode codes to clips."""

    KIND = "tokenizer"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantiser = Quantiser(
            config.quantiser,
            config.codebook_size,
            encoder_width=config.encoder_width,
            decoder_width=config.decoder_width,
            dimension=config.codebook_dimension,
        )
        self.decoder = Decoder(config)

    def forward(
        self,
        clips: torch.Tensor,
        lengths: torch.Tensor,
        *,
        tap: int | None = None,
        groups: int = 1,
        sparse: bool = False,
    ) -> Reconstruction:
        """Encode and decode a batch.

        Args:
            tap: decoder layer, counted from 1, after which to return patch features too.
            groups: number of groups of similar length to run the clips in, each padded only to its own longest clip,
                so that a batch costs about what its tokens cost. Does not change the result.
            sparse: lay a group's clips out in one row without padding and let attention skip what is masked, as GPU
                kernels can. Does not change the result; the backward pass needs a GPU.

        Raises:
            ValueError: clips, assignments, `tap` or `groups` that do not fit the tokenizer or each other.
        """
        batch = self._groups_of(clips, lengths, groups, sparse)
        # One call for all groups: what the quantiser learns from a batch must not depend on the grouping.
        quantised = self.quantiser(self._features(clips, batch))
        decoded = [self.decoder(values, layout, tap) for values, layout in batch.split(quantised.values)]
        return Reconstruction(
            batch.ungroup([clips for clips, _ in decoded]),
            Codes(batch.padded(quantised.codes), batch.batch.lengths),
            quantised,
            None if tap is None else batch.ungroup([tapped for _, tapped in decoded if tapped is not None]),
        )

    @torch.no_grad()
    def encode(self, clips: torch.Tensor, lengths: torch.Tensor, *, groups: int = 1, sparse: bool = False) -> Codes:
        """Encode clips under their assignments; `groups` and `sparse` as in `forward`."""
        batch = self._groups_of(clips, lengths, groups, sparse)
        return Codes(batch.padded(self.quantiser(self._features(clips, batch)).codes), batch.batch.lengths)

    @torch.no_grad()
    def decode(self, codes: Codes, *, groups: int = 1, sparse: bool = False) -> torch.Tensor:
        """Decode to clips (B, 3, T, H, W), clamped to [0, 1]; `groups` and `sparse` as in `forward`.

        Raises:
            ValueError: the codes do not have the shape that their lengths ask for, or lie outside the codebook.
        """
        layout = self.layout(codes.lengths.cpu())
        if codes.codes.shape != layout.valid.shape:
            raise ValueError(
                f"codes must be {tuple(layout.valid.shape)} for these lengths, got {tuple(codes.codes.shape)}"
            )
        batch = Groups.of(layout, groups, sparse).to(codes.codes.device)
        values = self.quantiser.lookup(batch.flat(codes.codes))
        return batch.ungroup([self.decoder(part, rows)[0] for part, rows in batch.split(values)]).clamp(0, 1)

    def direct(self, clips: torch.Tensor) -> torch.Tensor:
        """Reconstruct clips (B, 3, 1, H, W), not clamped, by the convolutions only, bypassing Q-Formers and codebook.

        GigaTok trains this way in its first steps. Raises ValueError for a tokenizer without convolutions.
        """
        if self.config.front != "cnn":
            raise ValueError("front linear has no convolutions to reconstruct by directly")
        return self.decoder.image_rendering.of_map(self.encoder.image_embedding.map_of(clips))

    def _features(self, clips: torch.Tensor, batch: Groups) -> torch.Tensor:
        """Encoder features (M, D) of all tokens, group after group."""
        groups = zip(batch.clips, batch.layouts, strict=True)
        return torch.cat([rows.flat(self.encoder(self.encoder.embed(clips[part]), rows)) for part, rows in groups])

    def _groups_of(self, clips: torch.Tensor, lengths: torch.Tensor, groups: int, sparse: bool) -> Groups:
        """Lay clips out under their assignments. Assignments on the CPU avoid a GPU synchronisation."""
        if len(clips) != len(lengths):
            raise ValueError(f"one assignment per clip is needed: {len(lengths)} assignments for {len(clips)} clips")
        return Groups.of(self.layout(lengths.cpu()), groups, sparse).to(clips.device)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        tokenizer = cls(TokenizerConfig.from_dict(checkpoint.config), **parts)
        tokenizer.checkpoint = checkpoint
        return tokenizer

    def layout(self, lengths: torch.Tensor) -> Layout:
        """Lay out assignments (B, K).

        Raises:
            ValueError: assignments of the wrong number of blocks, or with more tokens than the highest level.
        """
        blocks, slots = self.config.candidates.blocks, self.config.levels[-1]
        if lengths.shape[-1] != blocks or int(lengths.max()) > slots:
            raise ValueError(
                f"assignments must be (B, {blocks}) with at most {slots} tokens per block, got "
                f"{tuple(lengths.shape)} with {int(lengths.max())}"
            )
        return Layout.of(lengths)
