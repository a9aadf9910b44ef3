"""In how many clips a trained classifier sees the right class: the real ones, and their reconstructions by assignment.

What a tokenizer loses of a class (a motion, a game) shows in how far its reconstructions stay behind the real clips,
and in which classes. A chance guess is right in one clip of as many as there are classes, on the balanced rate.

    python -m evatok.experiments.classes_seen with toy    of 32 clips
    python -m evatok.experiments.classes_seen             motions of 320 clips at 64 and 128 tokens per block
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evatok.assignments.rules import Rule, RuleError
from evatok.data.clips import ClipSet, to_network
from evatok.data.sets import clip_set
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import set_threads
from evatok.generation import code_cache
from evatok.metrics import catalogue
from evatok.metrics.class_consistency import Classifier, Rates
from evatok.routing import rules
from evatok.storage import records
from evatok.tokenizers.evatok import AdaptiveTokenizer

ex = tracking.experiment("classes_seen", __doc__, keys.RUN)


@ex.config
def config() -> None:
    checkpoint = "results/checkpoints/proxy-toy-motion.safetensors"
    classifier = "results/checkpoints/classifier-toy-motion.safetensors"
    data = "freedoom"
    split = "validation"
    clips = 320
    fps = None
    assignments = ["uniform:64", "uniform:128"]
    batch = 16
    seed = 0  # of random assignments


@ex.named_config
def toy() -> None:
    clips = 32


@tracking.main(ex, Outputs(folders=("records_folder",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    tokenizer = AdaptiveTokenizer.load(config["checkpoint"], config["device"])
    judge = Classifier.load(config["classifier"], config["device"])
    shape = tokenizer.config
    named = {text: rule_of(text, tokenizer, config) for text in config["assignments"]}
    clips = clip_set(
        config["data"], config["split"], config["clips"], size=shape.size, frames=shape.frames, fps=config["fps"]
    )
    told = code_cache.labels_of(clips, judge.label).tolist()
    found = {"real": judge.judge(clips.clips, told)}
    for text, rule in named.items():
        found[text] = judge.judge(reconstructed(tokenizer, clips, rule, config["batch"]), told)
    record = records.new_record(
        kind="classes_seen",
        status=config["size"],
        protocol={
            "data": config["data"],
            "split": config["split"],
            "clips": len(clips),
            "label": judge.label,
            "chance": 100 / len(judge.classes),
            "manifest": clips.manifest,
        },
        model={
            "sha256": tokenizer.checkpoint.sha256,
            "classifier": judge.checkpoint.sha256,
            "classes": list(judge.classes),
            "seen": {text: {"recall": rates.recall, "confusion": rates.confusion} for text, rates in found.items()},
            "run": tracker.run_id,
        },
        metrics={name: metric for text, rates in found.items() for name, metric in metrics_of(text, rates).items()},
        config=config,
        environment=tracker.environment(),
    )
    return {"record": tracker.record(record), "balanced": {text: rates.balanced for text, rates in found.items()}}


def rule_of(text: str, tokenizer: AdaptiveTokenizer, config: dict[str, Any]) -> Rule:
    """One of the configured assignments. Raises ConfigError for none of its forms."""
    try:
        return rules.parse(text, tokenizer.config, seed=config["seed"], device=config["device"])
    except RuleError as error:
        raise tracking.ConfigError(f"config key assignments: {error}") from error


@torch.no_grad()
def reconstructed(tokenizer: AdaptiveTokenizer, clips: ClipSet, rule: Rule, batch: int) -> np.ndarray:
    """Reconstructions, uint8 (N, T, H, W, 3), of a set's clips under a rule."""
    device = next(tokenizer.parameters()).device
    parts = []
    for start in range(0, len(clips), batch):
        pixels = to_network(clips.clips[start : start + batch], device)
        lengths = rule(pixels, np.arange(start, start + len(pixels)))
        fake = tokenizer(pixels, lengths.to(device)).clips.clamp(0, 1)
        parts.append((fake * 255).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy())
    return np.concatenate(parts)


def metrics_of(what: str, rates: Rates) -> dict[str, records.Metric]:
    """`<what>.class_consistency`, over clips, and `_balanced`, over classes; the spread is half a 95 % interval."""
    over_clips, over_classes = (catalogue.of(f"class_consistency{end}") for end in ("", "_balanced"))
    return {
        f"{what}.{over_clips.name}": over_clips.measured(rates.accuracy, rates.clips, rates.half_interval),
        f"{what}.{over_classes.name}": over_classes.measured(rates.balanced, rates.clips, rates.balanced_half_interval),
    }


if __name__ == "__main__":
    tracking.command_line(ex)
