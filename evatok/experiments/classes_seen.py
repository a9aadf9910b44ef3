"""Measure how often a trained classifier recognises the right class in real clips and in their reconstructions.

The drop from real clips to reconstructions, per class, shows what a tokenizer loses of a motion or a game. On the
balanced rate, chance is one over the number of classes.

    python -m evatok.experiments.classes_seen with toy    of 32 clips
    python -m evatok.experiments.classes_seen             motions of 320 clips at 64 and 128 tokens per block
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet, from_network, network_batches
from evatok.data.sets import clip_set
from evatok.evaluation import Adaptive, System
from evatok.experiments import keys, tracking
from evatok.experiments.class_consistency import metrics_of
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import rule_of, set_threads
from evatok.generation import code_cache
from evatok.metrics.class_consistency import Classifier
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
    seed = 0  # for random assignments


@ex.named_config
def toy() -> None:
    clips = 32


@tracking.main(ex, Outputs(folders=("records_folder",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    tokenizer = AdaptiveTokenizer.load(config["checkpoint"], config["device"])
    judge = Classifier.load(config["classifier"], config["device"])
    shape = tokenizer.config
    named = {text: rule_of(text, shape, config, "assignments") for text in config["assignments"]}
    clips = clip_set(
        config["data"], config["split"], config["clips"], size=shape.size, frames=shape.frames, fps=config["fps"]
    )
    told = code_cache.labels_of(clips, judge.label).tolist()
    found = {"real": judge.judge(clips.clips, told)}
    for text, rule in named.items():
        found[text] = judge.judge(reconstructed(Adaptive(tokenizer, rule, {}), clips, config), told)
    metrics: dict[str, records.Metric] = {}
    for text, rates in found.items():
        metrics |= {f"{text}.{name}": metric for name, metric in metrics_of(rates).items()}
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
            "seen": {text: rates.facts for text, rates in found.items()},
            "run": tracker.run_id,
        },
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
    )
    return {"record": tracker.record(record), "balanced": {text: rates.balanced for text, rates in found.items()}}


@torch.no_grad()
def reconstructed(system: System, clips: ClipSet, config: dict[str, Any]) -> np.ndarray:
    """Reconstruct a set's clips, uint8 (N, T, H, W, 3)."""
    batches = network_batches(clips.clips, config["batch"], config["device"])
    return np.concatenate([from_network(system(pixels, numbers).clips) for pixels, numbers in batches])


if __name__ == "__main__":
    tracking.command_line(ex)
