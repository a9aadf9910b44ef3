"""The two halves of the tokenizer: a Q-Former encoder from patches to tokens, a Q-Former decoder back to pixels.

One linear map, or convolutions for images, turn pixels into patch features and back.

Legend: B clips, K temporal blocks, P patches per block, S slots (the highest level), N tokens of the longest clip in
the batch, D width (encoder's or decoder's).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from evatok.models.attention import QFormer
from evatok.models.convolutions import ImageDecoder, ImageEncoder
from evatok.tokenizers.config import TokenizerConfig, checked, patchify, unpatchify
from evatok.tokenizers.layout import Layout, patch_to_patch, patch_to_token, token_to_patch, token_to_token
from evatok.tokenizers.pooling import pyramid


class Encoder(nn.Module):
    """Map patches to 1D token features."""

    pyramid: torch.Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width, blocks = config.encoder_width, config.candidates.blocks
        self.config = config
        if config.front == "cnn":
            self.image_embedding = ImageEmbedding(config)
        else:
            self.patch_embedding = nn.Linear(config.patch_values, width)
        self.patch_position = _position_table(blocks, config.patches, width)
        self.slot_position = _position_table(blocks, config.levels[-1], width)
        self.layers = QFormer(width, config.encoder_heads, config.encoder_layers)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("pyramid", pyramid(config.grid, config.levels[-1]), persistent=False)

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        """Embed patches and add their positions (B, K, P, D): the references, and what queries are pooled from."""
        if self.config.front == "cnn":
            return self.image_embedding(checked(clips, self.config)) + self.patch_position
        return self.patch_embedding(patchify(clips, self.config) - 0.5) + self.patch_position

    def queries(self, patches_BKPD: torch.Tensor) -> torch.Tensor:
        """Initial queries of all slots (B, K, S, D): pooled features, positions included, of their own block."""
        pooled = torch.einsum("sp,bkpd->bksd", self.pyramid.to(patches_BKPD.dtype), patches_BKPD)
        return pooled + self.slot_position

    def forward(self, patches_BKPD: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return token features (B, N, D) in the layout's rows."""
        x_BND = self.queries(patches_BKPD)[layout.clip, layout.block, layout.slot]
        references = layout.rows(rearrange(patches_BKPD, "b k p d -> b (k p) d"))
        self_mask, cross_mask = token_to_token(layout), token_to_patch(layout, self.config.patches)
        for layer in self.layers:
            x_BND, _ = layer(x_BND, layer.reference_keys_values(references), self_mask, cross_mask)
        return self.norm(x_BND)


