"""Metrics of a tokenizer's training for its record: pace, quality under a rule, the discriminator's accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.assignments.rules import Rule
from evatok.data.clips import ClipSet, network_batches
from evatok.evaluation import flops
from evatok.experiments.setting import autocast
from evatok.experiments.tokenizer_parts import shape_of
from evatok.metrics import catalogue
from evatok.metrics.motion import correlation_of, motion_moments, ratio_of
from evatok.metrics.pixels import psnr
from evatok.storage import records
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training import loop


def pace(folder: Path, config: dict[str, Any]) -> dict[str, float]:
    """Return seconds per step, tokens and floating-point operations per second over the whole training so far.

    On a GPU of known peak also `utilisation`, the share of it used by the tokenizer's own operations.
    """
    last = loop.read_curve(folder)[-1]
    seconds = loop.seconds_spent(folder)
    totals = np.array([last["tokens"]])
    operations = flops.flops_of_training("stage4_final", shape_of(config), {**config, "steps": last["step"]}, totals)
    found = {
        "step_seconds": seconds / last["step"],
        "tokens_per_second": config["batch"] * last["tokens"] * last["step"] / seconds,
        "flops_per_second": operations / seconds,
    }
    peak = flops.peak_flops(torch.cuda.get_device_name()) if config["device"] == "cuda" else None
    return {**found, "utilisation": flops.utilisation(operations, seconds, peak)} if peak else found


@torch.no_grad()
def quality_under(
    tokenizer: AdaptiveTokenizer, clips: ClipSet, rule: Rule, config: dict[str, Any]
) -> dict[str, records.Metric]:
    """Return mean PSNR in dB, motion ratio and correlation (videos only), and mean tokens under an assignment rule."""
    generator = loop.step_generator(config["seed"], config["steps"])
    values, tokens, moments = [], [], []
    for real, _ in network_batches(clips.clips, config["batch"], config["device"]):
        with autocast(config):
            lengths = rule(real, generator=generator)
            fake = tokenizer(real, lengths).clips.float().clamp(0, 1)
        values.append(psnr(real, fake))
        if real.shape[2] > 1:
            moments.append(motion_moments(real, fake).cpu())
        tokens.append(lengths.sum(1).float())
    count = len(clips)
    metrics = {
        "psnr": catalogue.of("psnr").measured(float(torch.cat(values).mean()), count),
        "mean_tokens": catalogue.of("mean_tokens").measured(float(torch.cat(tokens).mean()), count),
    }
    if not moments:
        return metrics
    motion = torch.cat(moments).numpy()
    for name, value in (("motion_ratio", ratio_of(motion)), ("motion_correlation", correlation_of(motion))):
        if np.isfinite(value):  # otherwise no clip changes
            metrics[name] = catalogue.of(name).measured(value, count)
    return metrics


def discriminator_accuracy(folder: Path) -> dict[str, records.Metric]:
    """Return the discriminator's accuracy over the last lines of the curve: at 1.0 it has won and teaches nothing."""
    name, last = "discriminator_accuracy", loop.read_curve(folder)[-1]
    if name not in last:
        return {}
    return {name: catalogue.of(name).measured(last[name], 1)}
