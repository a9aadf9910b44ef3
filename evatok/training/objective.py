"""One training step of a tokenizer: the paper's complete objective (main eq. 2), every term of it logged.

    total = l1 + perceptual + adversarial + quantiser  +  0.7 * alignment  +  0.02 * entropy

The first four are the VQGAN loss, each with its own weight. Two terms are ours, with weight 0 at paper size: the
squared error of pixels, and that of frame differences within a block, without which small tokenizers learn to code
still images. Proxy and final tokenizers share the objective; they differ in the assignment rule.

Legend: B clips, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from evatok.assignments.rules import Rule
from evatok.metrics.perceptual import PerceptualDistance
from evatok.models.encoders import FrozenEncoder
from evatok.models.precision import autocast
from evatok.storage import pieces, ranks, transfer
from evatok.tokenizers.evatok import AdaptiveTokenizer, Reconstruction
from evatok.training import losses
from evatok.training.adversary import Adversary
from evatok.training.alignment import AlignmentHead
from evatok.training.batches import Batches
from evatok.training.loop import Terms


@dataclass(frozen=True)
class Alignment:
    """A frozen encoder, the decoder layer to align, and the encoder layer to align it to (0: embedding)."""

    encoder: FrozenEncoder
    decoder_layer: int
    encoder_layer: int


class TokenizerWithHead(nn.Module):
    """The trained parameters: a tokenizer, and the head that maps its decoder's features to the frozen encoder's."""

    def __init__(self, tokenizer: AdaptiveTokenizer, alignment: Alignment | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.head: AlignmentHead | None = None
        if alignment is not None:
            shape = tokenizer.config
            self.head = AlignmentHead(
                shape.decoder_width,
                (shape.candidates.blocks, *shape.grid),
                alignment.encoder.width,
                alignment.encoder.grid(shape.frames, shape.size),
            )


@dataclass
class TokenizerObjective:
    """The loss of one step: a batch, an assignment for each of its clips, the terms of main eq. 2.

    Attributes:
        weights: weight of each term, by name.
        perceptual_frames: frames per clip for the perceptual term, redrawn each step; 0: all.
        adaptive: scale the adversarial term by the ratio of gradients at the decoder's last layer (VQGAN's rule).
        groups: number of groups of similar length that a batch is run in.
        bf16: bfloat16 autocast of the networks; the terms are float32.
        fp16: float16 instead, of all but the discriminator, whose loss has no scale.
        rehearses: some terms depend on all clips of a batch (`evatok.storage.pieces`).
        direct_steps: first steps in which the convolutions of an image tokenizer also reconstruct by themselves, as
            GigaTok's do; the term is their weighted L1 and squared error.
    """

    batches: Batches
    rule: Rule
    weights: dict[str, float]
    perceptual: PerceptualDistance | None = None
    perceptual_frames: int = 0
    adversary: Adversary | None = None
    alignment: Alignment | None = None
    adaptive: bool = False
    groups: int = 1
    bf16: bool = True
    direct_steps: int = 0
    fp16: bool = False
    rehearses = True
    _rehearsed: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list, repr=False)
    _learnt: Terms = field(default_factory=dict, repr=False)

    def __call__(self, module: TokenizerWithHead, step: int, generator: torch.Generator) -> tuple[torch.Tensor, Terms]:
        real = self.batches.draw(step, generator)
        with autocast(real.device, self.bf16, self.fp16):
            lengths = self.rule(real, generator=generator)
            tap = self.alignment.decoder_layer if self.alignment else None
            made = module.tokenizer(real, lengths, tap=tap, groups=min(self.groups, len(real)))
        terms = self._terms(module, real, made, generator)
        if step < self.direct_steps:
            terms["direct"] = self._direct(module, real)
        logged = self._adversarial(real, made.clips, terms, step, generator)
        total = losses.weighted_sum(terms, self._weights_of(module, terms, step))
        return total, {**terms, **logged, "tokens": lengths.sum(1).float().mean()}

    def _terms(
        self, module: TokenizerWithHead, real: torch.Tensor, made: Reconstruction, generator: torch.Generator
    ) -> Terms:
        """Compute all terms but the adversarial one."""
        terms = {
            "l1": losses.l1(real, made.clips),
            "squared": losses.squared(real, self._for_term(made.clips, "squared")),
            "change": losses.change(real, self._for_term(made.clips, "change"), module.tokenizer.config.patch[0]),
            "quantiser": ranks.mean(made.quantised.loss, len(made.quantised.codes)),
        }
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(*self._some_frames(real, made.clips, generator)).mean()
        if self.weights["entropy"]:
            terms["entropy"] = losses.entropy(made.quantised.latents, codebook_of(module.tokenizer))
        if self.alignment is not None:
            assert module.head is not None
            assert made.tapped is not None
            with autocast(real.device, self.bf16, self.fp16):
                with torch.no_grad():
                    (teacher,) = self.alignment.encoder(real, [self.alignment.encoder_layer])
                student = module.head(made.tapped)
            terms["alignment"] = losses.alignment(student.float(), teacher.float())
        return terms

    def _direct(self, module: TokenizerWithHead, real: torch.Tensor) -> torch.Tensor:
        with autocast(real.device, self.bf16, self.fp16):
            fake = module.tokenizer.direct(real)
        return self.weights["l1"] * losses.l1(real, fake) + self.weights["squared"] * losses.squared(real, fake)

    def _for_term(self, fake: torch.Tensor, term: str) -> torch.Tensor:
        """Reconstructions for a term; detached for weight 0, where it is only logged."""
        return fake if self.weights.get(term, 1.0) else fake.detach()

    def _some_frames(
        self, real: torch.Tensor, fake: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the same frames (B, 3, perceptual_frames, H, W) of both, independently for each clip."""
        clips, frames = len(real), real.shape[2]
        if not 0 < self.perceptual_frames < frames:
            return real, fake
        order = ranks.share(torch.rand(ranks.whole(clips), frames, generator=generator)).argsort(1)
        drawn = transfer.moved(order[:, : self.perceptual_frames], real.device)
        rows = torch.arange(clips, device=real.device)[:, None]
        return _frames(real, rows, drawn), _frames(fake, rows, drawn)

    def _adversarial(
        self, real: torch.Tensor, fake: torch.Tensor, terms: Terms, step: int, generator: torch.Generator
    ) -> Terms:
        """Train the discriminator, then add the adversarial term to `terms`, 0 in its warm-up; returns what to log."""
        if self.adversary is None or not self.adversary.active(step):
            return {}
        with autocast(real.device, self.bf16):
            logged = self._learn(real, fake.detach(), step, generator)
            if (piece := pieces.current()) and piece.rehearsed:  # nothing else depends on it
                terms["adversarial"] = fake.new_zeros(())
            else:
                terms["adversarial"] = self.adversary.generator_loss(fake, step, generator)
        return logged

    def _learn(self, real: torch.Tensor, fake: torch.Tensor, step: int, generator: torch.Generator) -> Terms:
        """Train the discriminator; on all pieces of a batch at once, at the end of their rehearsal."""
        assert self.adversary is not None
        piece = pieces.current()
        if piece is None:
            return self.adversary.learn(real, fake, step, generator)
        if piece.rehearsed and self.adversary.learns(step):
            self._rehearsed.append((real, fake))
        if not (piece.rehearsed and piece.last):
            self.adversary.skip(step, generator)
            return {} if piece.rehearsed else self._learnt
        with torch.enable_grad(), pieces.within(None):
            self._learnt = {}
            if self._rehearsed:
                all_real, all_fake = (torch.cat(clips) for clips in zip(*self._rehearsed, strict=True))
                self._learnt = self.adversary.learn(all_real, all_fake, step, generator)
        self._rehearsed = []
        return self._learnt

    def _weights_of(self, module: TokenizerWithHead, terms: Terms, step: int) -> Mapping[str, float | torch.Tensor]:
        if not self.adaptive or self.adversary is None or not self.adversary.plays(step):
            return self.weights
        names = [name for name in ("l1", "squared", "perceptual") if name in terms]
        reconstruction = torch.stack([self.weights[name] * terms[name] for name in names]).sum()
        last_layer = module.tokenizer.decoder.last_layer
        ratio = losses.adaptive_weight(reconstruction, terms["adversarial"], last_layer)
        weight = (self.weights["adversarial"] * ratio.double()).to(ratio.dtype)  # rounded once
        return {**self.weights, "adversarial": weight}

    def state_dict(self) -> dict[str, Any]:
        return self.adversary.state_dict() if self.adversary else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.adversary:
            self.adversary.load_state_dict(state)


def _frames(clips: torch.Tensor, rows: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Select frames (B, n) of each clip (B, 3, T, H, W): (B, 3, n, H, W)."""
    return clips.transpose(1, 2)[rows, frames].transpose(1, 2)


def codebook_of(tokenizer: AdaptiveTokenizer) -> torch.Tensor:
    """Return the codebook (codes, dimension) for the entropy term. Raises ValueError for a quantiser without one."""
    codebook = tokenizer.quantiser.codebook
    if codebook is None:
        raise ValueError(f"the entropy term needs a codebook, {tokenizer.config.quantiser} has a fixed grid")
    return codebook