class Decoder(nn.Module):
    """Map 1D token features to pixels. Patch queries start from the first token of their own block."""

    pyramid: torch.Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width, blocks = config.decoder_width, config.candidates.blocks
        self.config = config
        self.patch_position = _position_table(blocks, config.patches, width)
        self.slot_position = _position_table(blocks, config.levels[-1], width)
        self.layers = QFormer(width, config.decoder_heads, config.decoder_layers)
        if config.front == "cnn":
            self.image_rendering = ImageRendering(config)
        else:
            # No norm before it: the residual stream carries the patch's magnitude to the pixels.
            self.unpatchify = nn.Linear(width, config.patch_values)
        self.register_buffer("pyramid", pyramid(config.grid, config.levels[-1]), persistent=False)

    def token_positions(self) -> torch.Tensor:
        """(K, S, D) positions of all slots: their own plus the mean of those of the patches they were pooled from."""
        return torch.einsum("sp,kpd->ksd", self.pyramid, self.patch_position) + self.slot_position

    def forward(
        self, values_BND: torch.Tensor, layout: Layout, tap: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Decode tokens in the layout's rows.

        Returns:
            Clips (B, 3, T, H, W), not clamped, and patch features (B, K, P, D) after layer `tap`, counted from 1
            (None without `tap`).

        Raises:
            ValueError: `tap` is not one of the decoder's layers.
        """
        if tap is not None and not 1 <= tap <= len(self.layers):
            raise ValueError(f"decoder layer {tap} cannot be tapped: it has layers 1 to {len(self.layers)}")
        first_BKD = values_BND[layout.row, layout.first]
        x_BMD = layout.rows(rearrange(first_BKD[:, :, None] + self.patch_position, "b k p d -> b (k p) d"))
        references = values_BND + self.token_positions()[layout.block, layout.slot]
        self_mask = patch_to_patch(layout, self.config.patches)
        cross_mask = patch_to_token(layout, self.config.patches)
        tapped = None
        for number, layer in enumerate(self.layers, start=1):
            x_BMD, _ = layer(x_BMD, layer.reference_keys_values(references), self_mask, cross_mask)
            if number == tap:
                tapped = self._by_block(x_BMD)
        return self.to_pixels(self._by_block(x_BMD)), tapped

    def _by_block(self, x_BMD: torch.Tensor) -> torch.Tensor:
        return rearrange(x_BMD, "r (b k p) d -> (r b) k p d", k=self.config.candidates.blocks, p=self.config.patches)

    def to_pixels(self, patches_BKPD: torch.Tensor) -> torch.Tensor:
        """Map patch features (B, k, P, D) of k blocks to pixels (B, 3, k * frames per block, H, W)."""
        if self.config.front == "cnn":
            return self.image_rendering(patches_BKPD)
        return unpatchify(self.unpatchify(patches_BKPD).float() + 0.5, self.config)

    @property
    def last_layer(self) -> torch.Tensor:
        """The weight that produces the pixels, whose gradients VQGAN's rule uses to weight the adversarial term."""
        return self.image_rendering.decoder.leave.weight if self.config.front == "cnn" else self.unpatchify.weight


class ImageEmbedding(nn.Module):
    """Embed images, clips (B, 3, 1, H, W) in [0, 1], as patch features (B, 1, P, D) by convolutions."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config.convolutions)
        self.norm = nn.LayerNorm(config.map_channels)
        self.project = nn.Linear(config.map_channels, config.encoder_width)
        self.config = config
        self.linear = nn.Linear(config.patch_values, config.encoder_width) if config.shortcut else None

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        patches = self.project(self.norm(rearrange(self.map_of(clips), "b c y x -> b 1 (y x) c")))
        return patches if self.linear is None else patches + self.linear(patchify(clips, self.config) - 0.5)

    def map_of(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the map (B, map channels, h, w) of clips (B, 3, 1, H, W)."""
        return self.encoder(2 * clips[:, :, 0] - 1)


class ImageRendering(nn.Module):
    """Render patch features (B, 1, P, D) as clips (B, 3, 1, H, W), not clamped, by convolutions."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.decoder_width)
        self.project = nn.Conv2d(config.decoder_width, config.map_channels, 3, padding=1)
        self.decoder = ImageDecoder(config.convolutions)
        self.linear = nn.Linear(config.decoder_width, config.patch_values) if config.shortcut else None

    def forward(self, patches_B1PD: torch.Tensor) -> torch.Tensor:
        features = rearrange(self.norm(patches_B1PD), "b 1 (y x) d -> b d y x", y=self.config.grid[0])
        made = self.of_map(self.project(features))
        return made if self.linear is None else made + unpatchify(self.linear(patches_B1PD).float(), self.config)

    def of_map(self, map_BChw: torch.Tensor) -> torch.Tensor:
        """Return clips (B, 3, 1, H, W) of maps (B, map channels, h, w)."""
        return (self.decoder(map_BChw).float()[:, :, None] + 1) / 2


def _position_table(blocks: int, positions: int, width: int) -> nn.Parameter:
    """A learned table of positions (K, positions, D)."""
    return nn.Parameter(torch.randn(blocks, positions, width) * 0.02)
