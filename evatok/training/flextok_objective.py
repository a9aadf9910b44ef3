"""One training step of VideoFlexTok: rectified flow and alignment, in both of its stages (Sec. 3.2, F.1).

    total = flow + weight * alignment

Stage 1 trains everything. Stage 2 trains the decoder on a frozen encoder's codes, and gives it the first latent frame
of half of the clips: clean, its loss left out, its tokens replaced.

Legend: B clips, T latent frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from evatok.data.clips import to_network
from evatok.models.latents import LatentCodec
from evatok.models.precision import autocast
from evatok.storage.transfer import moved
from evatok.tokenizers.videoflextok.flow_decoder import Condition
from evatok.tokenizers.videoflextok.flow_matching import NoiseLevels, between, check_levels, flow_loss, target
from evatok.tokenizers.videoflextok.model import FlexNetwork
from evatok.tokenizers.videoflextok.nested_dropout import NestedDropout
from evatok.training.batches import Batch, Batches
from evatok.training.flextok_alignment import ReadoutHead, Teacher, alignment_loss
from evatok.training.flextok_targets import StoredTargets
from evatok.training.loop import Terms


class FlexTrainee(nn.Module):
    """The network and the head that maps decoder features to the teacher's."""

    def __init__(self, network: FlexNetwork, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.network = network
        self.head = ReadoutHead(network.config, teacher) if teacher else None


@dataclass(frozen=True)
class Draws:
    """Everything drawn at random for a batch.

    Attributes:
        lengths: (B, T) tokens kept.
        null: (B,) clips whose tokens are replaced by null tokens.
        given: (B,) clips whose first latent frame is given; None in stage 1.
        sigma: (B,) noise levels.
        first_sigma: (B,) those of a given first frame, small.
        noise: of the latents' shape.
        longest: of the lengths.
        complete: whether all frames keep that many tokens.
    """

    lengths: torch.Tensor
    null: torch.Tensor
    given: torch.Tensor | None
    sigma: torch.Tensor
    first_sigma: torch.Tensor
    noise: torch.Tensor
    longest: int
    complete: bool


@dataclass
class FlexObjective:
    """The loss of one step.

    Attributes:
        null_probability: share of clips trained without tokens, for guidance.
        stored: the teacher's targets of all clips; None computes those of a batch.
        alignment_weight: of the alignment with `teacher`.
        first_probability: share of clips whose first latent frame is given; 0 in stage 1.
        first_noise: half of the given frames have noise up to this level.
        frozen_encoder: keep encoder and quantiser frozen (stage 2).
        bf16: autocast of the network; losses are float32.
    """

    batches: Batches
    codec: LatentCodec
    dropout: NestedDropout
    noise_levels: NoiseLevels
    teacher: Teacher | None = None
    stored: StoredTargets | None = None
    alignment_weight: float = 1.0
    null_probability: float = 0.1
    first_probability: float = 0.0
    first_noise: float = 0.02
    frozen_encoder: bool = False
    bf16: bool = False

    def __call__(self, trainee: FlexTrainee, step: int, generator: torch.Generator) -> tuple[torch.Tensor, Terms]:
        batch = self.batches.take(step, generator)
        clips = to_network(batch.pixels, self.batches.device)
        latents = self.codec.encode(clips)
        draws = self.draw(latents, generator)
        network = trainee.network
        tap = network.config.alignment_layer if self.teacher else None
        with autocast(clips.device, self.bf16):
            values = self._values(network, latents, draws.longest)
            condition = Condition(values, draws.lengths, draws.null, draws.given, draws.complete)
            noisy = network.patchify(self.noised(latents, draws))
            velocity, tapped = network.decoder(noisy, draws.sigma, condition, tap)
            student = trainee.head(tapped) if trainee.head is not None else None
        aim = network.patchify(target(latents, draws.noise))
        terms = {"flow": flow_loss(velocity, aim, self._counted(draws))}
        if self.teacher is not None and student is not None:
            terms["alignment"] = alignment_loss(student, self._targets(self.teacher, batch, clips))
        total = terms["flow"] + self.alignment_weight * terms.get("alignment", latents.new_zeros(()))
        return total, {**terms, "tokens": draws.lengths.sum(1).float().mean()}

    def _targets(self, teacher: Teacher, batch: Batch, clips: torch.Tensor) -> torch.Tensor:
        """Return the teacher's features of the clips, stored or computed."""
        if self.stored:
            return self.stored.targets(batch.rows, batch.mirrored, clips.device)
        with autocast(clips.device, self.bf16):
            return teacher.targets(clips)

    def draw(self, latents: torch.Tensor, generator: torch.Generator) -> Draws:
        """Draw the random choices of a step from a generator on the CPU."""
        clips, device = len(latents), latents.device
        lengths = self.dropout.lengths(clips, generator)
        null = torch.rand(clips, generator=generator) < self.null_probability
        given = torch.rand(clips, generator=generator) < self.first_probability
        blurred = torch.rand(clips, generator=generator) < 0.5
        first_sigma = torch.rand(clips, generator=generator) * self.first_noise * blurred
        sigma = self.noise_levels.draw(clips, generator)
        noise = torch.randn(latents.shape, generator=generator)
        check_levels(torch.cat((sigma, first_sigma)))
        longest = int(lengths.max())
        return Draws(
            moved(lengths, device),
            moved(null, device),
            moved(given, device) if self.first_probability else None,
            moved(sigma, device),
            moved(first_sigma, device),
            moved(noise, device),
            longest,
            complete=bool((lengths >= longest).all()),
        )

    @staticmethod
    def noised(latents: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return latents at their clips' noise levels, given first frames at their own."""
        noisy = between(latents, draws.noise, draws.sigma)
        if draws.given is None:
            return noisy
        first = between(latents[:, :1], draws.noise[:, :1], draws.first_sigma)
        chosen = torch.where(draws.given[:, None, None, None, None], first, noisy[:, :1])
        return torch.cat((chosen, noisy[:, 1:]), dim=1)

    def _values(self, network: FlexNetwork, latents: torch.Tensor, tokens: int) -> torch.Tensor:
        with torch.set_grad_enabled(not self.frozen_encoder):
            _, values, _ = network.quantise(latents, tokens)
        return values

    @staticmethod
    def _counted(draws: Draws) -> torch.Tensor | None:
        """(B, T) frames whose loss counts; None for all."""
        if draws.given is None:
            return None
        counted = torch.ones_like(draws.lengths, dtype=torch.float32)
        counted[:, 0] = (~draws.given).float()
        return counted
