"""The adversary of a tokenizer's training: a discriminator, its optimiser and its schedule.

A training calls `learn` for the discriminator's step and `generator_loss` for the adversarial term of its own loss.
Both depend on the training's step number and generator, and `state_dict` holds the rest, so that a resumed training
equals an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evatok.storage import ranks
from evatok.training import losses, watch
from evatok.training.augmentation import diff_augment
from evatok.training.loop import step_generator

LOSSES = ("hinge", "non_saturating")


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """How to train the discriminator.

    Attributes:
        loss: "hinge" (GigaTok, with its semantic discriminator) or "non_saturating" (LARP, with its transformer).
        start: first step in which the discriminator is trained.
        warmup: steps from `start` on in which it is trained but excluded from the tokenizer's loss.
        interval: steps between updates of the discriminator, from `start` on (LARP: 5).
        learning_rate: Adam's, constant (LARP: 3e-5).
        lecam: weight of the LeCam regulariser in the discriminator's loss (LARP: 0.001); 0 disables it.
        lecam_decay: decay of its running means per discriminator step (LeCam: 0.999).
        smoothing: draw real labels from [1 - smoothing, 1]; only for "non_saturating".
        augment: apply DiffAug to the clips that the discriminator sees.
        frames: consecutive frames per clip that it sees, from a start redrawn for every clip and update; 0: all.
    """

    loss: str = "hinge"
    start: int
    warmup: int = 0
    interval: int = 1
    learning_rate: float
    betas: tuple[float, float] = (0.5, 0.9)
    lecam: float = 0.0
    lecam_decay: float = 0.999
    smoothing: float = 0.0
    augment: bool = False
    frames: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown adversarial loss {self.loss!r}; choose {' or '.join(LOSSES)}")
        if self.interval < 1 or min(self.start, self.warmup, self.frames) < 0:
            raise ValueError(
                "interval must be at least 1, start, warmup and frames at least 0, got "
                f"{self.interval}, {self.start}, {self.warmup} and {self.frames}"
            )
        if self.smoothing and self.loss == "hinge":
            raise ValueError(f"smoothing {self.smoothing} needs loss non_saturating: the hinge loss has no labels")


class Adversary:
    """A discriminator and its training.

    Args:
        discriminator: maps clips (B, 3, T, H, W) to logits (B,) or (B, X); already on its device.
        seed: of the adversary's random numbers, mixed with each step's generator.
    """

    def __init__(self, discriminator: nn.Module, config: AdversaryConfig, seed: int) -> None:
        self.discriminator, self.config, self.seed = discriminator, config, seed
        self.trained = [p for p in discriminator.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.trained, lr=config.learning_rate, betas=config.betas)
        self.mean_real: torch.Tensor | float = 0.0
        self.mean_fake: torch.Tensor | float = 0.0

    def active(self, step: int) -> bool:
        """Whether the discriminator is trained at this step, or may be."""
        return step >= self.config.start

    def learns(self, step: int) -> bool:
        """Whether the discriminator is updated at this step."""
        return self.active(step) and (step - self.config.start) % self.config.interval == 0

    def plays(self, step: int) -> bool:
        """Whether the tokenizer's loss has an adversarial term at this step."""
        return step >= self.config.start + self.config.warmup

    def learn(
        self, real: torch.Tensor, fake: torch.Tensor, step: int, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Update the discriminator on clips and their reconstructions (B, 3, T, H, W), if an update is due.

        Returns:
            Scalar terms for the log; empty if no update is due. `discriminator` is its loss without LeCam, `lecam` that
            term unweighted, `logit_real` and `logit_fake` are mean logits, `discriminator_accuracy` is the share of
            logits on the correct side of 0: at 1.0, or with diverging logits, the training has collapsed.

        Its terms and its gradient have to be finite (`evatok.training.watch`).
        """
        if not self.learns(step):
            return {}
        self.discriminator.train()
        own_generator = self._own_generator(generator)
        real_logits, fake_logits = map(self.discriminator, self._augmented(own_generator, real.detach(), fake.detach()))
        loss, terms = self._terms(real_logits, fake_logits, own_generator)
        self._descend(loss, terms, step)
        self.mean_real = self._running_mean(self.mean_real, terms["logit_real"])
        self.mean_fake = self._running_mean(self.mean_fake, terms["logit_fake"])
        return terms

    def skip(self, step: int, generator: torch.Generator) -> None:
        """Consume the same draws from the step's generator as `learn`."""
        if self.learns(step):
            self._own_generator(generator)

    def generator_loss(self, fake: torch.Tensor, step: int, generator: torch.Generator) -> torch.Tensor:
        """The tokenizer's adversarial term (), unweighted, differentiable only with respect to `fake`.

        0 before `start` and during the warm-up. The discriminator gets no gradients, and its state does not change.
        """
        if not self.plays(step):
            return fake.new_zeros(())
        (augmented,) = self._augmented(self._own_generator(generator), fake)
        with _frozen(self.discriminator, self.trained):
            logits = self.discriminator(augmented)
        hinge = self.config.loss == "hinge"
        return losses.hinge_generator(logits) if hinge else losses.non_saturating_generator(logits)

    def state_dict(self) -> dict[str, Any]:
        """State of the network, the optimiser and LeCam's running means."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean_real": float(self.mean_real),
            "mean_fake": float(self.mean_fake),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean_real, self.mean_fake = state["mean_real"], state["mean_fake"]

    def _terms(
        self, real: torch.Tensor, fake: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the discriminator's loss, and its terms for the log, from logits."""
        if self.config.loss == "hinge":
            loss = losses.hinge_discriminator(real, fake)
        else:
            loss = losses.non_saturating_discriminator(real, fake, self.config.smoothing, generator)
        terms = {"discriminator": loss, "logit_real": real.mean(), "logit_fake": fake.mean()}
        if self.config.lecam:
            terms["lecam"] = losses.lecam(real, fake, self.mean_real, self.mean_fake)
            loss = loss + self.config.lecam * terms["lecam"]
        correct = torch.cat(((real > 0).flatten(), (fake < 0).flatten()))
        terms["discriminator_accuracy"] = correct.float().mean()
        return loss, {name: ranks.average(value.detach()) for name, value in terms.items()}

    def _descend(self, loss: torch.Tensor, terms: dict[str, torch.Tensor], step: int) -> None:
        finite = torch.stack([torch.isfinite(value) for value in terms.values()]).all()  # terms of all ranks
        watch.expect(finite, lambda: _of_terms(step, terms))
        self.optimiser.zero_grad()
        # The forward pass may have run under autocast; the backward pass uses the same types by itself.
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()
        ranks.average_gradients(self.trained)
        norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        told = f"step {step}: the discriminator's gradient has norm"
        watch.expect(torch.isfinite(norm), lambda: f"{told} {norm.item()}; last state kept")
        self.optimiser.step()
        self.optimiser.zero_grad()

    def _running_mean(self, mean: torch.Tensor | float, new: torch.Tensor) -> torch.Tensor:
        """Update a running mean in float64, the precision of the saved state."""
        return self.config.lecam_decay * mean + (1 - self.config.lecam_decay) * new.double()

    def _own_generator(self, generator: torch.Generator) -> torch.Generator:
        """Make the adversary's own generator; it takes exactly one draw from the step's, however it is used."""
        return step_generator(self.seed, int(torch.randint(2**62, (), generator=generator)))

    def _augmented(self, generator: torch.Generator, *batches: torch.Tensor) -> list[torch.Tensor]:
        """Cut and augment batches of clips for the discriminator, a reconstruction exactly as its original."""
        if 0 < self.config.frames < batches[0].shape[2]:
            latest, clips = batches[0].shape[2] - self.config.frames, ranks.whole(len(batches[0]))
            starts = ranks.share(torch.randint(latest + 1, (clips,), generator=generator))
            batches = tuple(_windows(batch, starts.tolist(), self.config.frames) for batch in batches)
        if not self.config.augment:
            return list(batches)
        seed = int(torch.randint(2**62, (), generator=generator))
        return [diff_augment(clips, torch.Generator().manual_seed(seed)) for clips in batches]


def _of_terms(step: int, terms: dict[str, torch.Tensor]) -> str:
    odd = [name for name, value in terms.items() if not torch.isfinite(value)]
    return f"step {step}: the discriminator's terms {odd} are not finite; last state kept"


def _windows(clips: torch.Tensor, starts: list[int], frames: int) -> torch.Tensor:
    """Frames start to start + `frames` of each clip (B, 3, T, H, W): (B, 3, frames, H, W)."""
    return torch.stack([clip[:, start : start + frames] for clip, start in zip(clips, starts, strict=True)])


@contextmanager
def _frozen(discriminator: nn.Module, trained: list[nn.Parameter]) -> Iterator[None]:
    """Freeze the discriminator: eval mode (no spectral-norm updates), no weight gradients."""
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
