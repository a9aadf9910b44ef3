"""The adaptive-length tokenizer: a linear patch embedding, a Q-Former encoder, a codebook, a Q-Former decoder.

The proxy and the final tokenizer of EVATok are both this model (Sec. 3.1, Fig. 3, supplement F). Everything is
block-causal: what is coded and decoded for temporal block k depends on the clip's first k blocks and on the
assignment's first k entries, and on nothing later.

Legend: B clips, K temporal blocks, P patches a block, S slots (the highest level), N tokens of the longest clip in
the batch, M tokens in all, D width (encoder's or decoder's, by the module it stands in).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from torch import nn

from evatok.assignments import CandidateSet
from evatok.models.attention import KeysValues, QFormer, append
from evatok.models.layout import Layout, patch_to_patch, patch_to_token, token_to_patch, token_to_token
from evatok.models.pooling import pyramid
from evatok.models.quantisers import Quantised, Quantiser


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of a tokenizer; the defaults are the paper's 145M "S-B" model (facts: GigaTok small and base layers).

    `patch` is (frames, height, width) of a patch; a temporal block is one patch deep.
    """

    levels: tuple[int, ...] = (32, 64, 128, 256, 512)
    frames: int = 16
    size: int = 128
    patch: tuple[int, int, int] = (4, 8, 8)
    encoder_width: int = 512
    encoder_layers: int = 6
    encoder_heads: int = 8
    decoder_width: int = 768
    decoder_layers: int = 12
    decoder_heads: int = 12
    quantiser: str = "vq"
    codebook_size: int = 16384
    codebook_dimension: int = 8

    def __post_init__(self) -> None:
        if self.frames % self.patch[0] or self.size % self.patch[1] or self.size % self.patch[2]:
            raise ValueError(f"patches {self.patch} do not tile {self.frames}x{self.size}x{self.size} clips")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenizerConfig:
        """From JSON, where tuples have become lists."""
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def candidates(self) -> CandidateSet:
        return CandidateSet(self.levels, self.frames // self.patch[0])

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of a block, (high, wide)."""
        return self.size // self.patch[1], self.size // self.patch[2]

    @property
    def patches(self) -> int:
        """P, patches a block."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_values(self) -> int:
        """Numbers in one RGB patch."""
        return 3 * self.patch[0] * self.patch[1] * self.patch[2]


TOKENIZER_SIZES: dict[str, TokenizerConfig] = {
    # CPU, minutes. The grid has a quarter of the paper's patches, and the levels start lower: a small network
    # stops gaining from tokens sooner.
    "toy": TokenizerConfig(
        levels=(4, 8, 16, 32, 64),
        size=64,
        encoder_width=160,
        encoder_layers=2,
        encoder_heads=5,
        decoder_width=160,
        decoder_layers=3,
        decoder_heads=5,
        quantiser="fsq",
        codebook_size=15360,
    ),
    # One GPU, half an hour: the paper's grid and levels.
    "small": TokenizerConfig(
        encoder_width=256,
        encoder_layers=4,
        encoder_heads=4,
        decoder_width=384,
        decoder_layers=6,
        decoder_heads=6,
    ),
    "paper": TokenizerConfig(),
}


@dataclass(frozen=True)
class Codes:
    """Codes (B, N) packed to the left, and the assignment (B, K) that says where blocks begin."""

    codes: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True)
class Reconstruction:
    """clips (B, 3, T, H, W) - not clamped; codes; the quantiser's loss ()."""

    clips: torch.Tensor
    codes: Codes
    quantiser_loss: torch.Tensor


class AdaptiveTokenizer(nn.Module):
    """Clips (B, 3, T, H, W) in [0, 1] and assignments (B, K) to codes, and back."""

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

    def forward(self, clips: torch.Tensor, lengths: torch.Tensor) -> Reconstruction:
        layout, quantised = self._quantise(clips, lengths)
        codes = _packed(quantised.codes, layout)
        decoded = self.decoder(_packed(quantised.values, layout), layout)
        return Reconstruction(decoded, Codes(codes, lengths), quantised.loss)

    @torch.no_grad()
    def encode(self, clips: torch.Tensor, lengths: torch.Tensor) -> Codes:
        """Codes of clips under an assignment."""
        layout, quantised = self._quantise(clips, lengths)
        return Codes(_packed(quantised.codes, layout), lengths)

    def _quantise(self, clips: torch.Tensor, lengths: torch.Tensor) -> tuple[Layout, Quantised]:
        layout = self.layout(lengths)
        if len(clips) != len(lengths):
            raise ValueError(f"one assignment a clip is needed: {len(lengths)} assignments for {len(clips)} clips")
        return layout, self.quantiser(self.encoder(self.encoder.embed(clips), layout)[layout.valid])

    @torch.no_grad()
    def decode(self, codes: Codes) -> torch.Tensor:
        """Clips (B, 3, T, H, W), clamped to [0, 1]."""
        layout = self.layout(codes.lengths)
        if codes.codes.shape != layout.valid.shape:
            raise ValueError(f"{tuple(codes.codes.shape)} codes, the lengths ask for {tuple(layout.valid.shape)}")
        return self.decoder(self.quantiser.lookup(codes.codes), layout).clamp(0, 1)

    def layout(self, lengths: torch.Tensor) -> Layout:
        """The layout of an assignment (B, K), checked against this tokenizer."""
        blocks, slots = self.config.candidates.blocks, self.config.levels[-1]
        if lengths.shape[-1] != blocks or int(lengths.max()) > slots:
            raise ValueError(
                f"assignments must be (B, {blocks}) with at most {slots} tokens a block, got "
                f"{tuple(lengths.shape)} with {int(lengths.max())}"
            )
        return Layout.of(lengths)


