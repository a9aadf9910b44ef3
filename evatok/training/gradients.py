"""Gradients of a training step: of a whole batch or in pieces, over ranks, in float16 with a scaled loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from evatok.storage import pieces, ranks
from evatok.training import watch
from evatok.training.parallel import StepCall, Terms, step_call, unsynchronised
from evatok.training.recipe import Recipe
from evatok.training.sharding import whole


class Gradients:
    """Computes the loss of a step, its terms and its gradients, which are accumulated into the module's."""

    def __init__(self, module: nn.Module, step_loss: Callable[..., Any], recipe: Recipe) -> None:
        self.module, self.step_loss, self.recipe = module, step_loss, recipe
        self.call: StepCall = step_call(module, step_loss)
        device = next(module.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=recipe.fp16)

    def __call__(self, step: int) -> Terms:
        """Return the terms of the step, including `loss`, which must be finite (`evatok.training.watch`)."""
        parts = [self._part(step, piece) for piece in self._pieces(step)]
        if len(parts) == 1:
            return parts[0]
        return {name: torch.stack([part[name].float() for part in parts]).mean(0) for name in parts[0]}

    def _part(self, step: int, piece: pieces.Piece | None) -> Terms:
        with pieces.within(piece), self._alone(piece):
            loss, terms = self.call(step, seeded(self.recipe.seed, step))
            detached = {name: value.detach() for name, value in {**terms, "loss": loss}.items()}
            watch.expect(torch.isfinite(detached["loss"]), lambda: _of_loss(step, detached))
            self.scaler.scale(loss / (piece.of if piece else 1)).backward()
        return dict(detached)  # the caller adds to it

    def _pieces(self, step: int) -> Iterator[pieces.Piece | None]:
        """Yield the pieces of a step, rehearsed if its terms depend on one another."""
        count, ledger = self.recipe.accumulate, pieces.Ledger()
        if count == 1:
            yield None
            return
        if getattr(self.step_loss, "rehearses", False):
            for number in range(count):
                ledger.begin()
                with torch.no_grad(), pieces.within(pieces.Piece(number, count, ledger)):
                    self.step_loss(self.module, step, seeded(self.recipe.seed, step))
            ranks.rehearsed(ledger)
        ledger.complete = True
        for number in range(count):
            ledger.begin()
            yield pieces.Piece(number, count, ledger)

    def _alone(self, piece: pieces.Piece | None) -> AbstractContextManager[Any]:
        """Average gradients over ranks only once, with the last piece."""
        return nullcontext() if piece is None or piece.last else unsynchronised(self.call)

    def descend(self, step: int, optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> Terms:
        """Step the optimiser along the clipped gradients; return their norm before clipping, which must be finite.

        With `fp16` a step whose gradients overflow is skipped (`left_out`) and the scale lowered; only at a scale of 1
        must they be finite.
        """
        self.scaler.unscale_(optimiser)
        norm = whole(nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip_norm))
        taken = torch.isfinite(norm)
        # Even a finite loss can have such a gradient; a step along it corrupts the weights.
        fits = taken | (self.scaler.scale(torch.ones_like(norm)) > 1) if self.recipe.fp16 else taken
        watch.expect(fits, lambda: _of_gradient(step, norm, loss))
        self.scaler.step(optimiser)
        self.scaler.update()
        return {"gradient_norm": norm, **({"left_out": 1.0 - taken.float()} if self.recipe.fp16 else {})}


def _of_loss(step: int, terms: Terms) -> str:
    odd = [name for name, value in terms.items() if name != "loss" and not torch.isfinite(value).all()]
    return f"step {step}: the loss is {terms['loss'].item()} (terms not finite: {odd}); last state kept"


def _of_gradient(step: int, norm: torch.Tensor, loss: torch.Tensor) -> str:
    return f"step {step}: the gradient's norm is {norm.item()} at loss {loss.item()}; last state kept"


def step_generator(seed: int, step: int) -> torch.Generator:
    """Make the random generator of a step."""
    mixed = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))


def seeded(seed: int, step: int) -> torch.Generator:
    """Return the generator of a step, and seed the global one alike, which layers such as dropout draw from."""
    generator = step_generator(seed, step)
    torch.manual_seed(int(generator.initial_seed() % 2**63))
    return generator
