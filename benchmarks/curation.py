"""Stage 2 projected: the cost of scoring the paper's 100,000 clips on this device at this size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from benchmarks.networks import random_vgg
from benchmarks.ratios import Ratio, once
from benchmarks.setting import Setting, noise, tokenizer_of, uniform_lengths
from evatok.evaluation import flops
from evatok.metrics.perceptual import PerceptualDistance
from evatok.search.tree import SEARCHES

CLIPS = 100_000
"""Clips that the paper scored, in half a day on 4 x 64 V100s (supplement, Table 2)."""


def projection(setting: Setting) -> list[Ratio]:
    """Project hours and operations to the paper's number of clips, for brute force and the prefix tree."""
    count = 16 if setting.device == "cuda" else 4
    tokenizer, clips, perceptual = tokenizer_of(setting), noise(setting, count), _perceptual(setting)
    works = [setting.within(partial(SEARCHES[name], tokenizer, clips, perceptual)) for name in ("brute", "tree")]
    tokenizer(clips, uniform_lengths(replace(setting, batch=count)))  # one call is enough to warm up long searches
    seconds = [once(work, setting.device) / count for work in works]
    hours = [each * CLIPS / 3600 for each in seconds]
    operations = [flops.scoring_operations(setting.tokenizer, name) * CLIPS for name in ("brute", "tree")]
    metric = "with LPIPS (VGG)" if perceptual else "pixel metrics"
    note = (
        f"brute force, against the tree; {CLIPS:,} clips projected from {count}, {metric}, "
        f"{1 / seconds[1]:.3g} clips/s by the tree"
    )
    return [
        Ratio.of("stage2_100k_clips", "hours", hours, note),
        Ratio.of("stage2_100k_clips", "flop", operations, "of the tokenizer alone"),
    ]


def _perceptual(setting: Setting) -> PerceptualDistance | None:
    """The paper's kind of metric at paper size, with random weights; none at other sizes, as in their curation."""
    if setting.size != "paper":
        return None
    return random_vgg(setting.device, torch.bfloat16 if setting.bf16 else torch.float32)
