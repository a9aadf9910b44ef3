"""Run the tokenizer one temporal block at a time, so that assignments with a common prefix share its work.

Legend: B clips, W prefixes per clip, R = B * W rows (a clip's prefixes are adjacent), K temporal blocks, P patches per
block, N tokens, M tokens so far, D width (encoder's or decoder's), H heads, C = D / H.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange

from evatok.models.attention import KeysValues, append
from evatok.tokenizers.evatok import AdaptiveTokenizer

Layers = tuple[KeysValues, ...]


@dataclass(frozen=True)
class Prefix:
    """KV cache of the blocks so far: keys and values (R, H, M or patches, C) per layer.

    The encoder's references are cached for the complete clip at once; those of blocks 0..k are a prefix of them.

    Attributes:
        valid: (R, M) False for the padding of rows with fewer tokens than the longest; None where all rows are equally
            long.
    """

    encoder_self: Layers = ()
    decoder_self: Layers = ()
    decoder_cross: Layers = ()
    valid: torch.Tensor | None = None

    def rows(self, index: torch.Tensor) -> Prefix:
        """Select rows `index` (R',), packed to the left and padded no further than the longest needs."""
        decoder_self = _mapped(self.decoder_self, lambda x: x[index])
        if self.valid is None:
            encoder_self = _mapped(self.encoder_self, lambda x: x[index])
            decoder_cross = _mapped(self.decoder_cross, lambda x: x[index])
            return Prefix(encoder_self, decoder_self, decoder_cross)
        valid = self.valid[index]
        order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(valid.sum(1).max())]

        def packed(x: torch.Tensor) -> torch.Tensor:
            return x[index].gather(2, order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))

        kept = valid.gather(1, order)
        return Prefix(
            _mapped(self.encoder_self, packed), decoder_self, _mapped(self.decoder_cross, packed), _if_needed(kept)
        )

    def padded(self, tokens: int) -> Prefix:
        """Pad to `tokens` tokens, the new ones invalid."""
        keys = self.encoder_self[0][0]
        extra = tokens - keys.shape[2]
        if not extra:
            return self

        def longer(x: torch.Tensor) -> torch.Tensor:
            return F.pad(x, (0, 0, 0, extra))

        encoder_self, decoder_cross = _mapped(self.encoder_self, longer), _mapped(self.decoder_cross, longer)
        return Prefix(encoder_self, self.decoder_self, decoder_cross, F.pad(_valid(self), (0, extra)))


def pick(prefixes: Sequence[Prefix], source: torch.Tensor, row: torch.Tensor) -> Prefix:
    """Gather rows: row i of the result is row `row[i]` of `prefixes[source[i]]`.

    All prefixes hold the same blocks; their lengths may differ.
    """
    positions = [(source == number).nonzero()[:, 0] for number in range(len(prefixes))]
    parts = [prefix.rows(row[at]) for prefix, at in zip(prefixes, positions, strict=True) if len(at)]
    order = torch.cat(positions).argsort()
    longest = max(part.encoder_self[0][0].shape[2] for part in parts)
    parts = [part.padded(longest) for part in parts]
    valid = None
    if any(part.valid is not None for part in parts):
        valid = torch.cat([_valid(part) for part in parts])[order]
    return Prefix(
        _joined([part.encoder_self for part in parts], order),
        _joined([part.decoder_self for part in parts], order),
        _joined([part.decoder_cross for part in parts], order),
        valid,
    )


