"""Heads that write the next visual token from a language model's state: codes, a flow, or a mean.

`codes` is the default: four softmaxes in sequence, each seeing the symbols before it, so that the product is the
likelihood of Eq. 10. The paper's tokens are continuous and it names no head; `flow` (MAR, arXiv 2406.11838) and `mse`
are other interpretations: they learn the coder's latents before quantisation. What they draw is moved to the nearest
codes, as the frozen decoder reads nothing else, so that heads differ in nothing but how they draw.

Legend: B clips, L tokens, D width, G groups, V symbols of a group, Z numbers of a latent.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from evatok.tokenizers.videoflextok.blocks import NoiseLevel
from evatok.tokenizers.videoflextok.flow_matching import NoiseLevels, euler, noised, target
from evatok.vtok.token_codes import DIMENSION, GROUPS, LATENT, SYMBOLS, Coder

HEADS = ("codes", "flow", "mse")
_STEPS = 20  # Euler steps of the flow head
_LEVELS = NoiseLevels()
_WHITENED = DIMENSION**0.5  # groups of unit length have this deviation's inverse; the noise has deviation 1


@dataclass(frozen=True)
class Tokens:
    """True tokens of B clips: codes (B, L, G), the codebooks' entries for them and the latents before (B, L, Z)."""

    codes: torch.Tensor
    values: torch.Tensor
    latents: torch.Tensor


class Head(nn.Module):
    """States (B, L, D) to tokens.

    Attributes:
        noise_shape: shape of the noise that one token needs.
        discrete: whether it learns codes, with a likelihood, instead of latents.
    """

    noise_shape: tuple[int, ...] = ()
    discrete = False

    @abstractmethod
    def loss(self, states: torch.Tensor, tokens: Tokens, generator: torch.Generator) -> torch.Tensor:
        """The training loss, ()."""

    @abstractmethod
    def draw(self, state_BD: torch.Tensor, coder: Coder, noise: torch.Tensor, temperature: float) -> torch.Tensor:
        """The codebooks' entries (B, Z) of the next token, from uniform (codes) or normal noise (B, *noise_shape)."""


class CodeHead(Head):
    """G softmaxes over V symbols; cross-entropy in nats per token."""

    noise_shape = (GROUPS, SYMBOLS)
    discrete = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.earlier = nn.ModuleList(nn.Embedding(SYMBOLS, width) for _ in range(GROUPS - 1))
        self.outs = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, SYMBOLS)) for _ in range(GROUPS)
        )
        for embedding in self.earlier:
            nn.init.normal_(next(embedding.parameters()), std=0.3)

    def logits(self, states: torch.Tensor, codes: torch.Tensor, group: int) -> torch.Tensor:
        """(..., V) of a group, from states (..., D) and the codes (..., at least `group`) before it."""
        for number in range(group):
            states = states + self.earlier[number](codes[..., number])
        return self.outs[group](states)

    def loss(self, states: torch.Tensor, tokens: Tokens, generator: torch.Generator) -> torch.Tensor:
        each = [
            F.cross_entropy(self.logits(states, tokens.codes, group).flatten(0, 1), tokens.codes[..., group].flatten())
            for group in range(GROUPS)
        ]
        return torch.stack(each).sum()

    def draw(self, state_BD: torch.Tensor, coder: Coder, noise: torch.Tensor, temperature: float) -> torch.Tensor:
        codes = torch.zeros(len(state_BD), GROUPS, dtype=torch.int64, device=state_BD.device)
        gumbel = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))
        for group in range(GROUPS):
            logits = self.logits(state_BD, codes, group)
            codes[:, group] = (logits + temperature * gumbel[:, group]).argmax(-1)
        return coder.values_of(codes)


class FlowHead(Head):
    """Rectified flow of a token's latent under the state: a 3-layer MLP."""

    noise_shape = (LATENT,)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level = NoiseLevel(width)
        self.mlp = nn.Sequential(
            nn.Linear(LATENT + width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, LATENT),
        )

    def loss(self, states: torch.Tensor, tokens: Tokens, generator: torch.Generator) -> torch.Tensor:
        aim, state = _WHITENED * tokens.latents.flatten(0, 1), states.flatten(0, 1)
        noise = torch.randn(aim.shape, generator=generator).to(aim)
        sigma = _LEVELS.draw(len(aim), generator).to(aim)
        return F.mse_loss(self.velocity(noised(aim, noise, sigma), sigma, state), target(aim, noise))

    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """(N, Z) of noised latents (N, Z)."""
        return self.mlp(torch.cat([x, state + self.level(sigma)], -1))

    def draw(self, state_BD: torch.Tensor, coder: Coder, noise: torch.Tensor, temperature: float) -> torch.Tensor:
        found = euler(lambda x, sigma: self.velocity(x, sigma, state_BD), temperature * noise, _STEPS)
        return coder.nearest(coder.on_spheres(found))


class MeanHead(Head):
    """The mean latent, by squared error: it averages over all possible continuations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, LATENT)

    def loss(self, states: torch.Tensor, tokens: Tokens, generator: torch.Generator) -> torch.Tensor:
        return F.mse_loss(self.out(states), tokens.latents)

    def draw(self, state_BD: torch.Tensor, coder: Coder, noise: torch.Tensor, temperature: float) -> torch.Tensor:
        return coder.nearest(coder.on_spheres(self.out(state_BD)))


def head_of(kind: str, width: int) -> Head:
    """Build a head by name, one of `HEADS`."""
    if kind == "codes":
        return CodeHead(width)
    return FlowHead(width) if kind == "flow" else MeanHead(width)
