"""The adaptive-length tokenizer: a linear patch embedding, a Q-Former encoder, a codebook, a Q-Former decoder.

The proxy and the final tokenizer of EVATok are both this model (Sec. 3.1, Fig. 3, supplement F). Everything is
block-causal: what is coded and decoded for temporal block k depends on the clip's first k blocks and on the
assignment's first k entries, and on nothing later.

Legend: B clips, K temporal blocks, P patches per block, S slots (the highest level), N tokens of the longest clip in
the batch, M tokens in all, D width (encoder's or decoder's, by the module it stands in).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from torch import nn

from evatok.assignments.candidates import CandidateSet
from evatok.models.attention import QFormer
from evatok.models.quantisers import Quantised, Quantiser
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.layout import Layout, cuts, patch_to_patch, patch_to_token, token_to_patch, token_to_token
from evatok.tokenizers.pooling import pyramid


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
        """P, patches per block."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_values(self) -> int:
        """Numbers in one RGB patch."""
        return 3 * self.patch[0] * self.patch[1] * self.patch[2]


TOKENIZER_SIZES: dict[str, TokenizerConfig] = {
    # CPU, minutes to hours. A block has 64 patches, a quarter of the paper's, and so the levels are a quarter of the
    # paper's: the same tokens per patch, and a longest level in whose pyramid every patch has a slot of its own.
    "toy": TokenizerConfig(
        levels=(8, 16, 32, 64, 128),
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
    """What a training step needs of a pass.

    Attributes:
        clips: (B, 3, T, H, W), not clamped.
        codes: of the whole batch.
        quantised: of the batch's M tokens, clip after clip within a group.
        tapped: (B, K, P, D) patch features behind the decoder layer that was asked for, else None.
    """

    clips: torch.Tensor
    codes: Codes
    quantised: Quantised
    tapped: torch.Tensor | None = None


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

    def forward(
        self,
        clips: torch.Tensor,
        lengths: torch.Tensor,
        *,
        tap: int | None = None,
        groups: int = 1,
        sparse: bool = False,
    ) -> Reconstruction:
        """Code and decode a batch.

        Args:
            tap: decoder layer, counted from 1, behind which patch features are wanted as well.
            groups: clips of like length are run together in so many groups, each padded to its own longest clip
                only, so that a batch of unequal lengths costs about what its tokens cost. Changes no result.
            sparse: a group's clips stand in one row without any padding, and attention skips what is masked; for
                GPUs, whose kernels do so. Changes no result either; without a GPU there is no backward pass.
        """
        batch = _Groups.of(self._layout_of(clips, lengths), groups, sparse)
        # One call for all groups: what a quantiser learns from a batch must not depend on the grouping.
        quantised = self.quantiser(self._features(clips, batch))
        decoded = [self.decoder(values, layout, tap) for values, layout in batch.split(quantised.values)]
        return Reconstruction(
            batch.back([made for made, _ in decoded]),
            Codes(batch.padded(quantised.codes), lengths),
            quantised,
            None if tap is None else batch.back([tapped for _, tapped in decoded if tapped is not None]),
        )

    @torch.no_grad()
    def encode(self, clips: torch.Tensor, lengths: torch.Tensor, *, groups: int = 1, sparse: bool = False) -> Codes:
        """Codes of clips under an assignment; `groups` and `sparse` as in `forward`."""
        batch = _Groups.of(self._layout_of(clips, lengths), groups, sparse)
        return Codes(batch.padded(self.quantiser(self._features(clips, batch)).codes), lengths)

    @torch.no_grad()
    def decode(self, codes: Codes, *, groups: int = 1, sparse: bool = False) -> torch.Tensor:
        """Clips (B, 3, T, H, W), clamped to [0, 1]; `groups` and `sparse` as in `forward`."""
        layout = self.layout(codes.lengths)
        if codes.codes.shape != layout.valid.shape:
            raise ValueError(f"{tuple(codes.codes.shape)} codes, the lengths ask for {tuple(layout.valid.shape)}")
        batch = _Groups.of(layout, groups, sparse)
        values = self.quantiser.lookup(batch.flat(codes.codes))
        return batch.back([self.decoder(part, at)[0] for part, at in batch.split(values)]).clamp(0, 1)

    def _features(self, clips: torch.Tensor, batch: _Groups) -> torch.Tensor:
        """Encoder features (M, D) of all tokens, group after group."""
        each = zip(batch.parts, batch.layouts, strict=True)
        return torch.cat([self.encoder(self.encoder.embed(clips[part]), at)[at.valid] for part, at in each])

    def _layout_of(self, clips: torch.Tensor, lengths: torch.Tensor) -> Layout:
        if len(clips) != len(lengths):
            raise ValueError(f"one assignment per clip is needed: {len(lengths)} assignments for {len(clips)} clips")
        return self.layout(lengths)

    @classmethod
    def load(cls, path: Path | str) -> tuple[AdaptiveTokenizer, Checkpoint]:
        """A trained tokenizer, frozen, with the checkpoint it came from.

        Raises:
            CheckpointError: absent, damaged, or no tokenizer.
        """
        checkpoint = checkpoints.load(path, "tokenizer")
        tokenizer = cls(TokenizerConfig.from_dict(checkpoint.config))
        checkpoint.fill(tokenizer)
        return tokenizer.eval().requires_grad_(False), checkpoint

    def layout(self, lengths: torch.Tensor) -> Layout:
        """The layout of an assignment (B, K), checked against this tokenizer."""
        blocks, slots = self.config.candidates.blocks, self.config.levels[-1]
        if lengths.shape[-1] != blocks or int(lengths.max()) > slots:
            raise ValueError(
                f"assignments must be (B, {blocks}) with at most {slots} tokens per block, got "
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
        """Token features (B, N, D), in the layout's rows."""
        x_BND = self.queries(patches_BKPD)[layout.clip, layout.block, layout.slot]
        references = layout.rows(rearrange(patches_BKPD, "b k p d -> b (k p) d"))
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

    def forward(
        self, values_BND: torch.Tensor, layout: Layout, tap: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens in the layout's rows to clips (B, 3, T, H, W), not clamped.

        Also patch features (B, K, P, D) behind layer `tap`, counted from 1, else None.
        """
        if tap is not None and not 1 <= tap <= len(self.layers):
            raise ValueError(f"decoder layer {tap} cannot be tapped: there are layers 1 to {len(self.layers)}")
        first_BKD = values_BND[layout.row, layout.first]
        x_BMD = layout.rows(rearrange(first_BKD[:, :, None] + self.patch_position, "b k p d -> b (k p) d"))
        references = values_BND + self.token_positions()[layout.block, layout.slot]
        self_mask = patch_to_patch(layout, self.config.patches)
        cross_mask = patch_to_token(layout, self.config.patches)
        tapped = None
        for number, layer in enumerate(self.layers, start=1):
            x_BMD, _ = layer(x_BMD, layer.remember_references(references), self_mask, cross_mask)
            if number == tap:
                tapped = self._in_blocks(x_BMD)
        return self.to_pixels(self._in_blocks(x_BMD)), tapped

    def _in_blocks(self, x_BMD: torch.Tensor) -> torch.Tensor:
        return rearrange(x_BMD, "r (b k p) d -> (r b) k p d", k=self.config.candidates.blocks, p=self.config.patches)

    def to_pixels(self, patches_BKPD: torch.Tensor) -> torch.Tensor:
        """Patch features (B, k, P, D) of any number of blocks -> pixels (B, 3, k * frames per block, H, W)."""
        return unpatchify(self.unpatchify(patches_BKPD).float() + 0.5, self.config)


def patchify(clips: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """(B, 3, T, H, W) -> (B, K, P, values per patch).

    Raises:
        ValueError: clips of another shape than the tokenizer's.
    """
    expected = (3, config.frames, config.size, config.size)
    if tuple(clips.shape[1:]) != expected:
        raise ValueError(f"clips must be (B, {', '.join(map(str, expected))}), got {tuple(clips.shape)}")
    t, h, w = config.patch
    return rearrange(clips, "b c (k t) (y h) (x w) -> b k (y x) (c t h w)", t=t, h=h, w=w)


def unpatchify(patches: torch.Tensor, config: TokenizerConfig) -> torch.Tensor:
    """(B, k, P, values per patch) -> (B, 3, k * frames per block, H, W)."""
    (t, h, w), (y, x) = config.patch, config.grid
    return rearrange(patches, "b k (y x) (c t h w) -> b c (k t) (y h) (x w)", c=3, t=t, h=h, w=w, y=y, x=x)


@dataclass(frozen=True)
class _Groups:
    """A batch's clips in groups of like length.

    Attributes:
        whole: the layout of the batch.
        order: (B,) clips, group after group.
        parts: the clips of each group.
        layouts: of each group.
    """

    whole: Layout
    order: torch.Tensor
    parts: tuple[torch.Tensor, ...]
    layouts: tuple[Layout, ...]

    @classmethod
    def of(cls, whole: Layout, groups: int, sparse: bool) -> _Groups:
        lengths = whole.lengths
        if not 1 <= groups <= len(lengths):
            raise ValueError(f"{len(lengths)} clips cannot be run in {groups} groups")
        if groups == 1:
            order = torch.arange(len(lengths), device=lengths.device)
            return cls(whole, order, (order,), (whole.in_one_row() if sparse else whole,))
        totals, order = lengths.sum(1).sort(stable=True)
        parts = order.tensor_split(cuts(totals.cpu().numpy(), groups))
        layouts = [Layout.of(lengths[part]) for part in parts]
        return cls(whole, order, parts, tuple(at.in_one_row() if sparse else at for at in layouts))

    def flat(self, padded: torch.Tensor) -> torch.Tensor:
        """(B, N, ...) of the batch to its tokens (M, ...), group after group."""
        return padded[self.order][self.whole.valid[self.order]]

    def padded(self, flat: torch.Tensor) -> torch.Tensor:
        """Tokens (M, ...), group after group, to their places (B, N, ...) in the batch, zero in the padding."""
        return _packed(flat, self.whole.valid[self.order])[self.order.argsort()]

    def split(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, Layout]]:
        """Tokens (M, ...), group after group, to those of each group in its rows, with its layout."""
        counts = [int(at.valid.sum()) for at in self.layouts]
        return [(_packed(part, at.valid), at) for part, at in zip(flat.split(counts), self.layouts, strict=True)]

    def back(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """What each group's clips gave (b, ...), in the batch's order."""
        return torch.cat(parts)[self.order.argsort()]


def _packed(flat: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Tokens (M, ...) back to their places (B, N, ...), zero in the padding."""
    packed = flat.new_zeros(*valid.shape, *flat.shape[1:])
    packed[valid] = flat
    return packed


def _table(blocks: int, rows: int, width: int) -> nn.Parameter:
    """A learned position table (K, rows, D)."""
    return nn.Parameter(torch.randn(blocks, rows, width) * 0.02)


def expand_assignment(row: tuple[int, ...], clips: int) -> torch.Tensor:
    """One assignment for a whole batch: (K) -> (B, K)."""
    return repeat(torch.tensor(row), "k -> b k", b=clips)
