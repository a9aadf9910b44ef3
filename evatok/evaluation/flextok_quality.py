"""Quality of a finished tokenizer at every length and number of flow steps, and whether its tokens are used.

Samples are drawn with fixed noise seeds, one per clip. Metrics are named <name>_k<tokens per latent frame>_steps<n>;
k = 0 are samples without tokens, steps = 1 the decoder's mean.

Legend: N clips, B clips of a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evatok.data.clips import ClipSet, network_batches
from evatok.metrics import catalogue, pixels
from evatok.metrics.motion import correlation_of, motion_moments, ratio_of
from evatok.models.precision import autocast
from evatok.storage.records import Metric
from evatok.tokenizers.videoflextok.flow_decoder import Condition
from evatok.tokenizers.videoflextok.flow_matching import flow_loss, seeded_noise, target
from evatok.tokenizers.videoflextok.model import VideoFlexTok
from evatok.training.flextok_alignment import Teacher


@dataclass(frozen=True)
class Measuring:
    """How samples are drawn, and the teacher whose features they are compared in (None: no comparison)."""

    steps: Sequence[int] = (1, 20)
    seed: int = 0
    batch: int = 16
    bf16: bool = False
    teacher: Teacher | None = None


@torch.no_grad()
def quality(tokenizer: VideoFlexTok, clips: ClipSet, how: Measuring) -> dict[str, Metric]:
    """Measure PSNR (dB), L1, sharpness, motion ratio and correlation, and feature cosine at every length and step
    count,"""
    metrics = _of_codec(tokenizer, clips, how)
    for tokens in (0, *tokenizer.config.kept_levels):
        for steps in how.steps:
            made = _Sums()
            for real, numbers in network_batches(clips.clips, how.batch, _device(tokenizer)):
                with autocast(real.device, how.bf16):
                    codes = tokenizer.encode(real, tokenizer.lengths(tokens, len(real)))
                    fake = tokenizer.decode(codes, steps=steps, seed=how.seed, indices=numbers).float()
                made.add(real, fake, how.teacher)
            metrics |= {f"{name}_k{tokens}_steps{steps}": metric for name, metric in made.metrics().items()}
    return metrics


@torch.no_grad()
def token_use(tokenizer: VideoFlexTok, clips: ClipSet, how: Measuring) -> dict[str, Metric]:
    """Compare the flow loss on pure noise with a clip's own and another clip's tokens: what they encode of the layout.

    Also the number of different codes in the clips' longest sequences. Each clip borrows the tokens of the next clip
    in its batch, so the batch must hold several.
    """
    own: dict[int, list[float]] = defaultdict(list)
    other: dict[int, list[float]] = defaultdict(list)
    seen: set[int] = set()
    network, levels = tokenizer.network, tokenizer.config.kept_levels
    for real, numbers in network_batches(clips.clips, how.batch, _device(tokenizer)):
        latents = tokenizer.codec.encode(real)
        noise = seeded_noise(latents.shape[1:], how.seed, numbers).to(latents.device)
        sigma = torch.ones(len(real), device=real.device)
        codes, values, _ = network.quantise(latents, levels[-1])
        seen |= set(codes.unique().tolist())
        for tokens in levels:
            lengths = tokenizer.lengths(tokens, len(real)).to(real.device)
            shown = values[:, :, :tokens] if tokenizer.config.drop == "truncate" else values
            for held, borrowed in ((own, shown), (other, shown.roll(-1, 0))):
                velocity = network.velocity(noise, sigma, Condition(borrowed, lengths))
                held[tokens].append(len(real) * float(flow_loss(velocity, target(latents, noise))))
    count = len(clips)
    metrics = {"codes_used": catalogue.of("codes_used").measured(len(seen), count)}
    for tokens in levels:
        metrics[f"noise_loss_k{tokens}"] = catalogue.of("noise_loss").measured(sum(own[tokens]) / count, count)
        metrics[f"noise_loss_of_others_k{tokens}"] = Metric(sum(other[tokens]) / count, "", count, None)
    return metrics


class _Sums:
    """Accumulates values of clips over batches."""

    def __init__(self) -> None:
        self.values: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.moments: list[np.ndarray] = []

    def add(self, real: torch.Tensor, fake: torch.Tensor, teacher: Teacher | None = None) -> None:
        self.values["psnr"].append(pixels.psnr(real, fake))
        self.values["l1"].append(pixels.l1(real, fake))
        self.values["sharpness"].append(sharpness(fake) / sharpness(real).clamp_min(1e-6))
        if real.shape[2] > 1:
            self.moments.append(motion_moments(real, fake).cpu().numpy())
        if teacher is not None:
            cosine = torch.cosine_similarity(teacher.targets(real), teacher.targets(fake), dim=-1)
            self.values["feature_cosine"].append(cosine.mean((1, 2)))

    def metrics(self) -> dict[str, Metric]:
        found = {name: torch.cat(values).double().cpu() for name, values in self.values.items()}
        count = len(found["psnr"])
        units, directions = {"psnr": "dB"}, {"l1": "lower", "sharpness": None}
        metrics = {
            name: Metric(float(values.mean()), units.get(name, ""), count, directions.get(name, "higher"))
            for name, values in found.items()
        }
        moments = np.concatenate(self.moments) if self.moments else np.empty((0, 8))
        for name, value in (("motion_ratio", ratio_of(moments)), ("motion_correlation", correlation_of(moments))):
            if len(moments) and np.isfinite(value):  # otherwise no clip changes
                metrics[name] = Metric(value, "", count, None if name == "motion_ratio" else "higher")
        return metrics


def sharpness(clips: torch.Tensor) -> torch.Tensor:
    """(B,) mean absolute difference of neighbouring pixels of clips (B, 3, F, H, W), per clip."""
    across, down = clips.diff(dim=4).abs().flatten(1), clips.diff(dim=3).abs().flatten(1)
    return (across.mean(1) + down.mean(1)) / 2


def _of_codec(tokenizer: VideoFlexTok, clips: ClipSet, how: Measuring) -> dict[str, Metric]:
    made = _Sums()
    for real, _ in network_batches(clips.clips, how.batch, _device(tokenizer)):
        codec = tokenizer.codec
        made.add(real, codec.decode(codec.encode(real), real.shape[2]).clamp(0, 1), how.teacher)
    return {f"{name}_codec": metric for name, metric in made.metrics().items()}


def _device(tokenizer: VideoFlexTok) -> torch.device:
    return next(tokenizer.network.parameters()).device
