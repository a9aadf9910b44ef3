"""Measure a tokenizer, the identity, or a folder of reconstructed clips under a named protocol.

The protocol defines clips, preprocessing and metrics (`evatok.evaluation.protocols`); to use fewer clips than it asks
for, set `limit`, and the record then says that it belongs in no table. A killed run resumes.

    python -m evatok.experiments.evaluate with toy
    python -m evatok.experiments.evaluate with protocol=embedded-reconstruction assignment=router:PATH
    python -m evatok.experiments.evaluate with protocol=larp-ucf101-reconstruction data=train.csv fake=FOLDER
    python -m evatok.experiments.evaluate with fake=FOLDER real=FOLDER
    python -m evatok.experiments.evaluate with checkpoint=VIDEOFLEXTOK assignment=uniform:4 flow_steps=20
    python -m evatok.experiments.evaluate with show=6
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from evatok import evaluation
from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSet
from evatok.evaluation import (
    Adaptive,
    Evaluation,
    FolderClips,
    Identity,
    Reconstructed,
    System,
    protocols,
)
from evatok.evaluation.flexible import Flexible, fixed_row
from evatok.evaluation.protocols import Protocol
from evatok.experiments import evaluate_output, keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import rule_of, set_threads
from evatok.metrics.bootstrap import over_choices
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.videoflextok import KIND, VideoFlexTok, VideoFlexTokConfig

ex = tracking.experiment("evaluate", __doc__, keys.RUN)


@ex.config
def config() -> None:
    protocol = "embedded-reconstruction"
    checkpoint = "results/checkpoints/proxy-toy.safetensors"
    assignment = "uniform:16"
    data = ""
    fake = ""
    real = ""
    limit = 0
    metrics = ""
    choices = 1
    batch = 16
    shard_length = 64
    flow_steps = 20
    flow_guidance = 1.0  # VideoFlexTok: 15 to 30
    latents = ""
    bf16 = False
    work = "results/work/evaluate"
    per_clip = "results/per_clip"
    show = 0
    moving = "clips.webp"
    fps = 8.0
    output = "results/work/evaluate/shown"
    seed = 0  # for random assignments and for the flow decoder's starting noise


@ex.named_config
def toy() -> None:
    limit = 8
    metrics = "psnr,ssim,l1,mse"


@ex.named_config
def image_toy() -> None:
    protocol = "embedded-images-reconstruction"
    checkpoint = "results/checkpoints/image-proxy-toy.safetensors"
    assignment = "uniform:64"
    metrics = "psnr,ssim,l1,mse,st_lpips_alex,rfd_efficientnet,rkd_efficientnet"


@ex.named_config
def image_paper() -> None:
    size = "paper"
    protocol = "imagenet-reconstruction-50k"
    assignment = "uniform:256"
    bf16 = True
    device = "cuda"


@tracking.main(ex, Outputs(folders=("work", "per_clip", "records_folder", "output")), together=True)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    protocol = protocols.get(config["protocol"])
    system = system_of(config, protocol)
    names = [name.strip() for name in config["metrics"].split(",") if name.strip()]
    asked = evaluation.chosen_metrics(protocol, names)
    shown_by = evaluate_output.ranked_by(config, asked)
    networks = evaluation.load_networks(asked, config["device"], {})

    real = reference(config, protocol, protocol.clip_seed)

    def measure(seed: int, metrics: tuple[str, ...]) -> Evaluation:
        return evaluation.evaluate(
            system,
            real if seed == protocol.clip_seed else reference(config, protocol, seed),
            protocol,
            metrics=metrics,
            limit=config["limit"] or None,
            networks=networks,
            batch=config["batch"],
            device=config["device"],
            work=Path(config["work"]),
            shard_length=config["shard_length"],
        )

    result = measure(protocol.clip_seed, asked)
    metrics = {**result.metrics, **spread_over_choices(config, protocol, result, measure)}
    tracker.info({"resumed_clips": result.resumed, "damaged_shards": result.damaged})
    _keep_per_clip(result, tracker)
    record = _record(config, tracker, result, metrics)
    shown = evaluate_output.show(config, system, real, result, shown_by) if shown_by else {}
    return {
        "record": tracker.record(record),
        "comparable": protocols.comparable(record),
        "clips": result.protocol["measured_clips"],
        "resumed": result.resumed,
        "metrics": {name: metric.value for name, metric in metrics.items()},
        **({"psnr_ceiling": result.model["psnr_ceiling"]} if "psnr" in metrics else {}),
        "intervals": result.intervals,
        **({"shown": {name: str(path) for name, path in shown.items()}} if shown else {}),
    }


def _record(
    config: dict[str, Any], tracker: tracking.Tracker, result: Evaluation, metrics: dict[str, records.Metric]
) -> records.Record:
    return records.new_record(
        kind="evaluate",
        status=config["size"],
        protocol=result.protocol,
        model={**result.model, "run": tracker.run_id},
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
        artifacts=evaluate_output.beside(result, config["per_clip"]),
    )


def system_of(config: dict[str, Any], protocol: Protocol) -> System:
    """Build the system the configuration asks to measure.

    Raises:
        ConfigError: a checkpoint for other clips than the protocol's, or an invalid assignment.
        CheckpointError, EvaluationError: files that are missing, damaged, or do not fit.
    """
    if config["fake"]:
        return Reconstructed(FolderClips(Path(config["fake"]), frames=protocol.frames, size=protocol.size))
    if config["checkpoint"] == "identity":
        return Identity()
    if checkpoints.kind_of(Path(config["checkpoint"])) == KIND:
        return flexible_of(config, protocol)
    tokenizer = AdaptiveTokenizer.load(config["checkpoint"], config["device"])
    checkpoint = tokenizer.checkpoint
    _check_clips(tokenizer.config, protocol)
    identity = {
        "system": "adaptive tokenizer",
        **checkpoint.identity,
        "parameters": sum(p.numel() for p in tokenizer.parameters()),
    }
    rule = rule_of(config["assignment"], tokenizer.config, config)
    return Adaptive(tokenizer, rule, identity, bf16=config["bf16"])


def flexible_of(config: dict[str, Any], protocol: Protocol) -> Flexible:
    """Build the configured tokenizer with a flow decoder.

    Raises:
        ConfigError: a checkpoint for other clips than the protocol's, or an assignment that is not fixed.
        CheckpointError, LatentError, FlexTokError: files that do not fit, lengths that the tokenizer does not have.
    """
    tokenizer = VideoFlexTok.load(config["checkpoint"], config["device"], codec=config["latents"] or None)
    checkpoint = tokenizer.checkpoint
    _check_clips(tokenizer.config, protocol)
    kind, row = fixed_row(config["assignment"])
    if not row:
        raise tracking.ConfigError(
            f"config key assignment: {config['assignment']!r} is neither uniform:4 nor fixed:4,4,4,4; these are what "
            f"a {checkpoint.kind} checkpoint takes"
        )
    drawn = {"steps": config["flow_steps"], "guidance": config["flow_guidance"], "seed": config["seed"]}
    identity = {
        **checkpoint.identity,
        "parameters": sum(p.numel() for p in tokenizer.network.parameters()),
        "assignment": kind,
    }
    return Flexible(tokenizer, row, identity, **drawn, bf16=config["bf16"])


def _check_clips(shape: TokenizerConfig | VideoFlexTokConfig, protocol: Protocol) -> None:
    if (shape.frames, shape.size) != (protocol.frames, protocol.size):
        raise tracking.ConfigError(
            f"config key checkpoint: it codes clips of {shape.frames} frames, {shape.size} pixels; protocol "
            f"{protocol.name} has {protocol.frames} frames, {protocol.size} pixels"
        )


def reference(config: dict[str, Any], protocol: Protocol, seed: int) -> ClipSet | FolderClips:
    """Return the protocol's clips under a clip choice, or those of the folder `real`."""
    if not config["real"]:
        return protocols.clips_of(protocol, config["data"], limit=config["limit"] or None, seed=seed)
    folder = Path(config["real"])
    if (folder / "manifest.json").exists():
        return clip_sets.load(folder)
    return FolderClips(folder, frames=protocol.frames, size=protocol.size)


