"""VideoFlexTok Fig. 8: long clips generated from few tokens, their seams, and their class over time.

The generator writes the tokens of all latent frames of a long clip (`stage5_generator with frames=64 kept=2`); chunks
are decoded in order, each given the last frames of the previous one. A short-clip classifier sees successive windows:
the requested class should be recognised in the last as in the first.

    python -m evatok.experiments.videoflextok_long_samples with generator=PATH tokenizer=PATH        CPU, minutes
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evatok.data.clips import ClipSet, network_batches
from evatok.data.sets import clip_set
from evatok.experiments import class_consistency, keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.sampled_generator import generator_of, ordered, request_of
from evatok.experiments.setting import set_threads
from evatok.experiments.videoflextok_long import mean_of
from evatok.generation import code_cache, samples
from evatok.metrics import catalogue
from evatok.metrics.class_consistency import Classifier
from evatok.pictures import stored
from evatok.storage import records
from evatok.storage.records import Metric
from evatok.storage.shards import ShardStore
from evatok.tokenizers.videoflextok import VideoFlexTok
from evatok.tokenizers.videoflextok.long import seam_ratio, seams

ex = tracking.experiment("videoflextok_long_samples", __doc__, keys.RUN)


@ex.config
def config() -> None:
    generator = "results/work/videoflextok/generator-long-0.safetensors"
    tokenizer = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"
    latents = ""
    classifier = "results/checkpoints/classifier-toy-games.safetensors"
    data = "arcade-seen"
    fps = None
    count = 64
    kept = 0
    guidance = 1.0
    temperature = 1.0
    flow_steps = 20  # paper: 30 to 40
    flow_guidance = 1.0
    batch = 64
    shard_length = 64
    bf16 = False
    show = 4
    shown = "results/samples/videoflextok-long.npz"
    work = "results/work/videoflextok_long_samples"
    seed = 0


ex.add_named_config("toy", {"size": "toy"})


@tracking.main(ex, Outputs(folders=("work", "records_folder"), files=("shown",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    video = generator_of(config)
    grammar = ordered(video)
    tokenizer = video.tokenizer
    assert isinstance(tokenizer, VideoFlexTok)
    if video.frames == tokenizer.config.frames:
        raise tracking.ConfigError(
            f"config key generator: it writes clips of {video.frames} frames, a single chunk without a seam; train one "
            "with frames=64"
        )
    judge = Classifier.load(Path(config["classifier"]), config["device"])
    real = clip_set(
        config["data"],
        "validation",
        config["count"],
        size=tokenizer.config.size,
        frames=video.frames,
        fps=config["fps"],
    )
    names = [str(name) for name in code_cache.labels_of(real, video.checkpoint.facts["label"])]
    judge.numbers(names)
    request = request_of(config, video, names)
    drawn = samples.draw(request, ShardStore(Path(config["work"])), shard_length=config["shard_length"])
    fake = video.clips(drawn.codes)
    metrics = {"mean_tokens": catalogue.of("mean_tokens").measured(float(drawn.tokens.sum(1).mean()), len(fake))}
    metrics |= measured(tokenizer, judge, fake, np.asarray(real.clips), names)
    if config["shown"]:
        some = slice(0, config["show"])
        tracker.artifact(stored.save(config["shown"], fake[some], names[some]))
    told = {
        **request.identity(),
        "facts": video.checkpoint.facts,
        "grid_tokens": grammar.blocks * tokenizer.config.patches,
        "classifier": judge.checkpoint.sha256,
        "classes": list(judge.classes),
        "requested": dict(Counter(names)),
    }
    record = recorded(config, tracker, real, told, metrics)
    return {"record": tracker.record(record), "metrics": {name: metric.value for name, metric in metrics.items()}}


def measured(
    tokenizer: VideoFlexTok, judge: Classifier, fake: np.ndarray, real: np.ndarray, names: list[str]
) -> dict[str, Metric]:
    """Measure seam ratios and class consistency per window, of samples and of real clips (N, T, H, W, 3)."""
    at, window = seams(tokenizer.config, fake.shape[1]), judge.module.config.frames
    metrics: dict[str, Metric] = {}
    for clips, suffix in ((fake, ""), (real, "_real")):
        ratio = mean_of([seam_ratio(part, at) for part, _ in network_batches(clips, 8)], "seam_ratio")
        metrics[f"seam_ratio{suffix}"] = ratio if clips is fake else replace(ratio, direction=None)
        for number in range(clips.shape[1] // window):
            seen = judge.judge(clips[:, number * window : (number + 1) * window], names)
            found = class_consistency.metrics_of(seen)["class_consistency"]
            metrics[f"class_consistency_window{number + 1}{suffix}"] = found
    return metrics


def recorded(
    config: dict[str, Any], tracker: tracking.Tracker, real: ClipSet, told: dict[str, Any], metrics: dict[str, Metric]
) -> records.Record:
    """Record the samples' metrics."""
    kept = ("data", "flow_steps", "flow_guidance", "guidance", "seed")
    return records.new_record(
        kind="videoflextok_long_samples",
        status=config["size"],
        protocol={
            **{key: config[key] for key in kept},
            "split": "validation",
            "samples": len(real),
            "frames": int(real.clips.shape[1]),
            "manifest": real.manifest,
        },
        model={**told, "run": tracker.run_id},
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
    )


if __name__ == "__main__":
    tracking.command_line(ex)