class Encoder(nn.Module):
    """Patches to 1D token features."""

    pyramid: torch.Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width, blocks = config.encoder_width, config.candidates.blocks
        self.config = config
        self.patch_embedding = nn.Linear(config.patch_values, width)
        self.patch_position = _table(blocks, config.patches, width)
        self.slot_position = _table(blocks, config.levels[-1], width)
        self.layers = QFormer(width, config.encoder_heads, config.encoder_layers)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("pyramid", pyramid(config.grid, config.levels[-1]), persistent=False)

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        """Patch embeddings (B, K, P, D) with their positions: the references, and what queries start from."""
        return self.patch_embedding(patchify(clips, self.config) - 0.5) + self.patch_position

    def queries(self, patches_BKPD: torch.Tensor) -> torch.Tensor:
        """(B, K, S, D) starts of all slots: pooled features (and so pooled positions) of the own block."""
        pooled = torch.einsum("sp,bkpd->bksd", self.pyramid.to(patches_BKPD.dtype), patches_BKPD)
        return pooled + self.slot_position

    def forward(self, patches_BKPD: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Token features (B, N, D)."""
        tokens = torch.arange(len(layout.block), device=layout.block.device)[:, None]
        x_BND = self.queries(patches_BKPD)[tokens, layout.block, layout.slot]
        references = rearrange(patches_BKPD, "b k p d -> b (k p) d")
        self_mask, cross_mask = token_to_token(layout), token_to_patch(layout, self.config.patches)
        for layer in self.layers:
            x_BND, _ = layer(x_BND, layer.remember_references(references), self_mask, cross_mask)
        return self.norm(x_BND)


class Decoder(nn.Module):
    """1D token features to pixels. Patch queries start from the first token of their own block."""

    pyramid: torch.Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width, blocks = config.decoder_width, config.candidates.blocks
        self.config = config
        self.patch_position = _table(blocks, config.patches, width)
        self.slot_position = _table(blocks, config.levels[-1], width)
        self.layers = QFormer(width, config.decoder_heads, config.decoder_layers)
        # No norm in front: the residual stream carries the patch's magnitude to the pixels.
        self.unpatchify = nn.Linear(width, config.patch_values)
        self.register_buffer("pyramid", pyramid(config.grid, config.levels[-1]), persistent=False)

    def token_positions(self) -> torch.Tensor:
        """(K, S, D): a slot's own position plus the positions of the patches it was pooled from."""
        return torch.einsum("sp,kpd->ksd", self.pyramid, self.patch_position) + self.slot_position

    def forward(self, values_BND: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Clips (B, 3, T, H, W), not clamped."""
        tokens = torch.arange(len(layout.block), device=layout.block.device)[:, None]
        first_BKD = values_BND[tokens, layout.first]
        x_BMD = rearrange(first_BKD[:, :, None] + self.patch_position, "b k p d -> b (k p) d")
        references = values_BND + self.token_positions()[layout.block, layout.slot]
        self_mask = patch_to_patch(layout, self.config.patches)
        cross_mask = patch_to_token(layout, self.config.patches)
        for layer in self.layers:
            x_BMD, _ = layer(x_BMD, layer.remember_references(references), self_mask, cross_mask)
        patches = rearrange(x_BMD, "b (k p) d -> b k p d", p=self.config.patches)
        return self.to_pixels(patches)

    def to_pixels(self, patches_BKPD: torch.Tensor) -> torch.Tensor:
        """Patch features (B, k, P, D) of any number of blocks -> pixels (B, 3, k * frames a block, H, W)."""
        return unpatchify(self.unpatchify(patches_BKPD).float() + 0.5, self.config)


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


def patchify(clips: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """(B, 3, T, H, W) -> (B, K, P, values a patch).

    Raises:
        ValueError: clips of another shape than the tokenizer's.
    """
    expected = (3, config.frames, config.size, config.size)
    if tuple(clips.shape[1:]) != expected:
        raise ValueError(f"clips must be (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
    t, h, w = config.patch
    return rearrange(clips, "b c (k t) (y h) (x w) -> b k (y x) (c t h w)", t=t, h=h, w=w)


def unpatchify(patches: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """(B, k, P, values a patch) -> (B, 3, k * frames a block, H, W)."""
    (t, h, w), (y, x) = config.patch, config.grid
    return rearrange(patches, "b k (y x) (c t h w) -> b c (k t) (y h) (x w)", c=3, t=t, h=h, w=w, y=y, x=x)


def _packed(flat: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Tokens (M, ...) back to their places (B, N, ...), zero in the padding."""
    packed = flat.new_zeros(*layout.valid.shape, *flat.shape[1:])
    packed[layout.valid] = flat
    return packed


def _table(blocks: int, rows: int, width: int) -> nn.Parameter:
    """A learned position table (K, rows, D)."""
    return nn.Parameter(torch.randn(blocks, rows, width) * 0.02)


def expand_assignment(row: tuple[int, ...], clips: int) -> torch.Tensor:
    """One assignment for a whole batch: (K) -> (B, K)."""
    return repeat(torch.tensor(row), "k -> b k", b=clips)
