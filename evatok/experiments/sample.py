"""Sample clips from a generator, look at them, and measure them against as many real ones (EVATok Sec. 4.3, 4.4).

Classes are as frequent as among the real clips, or named; frame prediction continues the real clips' first five frames.
`output` holds every frame as a PNG, a sheet with the tokens per block, and the clips playing side by side. gFVD
compares N samples with N real clips. Class consistency is the share of samples in which a classifier trained on real
clips recognises the requested class; the same share on real clips and on their reconstructions is its upper bound. A
killed run resumes; under torchrun the ranks share the samples and the clips to measure.

    python -m evatok.experiments.sample with toy videoflextok kept=4     the shipped generator of games; evatok[arcade]
    python -m evatok.experiments.sample with toy generator=PATH tokenizer=PATH
    python -m evatok.experiments.sample with generator=PATH tokenizer=PATH guidance=2.0
    python -m evatok.experiments.sample with generator=PATH tokenizer=PATH classes=walk,turn count=16 metrics=""
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evatok import evaluation
from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.evaluation import protocols
from evatok.evaluation.protocols import Protocol
from evatok.experiments import class_consistency, keys, tracking
from evatok.experiments.class_consistency import ClassConsistency
from evatok.experiments.evaluate_output import beside
from evatok.experiments.outputs import Outputs
from evatok.experiments.sample_output import block_facts, show
from evatok.experiments.sampled_generator import cost_facts, generator_of
from evatok.experiments.setting import set_threads
from evatok.generation import code_cache, samples
from evatok.generation.samples import Generated, SampleRequest, Samples
from evatok.generation.sampling import Sampling
from evatok.generation.taught import TASKS
from evatok.generation.video_generator import VideoGenerator
from evatok.metrics import catalogue
from evatok.models.precision import autocast
from evatok.storage import ranks, records
from evatok.storage.shards import ShardStore

ex = tracking.experiment("sample", __doc__, keys.RUN)

_EMBEDDED = "embedded-generation", "embedded-prediction", "moving-shapes-generation"
PROTOCOLS = dict(zip(TASKS, _EMBEDDED, strict=True))
"""Protocol of each generator task unless another is named."""


@ex.config
def config() -> None:
    generator = "results/checkpoints/generator-toy-class-router.safetensors"
    tokenizer = "results/checkpoints/final-toy-router.safetensors"
    router = "results/checkpoints/router-toy-pyramid-matched.safetensors"
    classifier = "results/checkpoints/classifier-toy-motion.safetensors"
    judge_reconstructions = True
    protocol = ""
    data = ""
    split = ""
    count = 0  # embedded: 320, UCF-101: 10000 [Sec. 4.3]
    classes = ""
    metrics = "gfvd"  # "": only tokens, time and consistency
    guidance = 1.0  # paper: 2.5 for GPT-B, 1.75 for larger, none for frames [suppl. C]
    temperature = 1.0  # not stated; LARP: 1.0
    top_k = 0  # not stated; LARP: none
    top_p = 1.0  # not stated; LARP: none
    kept = 0  # VideoFlexTok: 32 of 256
    text = ""
    flow_steps = 20  # VideoFlexTok: 30 to 40
    flow_guidance = 1.0  # VideoFlexTok: 15 to 30
    latents = ""
    batch = 64
    shard_length = 64
    bf16 = False
    show = 16
    moving = "clips.mp4"
    fps = 8.0
    output = "results/work/sample/shown"
    work = "results/work/sample"
    per_clip = "results/per_clip"
    seed = 0


@ex.named_config
def toy() -> None:
    count = 16
    metrics = ""


# VideoFlexTok's codes: the shipped generator of games, at any `kept` of 1 to 16 tokens per latent frame.
ex.add_named_config(
    "videoflextok",
    {
        "generator": "results/checkpoints/videoflextok-toy-generator.safetensors",
        "tokenizer": "results/checkpoints/videoflextok-toy-stage1-base.safetensors",
        "router": "",
        "classifier": "results/checkpoints/classifier-toy-games.safetensors",
        "protocol": "embedded-games-generation",
    },
)


@ex.named_config
def paper_ucf() -> None:
    size = "paper"
    protocol = "larp-ucf101-generation"
    classifier = ""
    guidance = 1.75
    bf16 = True
    device = "cuda"


_IMAGES = {
    "generator": "results/checkpoints/generator-toy-image-router.safetensors",
    "tokenizer": "results/checkpoints/image-final-toy-router.safetensors",
    "router": "results/checkpoints/image-router-toy.safetensors",
    "classifier": "",
    "protocol": "embedded-images-generation",
    "metrics": "gfd_efficientnet,gkd_efficientnet",
    "guidance": 1.5,
}
ex.add_named_config("image_toy", _IMAGES)
ex.add_named_config(
    "image_paper",
    {"size": "paper", "classifier": "", "protocol": "imagenet-generation-50k", "metrics": "gfid", "guidance": 1.5}
    | {"bf16": True, "device": "cuda"},
)


ex.add_named_config("paper_k600", {"size": "paper", "protocol": "larp-k600-prediction", "bf16": True, "device": "cuda"})


@tracking.main(ex, Outputs(folders=("work", "output", "per_clip", "records_folder"), owned=("output",)), together=True)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    video = generator_of(config)
    protocol = protocol_of(config, video)
    metrics = evaluation.chosen_metrics(protocol, _words(config["metrics"])) if config["metrics"] else ()
    real = real_clips(config, protocol)
    names = class_names(config, video, real)
    consistency = ClassConsistency.of(config, video, names) if names and config["classifier"] else None
    wish = wish_of(config, video, real, names)
    with tqdm(total=len(real), desc="sample", unit="clip", disable=None) as bar:
        store = ShardStore(Path(config["work"]))
        drawn = samples.draw(wish, store, shard_length=config["shard_length"], tick=bar.update)
    tracker.info({"resumed_samples": drawn.resumed})
    fake, decoding = decoded(video, drawn, wish)
    told, values, facts, files = measured(config, protocol, metrics, real, fake, drawn, wish)
    seconds = {"seconds_per_clip": drawn.seconds, "decoding_seconds_per_clip": decoding}
    values |= {name: catalogue.of(name).measured(value / len(real), len(real)) for name, value in seconds.items()}
    if consistency is not None:
        found = consistency.measure(fake, real)
        values |= class_consistency.metrics_of_all(found)
        facts |= consistency.facts(found)
    if config["output"] and ranks.rank() == 0:
        shown = show(config, real, fake, drawn, names)
        for kept in ("sheet", "tokens"):
            tracker.artifact(shown[kept])
    record = records.new_record(
        kind="sample",
        status=config["size"],
        protocol=told,
        model={**facts, "run": tracker.run_id},
        metrics=values,
        config=config,
        environment=tracker.environment(),
        artifacts=files,
    )
    return {
        "record": tracker.record(record),
        "comparable": protocols.comparable(record),
        "samples": len(real),
        "resumed": drawn.resumed,
        "metrics": {name: metric.value for name, metric in values.items()},
    }


def protocol_of(config: dict[str, Any], video: VideoGenerator) -> Protocol:
    """Return the named protocol, or the embedded one of the generator's task.

    Raises:
        ConfigError: its clips have another shape than the tokenizer's.
    """
    protocol, size = protocols.get(config["protocol"] or PROTOCOLS[video.task]), video.tokenizer.config.size
    if (video.frames, size) != (protocol.frames, protocol.size):
        raise tracking.ConfigError(
            f"config key protocol: {protocol.name} has {protocol.frames} frames of {protocol.size} pixels, the "
            f"tokenizer codes {video.frames} of {size}"
        )
    return protocol


def real_clips(config: dict[str, Any], protocol: Protocol) -> ClipSet:
    """Return as many real clips as samples are requested.

    Raises:
        ConfigError: a missing number of clips, or a split of a protocol without clips of its own.
        ProtocolError, ClipSetError: clips that are unavailable.
    """
    count = config["count"] or protocol.clips
    if count is None:
        raise tracking.ConfigError(
            f"config key count: protocol {protocol.name} does not fix the number of samples, so set it"
        )
    if count > (protocol.clips or count):
        raise tracking.ConfigError(
            f"config key count: {count} samples requested, but protocol {protocol.name} has only {protocol.clips} "
            "real clips"
        )
    if not config["split"] or config["split"] == protocol.split:
        found = protocols.clips_of(protocol, config["data"], limit=count)
        return found.head(count)
    if not protocol.embedded:
        raise tracking.ConfigError(f"config key split: protocol {protocol.name} fixes the split, {protocol.split}")
    return clip_set(protocol.data, config["split"], count, size=protocol.size, frames=protocol.frames)


def class_names(config: dict[str, Any], video: VideoGenerator, real: ClipSet) -> list[str]:
    """Return the class of every sample: the real clips', or the named ones round-robin; [] for frame prediction.

    Raises:
        ConfigError: classes for an unconditional generator.
        GenerationError: a class that the generator never saw.
    """
    asked = _words(config["classes"])
    if video.task != "class":
        if asked:
            raise tracking.ConfigError(f"config key classes: this generator's task is {video.task}, it has no classes")
        return []
    names = [asked[number % len(asked)] for number in range(len(real))] if asked else _labels(video, real)
    for name in dict.fromkeys(names):
        video.class_index(name)
    return names


def wish_of(config: dict[str, Any], video: VideoGenerator, real: ClipSet, names: list[str]) -> SampleRequest:
    """Build the sample request from the configuration."""
    how = Sampling(config["guidance"], config["temperature"], config["top_k"], config["top_p"])
    return SampleRequest(
        video,
        len(real),
        [video.class_index(name) for name in names] if video.task == "class" else None,
        real.clips if video.task == "frames" else None,
        config["seed"],
        how,
        batch=config["batch"],
        bf16=config["bf16"],
        captions=code_cache.labels_of(real, "caption").tolist() if video.task == "text" else None,
    )


def decoded(video: VideoGenerator, drawn: Samples, wish: SampleRequest) -> tuple[np.ndarray, float]:
    """Decode clips uint8 (N, T, H, W, 3); also return the seconds it took."""
    opened = time.perf_counter()
    with autocast(video.device, wish.bf16):
        clips = video.clips(drawn.codes)
    return clips, time.perf_counter() - opened


def measured(
    config: dict[str, Any],
    protocol: Protocol,
    metrics: tuple[str, ...],
    real: ClipSet,
    fake: np.ndarray,
    drawn: Samples,
    wish: SampleRequest,
) -> tuple[dict[str, Any], dict[str, records.Metric], dict[str, Any], dict[str, records.Artifact]]:
    """Return a record's entry `protocol`, its metrics, its entry `model`, and the per-clip files it names.

    In those a sample has the row of the real clip whose class, caption or first frames it was drawn for.
    """
    video = wish.video
    identity = {
        **wish.identity(),
        "parents": video.checkpoint.parents,
        "facts": video.checkpoint.facts,
        "task": video.task,
        "assignment": video.checkpoint.facts.get("assignment", ""),
        "parameters": sum(p.numel() for p in video.module.parameters()),
        "classes": config["classes"] or "as among the real clips",
    }
    tokens = float(drawn.tokens.sum(1).mean())
    values = {"mean_tokens": catalogue.of("mean_tokens").measured(tokens, len(real))}
    facts = {**identity, **block_facts(drawn, video), **cost_facts(wish, tokens)}
    limit = None if len(real) == protocol.clips else len(real)
    told, files = protocol.to_record(real.manifest, len(real), limit), {}
    if metrics:
        found = evaluation.evaluate(
            Generated(fake, drawn, video.tokenizer, identity),
            real,
            protocol,
            metrics=metrics,
            limit=limit,
            networks=evaluation.load_networks(metrics, config["device"], {}),
            device=config["device"],
            work=Path(config["work"]),
        )
        told, values, facts = found.protocol, {**values, **found.metrics}, {**facts, **found.model}
        files = beside(found, config["per_clip"])
    if config["classes"]:
        told = {**told, "deviations": [*told["deviations"], "classes were chosen"], "comparable": False}
    return told, values, facts, files


def _labels(video: VideoGenerator, real: ClipSet) -> list[str]:
    return [str(name) for name in code_cache.labels_of(real, video.checkpoint.facts.get("label", ""))]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    tracking.command_line(ex)