def spread_over_choices(
    config: dict[str, Any],
    protocol: Protocol,
    result: Evaluation,
    measure: Callable[[int, tuple[str, ...]], Evaluation],
) -> dict[str, records.Metric]:
    """Recompute the distribution metrics, each with its standard deviation over clip choices as spread.

    Raises:
        ConfigError: fewer than one choice, or several where the reconstructions or references lie in a folder.
    """
    names = tuple(name for name in result.metrics if name in evaluation.DISTRIBUTION)
    if config["choices"] > 1 and (config["fake"] or config["real"]):
        raise tracking.ConfigError(f"config key choices: {config['choices']} clip choices; a folder has only its own")
    if config["choices"] == 1 or not names:
        return {}
    first = protocol.clip_seed
    seeds = range(first, first + config["choices"])
    found = {seed: (result if seed == first else measure(seed, names)).metrics for seed in seeds}
    spread: dict[str, records.Metric] = {}
    for name in names:
        over = over_choices({seed: metrics[name].value for seed, metrics in found.items()}.__getitem__, seeds)
        spread[name] = replace(result.metrics[name], spread=over.std)
    return spread


def _keep_per_clip(result: Evaluation, tracker: tracking.Tracker) -> None:
    """Keep one row per clip with the run: what a mean hides."""
    if result.per_clip:
        pd.DataFrame(result.per_clip).rename_axis("clip").to_csv(tracker.folder / "per_clip.csv")


if __name__ == "__main__":
    tracking.command_line(ex)
