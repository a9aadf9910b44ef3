"""The tokenizer one temporal block at a time, so that assignments with a common prefix share its work.

Legend: B clips, K temporal blocks, P patches a block, N tokens, D width (encoder's or decoder's).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange

from evatok.models.attention import KeysValues, append
from evatok.models.tokenizer import AdaptiveTokenizer


@dataclass(frozen=True)
class Prefix:
    """What later blocks need of the blocks so far: keys and values a layer, of encoder and decoder.

    The encoder's references are remembered for the whole clip at once; those of blocks 0..k are a prefix of them.
    """

    encoder_self: tuple[KeysValues, ...] = ()
    decoder_self: tuple[KeysValues, ...] = ()
    decoder_cross: tuple[KeysValues, ...] = ()


class BlockwiseTokenizer:
    """The same tokenizer, one temporal block at a time, for clips that share an assignment's prefix.

    `code_block` continues a prefix by one block; a tree of assignments shares every common prefix's work.
    No masks are needed: a block's queries may look at everything that exists so far.
    """

    def __init__(self, tokenizer: AdaptiveTokenizer, clips: torch.Tensor) -> None:
        self.tokenizer, self.config = tokenizer, tokenizer.config
        encoder = tokenizer.encoder
        patches_BKPD = encoder.embed(clips)
        references = rearrange(patches_BKPD, "b k p d -> b (k p) d")
        self._queries = encoder.queries(patches_BKPD)
        self._references = [layer.remember_references(references) for layer in encoder.layers]
        self._token_positions = tokenizer.decoder.token_positions()

    def code_block(self, block: int, tokens: int, prefix: Prefix) -> tuple[torch.Tensor, Prefix]:
        """Reconstruct block `block` with `tokens` tokens after `prefix`: pixels (B, 3, frames a block, H, W)."""
        features, encoder_self = self._encode(block, tokens, prefix)
        flat = rearrange(features, "b n d -> (b n) d")
        values = rearrange(self.tokenizer.quantiser(flat).values, "(b n) d -> b n d", n=tokens)
        patches, decoder_self, decoder_cross = self._decode(block, values, prefix)
        pixels = self.tokenizer.decoder.to_pixels(patches[:, None])
        return pixels, Prefix(encoder_self, decoder_self, decoder_cross)

    def _encode(self, block: int, tokens: int, prefix: Prefix) -> tuple[torch.Tensor, tuple[KeysValues, ...]]:
        encoder = self.tokenizer.encoder
        seen = (block + 1) * self.config.patches
        x_BND = self._queries[:, block, :tokens]
        memories = []
        for i, layer in enumerate(encoder.layers):
            keys, values = self._references[i]
            past = prefix.encoder_self[i] if block else None
            x_BND, memory = layer(x_BND, (keys[:, :, :seen], values[:, :, :seen]), past=past)
            memories.append(memory)
        return encoder.norm(x_BND), tuple(memories)

    def _decode(
        self, block: int, values_BND: torch.Tensor, prefix: Prefix
    ) -> tuple[torch.Tensor, tuple[KeysValues, ...], tuple[KeysValues, ...]]:
        decoder = self.tokenizer.decoder
        x_BPD = values_BND[:, :1] + decoder.patch_position[block]
        references = values_BND + self._token_positions[block, : values_BND.shape[1]]
        selves, crosses = [], []
        for i, layer in enumerate(decoder.layers):
            cross = layer.remember_references(references)
            if block:
                cross = append(prefix.decoder_cross[i], cross)
            x_BPD, memory = layer(x_BPD, cross, past=prefix.decoder_self[i] if block else None)
            selves.append(memory)
            crosses.append(cross)
        return x_BPD, tuple(selves), tuple(crosses)
