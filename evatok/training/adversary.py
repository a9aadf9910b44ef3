"""The tokenizer's opponent: a discriminator, its optimiser and when it plays.

A training calls `generator_loss` for the term of its own loss and `learn` for the discriminator's step. Both are
driven by the training's step number and its generator, and `state_dict` holds the rest, so that a resumed training is
the unbroken one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evatok.training import losses
from evatok.training.augmentation import diff_augment
from evatok.training.loop import TrainingError, step_generator

LOSSES = ("hinge", "non_saturating")


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """How the opponent plays.

    Attributes:
        loss: "hinge" (GigaTok, with its semantic discriminator) or "non_saturating" (LARP, with its transformer).
        start: first step at which either side plays.
        interval: the discriminator learns at every so many steps from `start` on (LARP: 5).
        learning_rate: Adam's, constant (LARP: 3e-5).
        lecam: weight of the LeCam regulariser in the discriminator's loss (LARP: 0.001); 0 leaves it out.
        lecam_decay: of its running means, a discriminator step (LeCam: 0.999).
        smoothing: real labels are drawn from [1 - smoothing, 1]; of "non_saturating" only.
        augment: show the discriminator clips under DiffAug.
    """

    loss: str = "hinge"
    start: int
    interval: int = 1
    learning_rate: float
    betas: tuple[float, float] = (0.5, 0.9)
    lecam: float = 0.0
    lecam_decay: float = 0.999
    smoothing: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown adversarial loss {self.loss!r}: {' or '.join(LOSSES)}")
        if self.interval < 1 or self.start < 0:
            raise ValueError(f"interval must be at least 1 and start at least 0, got {self.interval} and {self.start}")
        if self.smoothing and self.loss == "hinge":
            raise ValueError(f"smoothing {self.smoothing} of labels makes no sense for the hinge loss, which has none")


class Adversary:
    """A discriminator in training.

    Args:
        discriminator: clips (B, 3, T, H, W) to logits (B,) or (B, X); already on its device.
        seed: of the adversary's own draws, mixed with each step's generator.
    """

    def __init__(self, discriminator: nn.Module, config: AdversaryConfig, seed: int) -> None:
        self.discriminator, self.config, self.seed = discriminator, config, seed
        self.trained = [p for p in discriminator.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.trained, lr=config.learning_rate, betas=config.betas)
        self.mean_real = self.mean_fake = 0.0

    def active(self, step: int) -> bool:
        """Whether the tokenizer plays against it at this step."""
        return step >= self.config.start

    def learn(
        self, real: torch.Tensor, fake: torch.Tensor, step: int, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """One step of the discriminator on clips and their reconstructions (B, 3, T, H, W), if it is due.

        Returns:
            Terms for the log, () each; none at a step that is not due. `discriminator` is its loss without LeCam,
            `lecam` that term unweighted, `logit_real` and `logit_fake` mean logits, `discriminator_accuracy` the
            share of logits on the right side of 0: at 1.0, or with logits running away, the game has collapsed.

        Raises:
            TrainingError: a term or the gradient is not finite; nothing was learned from it.
        """
        if not self.active(step) or (step - self.config.start) % self.config.interval:
            return {}
        self.discriminator.train()
        own = self._own_draws(generator)
        real_logits, fake_logits = map(self.discriminator, self._shown(own, real.detach(), fake.detach()))
        loss, terms = self._terms(real_logits, fake_logits, own)
        self._descend(loss, terms, step)
        self.mean_real = self._follow(self.mean_real, terms["logit_real"])
        self.mean_fake = self._follow(self.mean_fake, terms["logit_fake"])
        return terms

    def generator_loss(self, fake: torch.Tensor, step: int, generator: torch.Generator) -> torch.Tensor:
        """The tokenizer's term (), unweighted, differentiable with respect to `fake` and nothing else.

        0 before `start`. The discriminator is left as it was: no gradients, no state.
        """
        if not self.active(step):
            return fake.new_zeros(())
        (shown,) = self._shown(self._own_draws(generator), fake)
        with _as_judge(self.discriminator, self.trained):
            logits = self.discriminator(shown)
        hinge = self.config.loss == "hinge"
        return losses.hinge_generator(logits) if hinge else losses.non_saturating_generator(logits)

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser and LeCam's running means."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean_real": self.mean_real,
            "mean_fake": self.mean_fake,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean_real, self.mean_fake = state["mean_real"], state["mean_fake"]

    def _terms(
        self, real: torch.Tensor, fake: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The discriminator's loss and its terms for the log, from logits."""
        if self.config.loss == "hinge":
            loss = losses.hinge_discriminator(real, fake)
        else:
            loss = losses.non_saturating_discriminator(real, fake, self.config.smoothing, generator)
        terms = {"discriminator": loss, "logit_real": real.mean(), "logit_fake": fake.mean()}
        if self.config.lecam:
            terms["lecam"] = losses.lecam(real, fake, self.mean_real, self.mean_fake)
            loss = loss + self.config.lecam * terms["lecam"]
        right = torch.cat(((real > 0).flatten(), (fake < 0).flatten()))
        terms["discriminator_accuracy"] = right.float().mean()
        return loss, {name: value.detach() for name, value in terms.items()}

    def _descend(self, loss: torch.Tensor, terms: dict[str, torch.Tensor], step: int) -> None:
        bad = [name for name, value in terms.items() if not torch.isfinite(value)]
        if bad:
            raise TrainingError(f"step {step}: the discriminator's terms {bad} are not finite; last state kept")
        self.optimiser.zero_grad()
        # The forward pass may have been under autocast; a backward pass follows its types by itself.
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        if not torch.isfinite(norm):
            raise TrainingError(f"step {step}: the discriminator's gradient has norm {norm.item()}; last state kept")
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _follow(self, mean: float, new: torch.Tensor) -> float:
        return self.config.lecam_decay * mean + (1 - self.config.lecam_decay) * float(new)

    def _own_draws(self, generator: torch.Generator) -> torch.Generator:
        """A generator of the adversary's own, which takes one draw from the step's whatever it is used for."""
        return step_generator(self.seed, int(torch.randint(2**62, (), generator=generator)))

    def _shown(self, own: torch.Generator, *clips: torch.Tensor) -> list[torch.Tensor]:
        """Clips as the discriminator sees them: a reconstruction is augmented just as its original."""
        if not self.config.augment:
            return list(clips)
        seed = int(torch.randint(2**62, (), generator=own))
        return [diff_augment(some, torch.Generator().manual_seed(seed)) for some in clips]


@contextmanager
def _as_judge(discriminator: nn.Module, trained: list[nn.Parameter]) -> Iterator[None]:
    """In evaluation mode, so that power iterations stand still, and without gradients of its own weights."""
    mode = discriminator.training
    discriminator.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        discriminator.train(mode)
        for parameter in trained:
            parameter.requires_grad_(True)
