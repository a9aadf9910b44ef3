"""The decoder: a DiT that predicts the velocity of noised latents from tokens (Sec. 3.2).

Legend: B clips, T latent frames, P patches per frame, V values per patch, k tokens per frame, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn

from evatok.storage.transfer import moved
from evatok.tokenizers.videoflextok.blocks import ModulatedBlock, NoiseLevel, norm
from evatok.tokenizers.videoflextok.config import VideoFlexTokConfig
from evatok.tokenizers.videoflextok.encoder import rows_of
from evatok.tokenizers.videoflextok.order import Order, decoder_mask, kept_tokens, with_absent


@dataclass(frozen=True)
class Condition:
    """What the decoder is conditioned on, besides noised latents.

    Attributes:
        values: (B, T, k, D) of the tokens, as output by the quantiser.
        lengths: (B, T) how many of them are kept in each frame; the others are dropped.
        null: (B,) clips whose tokens are dropped (guidance, or a length of 0); None for none.
        given: (B,) clips whose first latent frame is given clean: it makes that frame's tokens superfluous, and they
            are replaced; None for none.
        complete: whether all tokens are kept, if known without a device synchronisation; None: unknown.
    """

    values: torch.Tensor
    lengths: torch.Tensor
    null: torch.Tensor | None = None
    given: torch.Tensor | None = None
    complete: bool | None = None

    def without_tokens(self) -> Condition:
        """Return the condition without tokens, for guidance."""
        everywhere = torch.ones(len(self.values), dtype=torch.bool, device=self.values.device)
        return Condition(self.values, self.lengths, everywhere, self.given, self.complete)


class FlowDecoder(nn.Module):
    """Noised patches (B, T, P, V), noise levels (B,) and a `Condition` to velocities (B, T, P, V)."""

    def __init__(self, config: VideoFlexTokConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.config = config
        self.embedding = nn.Linear(config.patch_values, width, bias=False)
        self.patch_position = nn.Parameter(torch.randn(config.blocks, config.patches, width) * 0.02)
        self.token_position = nn.Parameter(torch.randn(config.blocks, config.registers, width) * 0.02)
        self.null_token = nn.Parameter(torch.randn(width) * 0.02)
        self.given_token = nn.Parameter(torch.randn(width) * 0.02)
        if config.drop == "mask":
            self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.noise_level = NoiseLevel(width)
        self.layers = nn.ModuleList(ModulatedBlock(width, config.decoder_heads) for _ in range(config.decoder_layers))
        self.last_modulation = nn.Linear(width, 2 * width)
        self.to_velocity = nn.Linear(width, config.patch_values)
        for linear in (self.last_modulation, self.to_velocity):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, noised_BTPV: torch.Tensor, sigma_B: torch.Tensor, condition: Condition, tap: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return velocities, and patch features (B, T, P, D) after layer `tap` (counted from 1), else None."""
        patches = self.embedding(noised_BTPV) + self.patch_position
        tokens, present = self._tokens(condition)
        count = tokens.shape[1]
        x_BND = torch.cat((tokens.to(patches.dtype), rearrange(patches, "b t p d -> b (t p) d")), dim=1)
        mask = self.mask(condition.values.shape[2], x_BND.device)
        if present is not None:
            mask = with_absent(mask, nn.functional.pad(present, (0, x_BND.shape[1] - count), value=True))
        level = self.noise_level(sigma_B)
        tapped = None
        for number, layer in enumerate(self.layers, start=1):
            x_BND = layer(x_BND, mask, level, count)
            if number == tap:
                tapped = self._in_frames(x_BND[:, count:])
        shift, scale = self.last_modulation(nn.functional.silu(level))[:, None].chunk(2, dim=-1)
        velocity = self.to_velocity(norm(x_BND[:, count:]) * (1 + scale) + shift)
        return self._in_frames(velocity).float(), tapped

    def mask(self, tokens: int, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """(N, N) with `tokens` tokens per frame in the sequence; None for full attention."""
        config = self.config
        flat = config.form == "flat"
        order = Order.of(config.blocks, config.patches, tokens, tokens_first=True, flat=flat)
        mask = decoder_mask(order, config.decoder_mask)
        return None if mask is None else moved(mask, device)

    def _tokens(self, condition: Condition) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return tokens (B, T * k, D) with positions, and which are present (B, T * k); None if all are."""
        values, lengths = condition.values, condition.lengths
        _, frames, count, _ = values.shape
        # Without tokens one null token per frame remains; how many a clip has must not depend on its batch.
        kept = kept_tokens(lengths.clamp_min(1), count)
        if self.config.drop == "mask":
            values = torch.where(kept[..., None], values, self.mask_token.to(values.dtype))
        if condition.null is not None:
            values = torch.where(condition.null[:, None, None, None], self.null_token.to(values.dtype), values)
        if condition.given is not None:
            first = (torch.arange(frames, device=values.device) == 0) & condition.given[:, None]
            values = torch.where(first[:, :, None, None], self.given_token.to(values.dtype), values)
        values = values + rows_of(self.token_position, count, flat=self.config.form == "flat")
        complete = self.config.drop != "truncate" or condition.complete
        absent = not (bool(kept.all()) if complete is None else complete)
        return rearrange(values, "b t k d -> b (t k) d"), kept.flatten(1) if absent else None

    def _in_frames(self, x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b (t p) d -> b t p d", t=self.config.blocks)
