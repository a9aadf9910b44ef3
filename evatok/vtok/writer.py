"""The language model as a writer: a caption, then a clip's visual tokens, one after another (Eqs. 8 to 10).

It is the model of stages A and B with an additional kind of position, for caption words, and a head. What it writes
goes back through the same projector that reads true tokens. Codes are discrete, so no gradient of the video decoder's
loss (Eq. 11) reaches the model.

Legend: B clips, W words of a caption, L tokens, D width, Z numbers of a token's value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from evatok.data.embedded.scene_text import vocabulary
from evatok.models.attention import KeysValues, append
from evatok.models.trained import Trained
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.vtok.captions import LONGEST, PADDING, trimmed
from evatok.vtok.language_model import LanguageModelConfig, LanguageModelError, Layer, VideoLanguageModel
from evatok.vtok.strategies import Strategy
from evatok.vtok.token_codes import SPATIAL, TokenCoder, motion_kind, spatial_tokens
from evatok.vtok.token_heads import HEADS, Tokens, head_of
from evatok.vtok.tokens import RawTokens, VideoTokens, placed


class VideoWriter(Trained, nn.Module):
    """Captions to visual tokens of one strategy."""

    KIND = "vtok_writer"

    def __init__(self, config: LanguageModelConfig, strategy: Strategy, head: str = "codes") -> None:
        super().__init__()
        if head not in HEADS:
            raise LanguageModelError(f"head {head!r} is not one of {', '.join(HEADS)}")
        self.config, self.strategy, self.head_name = config, strategy, head
        motion_kind(strategy)  # rejects a strategy without codes
        self.language = VideoLanguageModel(config, strategy)
        self.language.visual = VideoTokens(strategy, config.channels, config.width, cell_by_cell=True)
        self.positions = nn.Parameter(0.02 * torch.randn(LONGEST, config.width))
        self.begin = nn.Parameter(0.02 * torch.randn(config.width))
        self.head = head_of(head, config.width)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        """See `Trained.of_checkpoint`. Raises LanguageModelError for a checkpoint of another vocabulary."""
        if checkpoint.facts.get("vocabulary") != list(vocabulary()):
            raise LanguageModelError(f"{path}: its vocabulary is not the current one of moving-shapes; train it again")
        shape = checkpoints.shaped(LanguageModelConfig, checkpoint.config["model"])
        strategy = Strategy.from_dict(checkpoint.config["strategy"])
        writer = cls(shape, strategy, str(checkpoint.config["head"]), **parts)
        writer.checkpoint = checkpoint
        return writer

    def states(self, captions_BW: torch.Tensor, raw: RawTokens) -> torch.Tensor:
        """Return (B, L, D) states from which each token is written, given the caption and the previous tokens."""
        visual = self.language.visual.embed(raw)
        prefix, there = self._prefix(captions_BW)
        x = torch.cat([prefix, visual[:, :-1]], 1)
        keys = torch.cat([there, there.new_ones(len(x), visual.shape[1] - 1)], 1)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        for layer in self.language.layers:
            x = layer(x, keys[:, None, None] & causal)
        return self.language.norm(x[:, prefix.shape[1] - 1 :])

    def loss(
        self, captions_BW: torch.Tensor, tokens: Tokens, coder: TokenCoder, frames: int, generator: torch.Generator
    ) -> torch.Tensor:
        """The head's training loss on true tokens, ()."""
        raw = coder.raw(tokens.values, self.strategy, frames)
        return self.head.loss(self.states(captions_BW, raw), tokens, generator)

    @torch.no_grad()
    def write(
        self,
        captions_BW: torch.Tensor,
        coder: TokenCoder,
        frames: int,
        *,
        indices: np.ndarray,
        seed: int = 0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Return the codebooks' entries (B, L, Z) of tokens; clip i draws from (seed, i), whatever its batch."""
        strategy, count = self.strategy, self.strategy.length()
        visual = self.language.visual
        places = placed(strategy, frames, visual.cells, visual.moments, visual.kinds)
        x, there = self._prefix(captions_BW)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        past: list[KeysValues | None] = [None] * len(self.language.layers)
        mask, written = there[:, None, None] & causal, []
        noises = [_generator(seed, int(index)) for index in indices]
        for number in range(count):
            state = self._advance(x, past, mask)[:, -1]
            spatial = number < spatial_tokens(strategy)
            own = coder.of(SPATIAL if spatial else motion_kind(strategy))
            value = self.head.draw(state, own, self._noise(noises).to(x), temperature)
            written.append(value)
            projector = visual.project if spatial else visual.motion
            x = (projector(own.back(value)) + places[number])[:, None]
            there = torch.cat([there, there[:, :1]], 1)
            mask = there[:, None, None]
        return torch.stack(written, 1) if written else x.new_zeros(len(x), 0, 0)

    def _prefix(self, captions_BW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, 1 + w + 1, D): start, caption and end mark, and which positions are valid; w words at most."""
        captions_BW = trimmed(captions_BW)
        language, said = self.language, captions_BW != PADDING
        text = language.embedding(captions_BW.clamp_min(0)) + self.positions[: captions_BW.shape[1]]
        ends = [part.expand(len(text), 1, -1) for part in (language.start, self.begin)]
        there = torch.ones_like(said[:, :1])
        return torch.cat([ends[0], text, ends[1]], 1), torch.cat([there, said, there], 1)

    def _advance(self, x: torch.Tensor, past: list[KeysValues | None], mask: torch.Tensor) -> torch.Tensor:
        """Return states of elements x (B, n, D) after all previous ones, whose keys and values are in `past`."""
        for number, module in enumerate(self.language.layers):
            layer: Layer = module  # type: ignore[assignment]
            normed = layer.attention_norm(x)
            new, before = layer.attention.keys_values(normed), past[number]
            memory = past[number] = new if before is None else append(before, new)
            x = x + layer.attention(normed, memory, mask)
            x = x + layer.mlp(layer.mlp_norm(x))
        return self.language.norm(x)

    def _noise(self, generators: list[torch.Generator]) -> torch.Tensor:
        """Return (B, *noise_shape) for one token: uniform for codes, otherwise normal."""
        draw = torch.rand if self.head.discrete else torch.randn
        return torch.stack([draw(self.head.noise_shape, generator=one) for one in generators])


def _generator(seed: int, index: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed, index, 2]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))
