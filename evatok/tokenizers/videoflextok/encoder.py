"""The encoder: turns patches and registers into the features that are quantised (Sec. 3.1), in four forms.

Legend: B clips, T latent frames, P patches per frame, K registers per frame (k of them run), D width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from evatok.storage.transfer import moved
from evatok.tokenizers.pooling import pyramid
from evatok.tokenizers.videoflextok.blocks import Block, norm
from evatok.tokenizers.videoflextok.config import FlexTokError, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.order import Order, encoder_mask


class RegisterEncoder(nn.Module):
    """Patches (B, T, P, V) of latents to features (B, T, k, D).

    With the form "flat", tokens belong to no latent frame: the first T * k of T * K registers are run, and returned as
    T rows of k.
    """

    pyramid: torch.Tensor | None

    def __init__(self, config: VideoFlexTokConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.config = config
        self.embedding = nn.Linear(config.patch_values, width, bias=False)
        self.patch_position = nn.Parameter(torch.randn(config.blocks, config.patches, width) * 0.02)
        if config.form != "grid":
            self.registers = nn.Parameter(torch.randn(config.blocks, config.registers, width) * 0.02)
        self.layers = nn.ModuleList(Block(width, config.encoder_heads) for _ in range(config.encoder_layers))
        # Subtracted from the features, so that they spread around 0, where the quantiser's levels are.
        self.centre = nn.Parameter(torch.zeros(config.blocks, config.registers, width))
        self.register_buffer("pyramid", register_pooling(config), persistent=False)

    @property
    def needs_all(self) -> bool:
        """Whether codes depend on registers of higher rank, so that all must be run for the first few."""
        return self.config.form in ("time-causal", "grid")

    def forward(self, patches_BTPV: torch.Tensor, tokens: int) -> torch.Tensor:
        """(B, T, `tokens`, D) features of the first tokens of each frame."""
        config = self.config
        if not 1 <= tokens <= config.registers:
            raise FlexTokError(f"tokens per latent frame must be between 1 and {config.registers}, got {tokens}")
        run = config.registers if self.needs_all else tokens
        patches = self.embedding(patches_BTPV) + self.patch_position
        x_BND, at = rearrange(patches, "b t p d -> b (t p) d"), slice(None)
        if config.form != "grid":
            at = slice(config.blocks * config.patches, None)
            x_BND = torch.cat((x_BND, self._starts(patches, run)), dim=1)
        mask = self.mask(run, x_BND.device)
        for layer in self.layers:
            x_BND = layer(x_BND, mask)
        features = rearrange(norm(x_BND[:, at]), "b (t k) d -> b t k d", t=config.blocks)
        return (features - self._of_run(self.centre, run))[:, :, :tokens]

    def mask(self, run: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """(N, N) attention mask with `run` registers per frame."""
        config = self.config
        registers = 0 if config.form == "grid" else run
        flat = config.form == "flat"
        order = Order.of(config.blocks, config.patches, registers, tokens_first=False, flat=flat)
        return moved(encoder_mask(order, config.form), device)

    def _starts(self, patches_BTPD: torch.Tensor, run: int) -> torch.Tensor:
        """(B, T * run, D) initial registers."""
        start = rearrange(self._of_run(self.registers, run), "t k d -> 1 (t k) d").expand(len(patches_BTPD), -1, -1)
        if self.pyramid is None:
            return start
        pooling = self.pyramid.to(patches_BTPD.dtype)
        if self.config.form == "flat":
            pooled = pooling[: start.shape[1]] @ rearrange(patches_BTPD, "b t p d -> b (t p) d")
        else:
            pooled = rearrange(pooling[:run] @ patches_BTPD, "b t k d -> b (t k) d")
        return start + pooled

    def _of_run(self, table_TKD: torch.Tensor, run: int) -> torch.Tensor:
        """Select a table's rows of the registers that are run, (T, run, D)."""
        return rows_of(table_TKD, run, flat=self.config.form == "flat")


def rows_of(table_TKD: torch.Tensor, run: int, *, flat: bool) -> torch.Tensor:
    """(T, run, D): the first `run` ranks of each frame; of flat tokens the first T * run, in T rows."""
    if not flat:
        return table_TKD[:, :run]
    frames = len(table_TKD)
    return table_TKD.flatten(0, 1)[: frames * run].unflatten(0, (frames, run))


def register_pooling(config: VideoFlexTokConfig) -> torch.Tensor | None:
    """Averaging matrix from a frame's patches to its registers (K, P); flat: from all patches to all (T * K, T * P).

    Every power of two of them is a complete level of a pyramid, coarse to fine. None where registers are not pooled.
    """
    if not config.pooled or config.form == "grid":
        return None
    high, wide = config.grid
    if config.form == "flat":
        return pyramid((config.blocks * high, wide), config.blocks * config.registers)
    return pyramid(config.grid, config.registers)