class BlockwiseTokenizer:
    """The same tokenizer, one temporal block at a time.

    `code_block` extends prefixes by one block, all with the same number of tokens; a tree of assignments shares the
    work of every common prefix. Causality needs no masks, as a block's queries may attend to everything that exists so
    far; only rows whose prefixes differ in length need one, for their padding.
    """

    def __init__(self, tokenizer: AdaptiveTokenizer, clips: torch.Tensor) -> None:
        self.tokenizer, self.config = tokenizer, tokenizer.config
        encoder = tokenizer.encoder
        patches_BKPD = encoder.embed(clips)
        references = rearrange(patches_BKPD, "b k p d -> b (k p) d")
        self._queries = encoder.queries(patches_BKPD)
        self._references = [layer.reference_keys_values(references) for layer in encoder.layers]
        self._token_positions = tokenizer.decoder.token_positions()
        self._wider: dict[int, BlockwiseTokenizer] = {}

    def wide(self, width: int) -> BlockwiseTokenizer:
        """Return the session for `width` prefixes per clip, a clip's rows adjacent; built once per width."""
        if width == 1:
            return self
        if width not in self._wider:
            session = copy.copy(self)
            session._wider = {}  # no reference cycle: a batch's memory is freed with its last use
            session._queries = self._queries.repeat_interleave(width, 0)
            session._references = [
                (keys.repeat_interleave(width, 0), values.repeat_interleave(width, 0))
                for keys, values in self._references
            ]
            self._wider[width] = session
        return self._wider[width]

    def code_block(self, block: int, tokens: int, prefix: Prefix) -> tuple[torch.Tensor, Prefix]:
        """Reconstruct block `block` with `tokens` tokens after `prefix`: pixels (R, 3, frames per block, H, W)."""
        valid = prefix.valid
        if valid is not None:
            valid = F.pad(valid, (0, tokens), value=True)
        features, encoder_self = self._encode(block, tokens, prefix, valid)
        flat = rearrange(features, "b n d -> (b n) d")
        values = rearrange(self.tokenizer.quantiser(flat).values, "(b n) d -> b n d", n=tokens)
        patches, decoder_self, decoder_cross = self._decode(block, values, prefix, valid)
        pixels = self.tokenizer.decoder.to_pixels(patches[:, None])
        return pixels, Prefix(encoder_self, decoder_self, decoder_cross, valid)

    def _encode(
        self, block: int, tokens: int, prefix: Prefix, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, Layers]:
        encoder = self.tokenizer.encoder
        seen = (block + 1) * self.config.patches
        x_RND = self._queries[:, block, :tokens]
        memories = []
        for i, layer in enumerate(encoder.layers):
            keys, values = self._references[i]
            past = prefix.encoder_self[i] if block else None
            x_RND, memory = layer(x_RND, (keys[:, :, :seen], values[:, :, :seen]), self_mask=_mask(valid), past=past)
            memories.append(memory)
        return encoder.norm(x_RND), tuple(memories)

    def _decode(
        self, block: int, values_RND: torch.Tensor, prefix: Prefix, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, Layers, Layers]:
        decoder = self.tokenizer.decoder
        x_RPD = values_RND[:, :1] + decoder.patch_position[block]
        references = values_RND + self._token_positions[block, : values_RND.shape[1]]
        selves, crosses = [], []
        for i, layer in enumerate(decoder.layers):
            cross = layer.reference_keys_values(references)
            if block:
                cross = append(prefix.decoder_cross[i], cross)
            past = prefix.decoder_self[i] if block else None
            x_RPD, memory = layer(x_RPD, cross, cross_mask=_mask(valid), past=past)
            selves.append(memory)
            crosses.append(cross)
        return x_RPD, tuple(selves), tuple(crosses)


def _mask(valid: torch.Tensor | None) -> torch.Tensor | None:
    """(R, M) -> (R, 1, 1, M): every query of a row may attend to the row's own tokens."""
    return None if valid is None else valid[:, None, None]


def _valid(prefix: Prefix) -> torch.Tensor:
    keys = prefix.encoder_self[0][0]
    return keys.new_ones(len(keys), keys.shape[2], dtype=torch.bool) if prefix.valid is None else prefix.valid


def _if_needed(valid: torch.Tensor) -> torch.Tensor | None:
    return None if bool(valid.all()) else valid


def _mapped(layers: Layers, change: Callable[[torch.Tensor], torch.Tensor]) -> Layers:
    return tuple((change(keys), change(values)) for keys, values in layers)


def _joined(parts: Sequence[Layers], order: torch.Tensor) -> Layers:
    """Concatenate the rows of all parts, then reorder them, layer by layer."""
    return tuple(
        (torch.cat([keys for keys, _ in layer])[order], torch.cat([values for _, values in layer])[order])
        for layer in zip(*parts, strict=True)
    )
