"""Stage 1: train the proxy tokenizer under random assignments (EVATok Sec. 3.1).

Every clip of every batch draws its own assignment, uniformly from all candidates, so that one model can afterwards
reconstruct any clip under any assignment. Run again, the same command goes on where a killed one stopped.

    python -m evatok.experiments.stage1_proxy with toy        CPU, 5 minutes
    python -m evatok.experiments.stage1_proxy with embedded   CPU, 45 minutes: the proxy that ships
    python -m evatok.experiments.stage1_proxy print_config
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from evatok import checkpoints, losses, records, training
from evatok.data.clips import ClipSet, to_network
from evatok.data.sets import clip_set
from evatok.experiments import tracking
from evatok.experiments.setting import autocast, claim_folder, log_to, of_size, optional_artifact, recipe, set_threads
from evatok.metrics.perceptual import perceptual_metric
from evatok.metrics.pixels import psnr
from evatok.models.initialise import initialise
from evatok.models.tokenizer import TOKENIZER_SIZES, AdaptiveTokenizer, expand_assignment

ex = tracking.experiment("stage1_proxy", __doc__)


@ex.config
def config() -> None:
    size = "toy"  # network size: toy, small or paper; also the records' status
    data = "freedoom"  # freedoom, arcade, mixed, a built set's folder, a manifest CSV, a folder of class folders
    fps = None  # frames a second taken from a user's videos; None keeps their own (WebVid: 3.0 [suppl. C])
    train_clips = 6400  # clips of the training split; 0 takes all of a user's set
    validation_clips = 64  # clips on which PSNR is measured at every uniform length
    steps = 600  # optimiser steps (paper: 400000 [suppl. C])
    batch = 16  # clips a step (paper: 128 [suppl. C])
    learning_rate = 1e-3  # peak of the cosine (paper: 1e-4 [suppl. C])
    final_learning_rate = 1e-5  # end of the cosine (paper: 1e-6 [suppl. C])
    warmup = 50  # steps (not stated; GigaTok: 0)
    weight_decay = 1e-4  # (not stated; GigaTok's)
    clip_norm = 1.0  # gradient norm (not stated)
    ema = 0.998  # decay of the weights' running mean, which is what ships (not stated)
    l1 = 1.0  # weight of L1 [main eq. 2; weight not stated]
    perceptual = "none"  # lpips-vgg (the paper's family), lpips-alex, st-lpips or none
    perceptual_weight = 1.0  # (not stated; LARP and GigaTok: 1.0)
    quantiser_weight = 1.0  # weight of the codebook term (not stated; GigaTok: 1.0)
    flip = True  # mirror half of the clips
    bf16 = True  # autocast; weights and losses stay float32
    device = "cpu"  # cpu or cuda
    threads = 0  # CPU threads; 0 leaves PyTorch's choice
    log_every = 20  # steps a line of the curve
    save_every = 100  # steps between resumable states
    work = "results/work/stage1_proxy"  # folder of the resumable state and the curve
    checkpoint = "results/work/stage1_proxy/proxy.safetensors"  # where the finished proxy goes
    records_folder = "results/records"  # where the record goes
    seed = 0


@ex.named_config
def toy() -> None:
    steps = 600
    train_clips = 1600


@ex.named_config
def embedded() -> None:
    data = "mixed"
    steps = 5000
    learning_rate = 1.5e-3
    ema = 0.999
    work = "results/work/embedded/stage1_proxy"
    checkpoint = "results/checkpoints/proxy-toy.safetensors"


@ex.named_config
def small() -> None:
    size = "small"
    train_clips = 20000
    steps = 20000
    batch = 64
    learning_rate = 4e-4
    warmup = 500
    device = "cuda"


@ex.named_config
def paper() -> None:
    size = "paper"
    train_clips = 0
    fps = 3.0
    steps = 400000
    batch = 128
    learning_rate = 1e-4
    final_learning_rate = 1e-6
    warmup = 4000
    perceptual = "lpips-vgg"
    device = "cuda"
    save_every = 1000


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    shape, steps = of_size(TOKENIZER_SIZES, config["size"]), recipe(config)
    train_set = _clips(config, "train", config["train_clips"])
    validation_set = _clips(config, "validation", config["validation_clips"])
    folder = claim_folder(Path(config["work"]), config, train_set.sha256, tracker)
    tokenizer = AdaptiveTokenizer(shape)
    initialise(tokenizer, to_network(train_set.clips[:: max(1, len(train_set) // 256)][:256]))
    tokenizer.to(config["device"])
    averaged = training.train(
        tokenizer,
        ProxyObjective(train_set, config),
        steps,
        folder,
        description="stage 1",
        on_log=log_to(tracker),
    )
    path = Path(config["checkpoint"])
    sha256 = checkpoints.save(
        path,
        averaged,
        kind="tokenizer",
        config=shape.to_dict(),
        parents={"train_clips": train_set.sha256},
        facts={"stage": 1, "size": config["size"], "steps": config["steps"]},
        dtype=torch.float16,
    )
    checkpoints.load(path, "tokenizer").fill(averaged)  # what is measured is what ships, in its precision
    ladder = uniform_psnr(averaged.eval(), validation_set, config)
    record = _record(config, tracker, averaged, sha256, path, ladder, train_set, len(validation_set), folder)
    written = records.write(record, config["records_folder"])
    tracker.artifact(folder / "curve.jsonl")
    return {"checkpoint": str(path), "record": written.stem, "psnr": ladder}


class ProxyObjective:
    """The loss of one step: a batch, an assignment for each of its clips, the terms of main eq. 2."""

    def __init__(self, clips: ClipSet, config: dict[str, Any]) -> None:
        self.clips, self.config = clips, config
        self.candidates = TOKENIZER_SIZES[config["size"]].candidates
        self.perceptual = perceptual_metric(config["perceptual"], config["device"], torch.bfloat16)
        self.weights = {
            "l1": config["l1"],
            "perceptual": config["perceptual_weight"],
            "quantiser": config["quantiser_weight"],
        }

    def __call__(
        self, module: torch.nn.Module, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, training.Terms]:
        batch = self.config["batch"]
        rows = training.batch_indices(len(self.clips), batch, step, self.config["seed"])
        mirrored = training.half_of(batch, generator) & self.config["flip"]
        real = to_network(training.mirror(self.clips.clips[rows], mirrored), self.config["device"])
        assignment = self.candidates.sample(batch, generator).to(real.device)
        with autocast(self.config):
            reconstruction = module(real, assignment)
        terms = losses.proxy_terms(real, reconstruction, self.perceptual)
        return losses.weighted_sum(terms, self.weights), terms


@torch.no_grad()
def uniform_psnr(tokenizer: AdaptiveTokenizer, clips: ClipSet, config: dict[str, Any]) -> dict[str, float]:
    """Mean PSNR in dB over the clips with every block at one level, by "uniform_<tokens a block>"."""
    ladder = {}
    blocks = tokenizer.config.candidates.blocks
    for level in tokenizer.config.levels:
        values = []
        for start in range(0, len(clips), config["batch"]):
            real = to_network(clips.clips[start : start + config["batch"]], config["device"])
            assignment = expand_assignment((level,) * blocks, len(real)).to(real.device)
            with autocast(config):
                fake = tokenizer(real, assignment).clips
            values.append(psnr(real, fake.float().clamp(0, 1)))
        ladder[f"uniform_{level}"] = float(torch.cat(values).mean())
    return ladder


def _clips(config: dict[str, Any], split: str, count: int) -> ClipSet:
    shape = TOKENIZER_SIZES[config["size"]]
    return clip_set(config["data"], split, count, size=shape.size, frames=shape.frames, fps=config["fps"])


def _record(
    config: dict[str, Any],
    tracker: tracking.Tracker,
    tokenizer: AdaptiveTokenizer,
    sha256: str,
    path: Path,
    ladder: dict[str, float],
    train_set: ClipSet,
    count: int,
    folder: Path,
) -> records.Record:
    return records.new_record(
        kind="stage1_proxy",
        status=config["size"],
        protocol={"data": config["data"], "split": "validation", "clips": count, "train": train_set.manifest},
        model={
            "sha256": sha256,
            "parameters": sum(p.numel() for p in tokenizer.parameters()),
            "run": tracker.run_id,
        },
        metrics={f"psnr_{name}": records.Metric(value, "dB", count, "higher") for name, value in ladder.items()},
        config=config,
        environment={**tracker.environment(), "wall_seconds": training.seconds_spent(folder)},
        artifacts=optional_artifact("checkpoint", path),
    )


if __name__ == "__main__":
    tracking.command_line(ex)
