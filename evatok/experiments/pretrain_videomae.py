"""Pre-train a VideoMAE on the tokenizer's own clips (Tong et al. 2022), where no public weights are available.

EVATok's final stage relies on frozen encoders: VideoMAE-B in the discriminator, V-JEPA 2-L as the alignment target
(Sec. 3.4). Those are GB-sized downloads; a toy of the same architecture trains here in minutes. Nine tenths of the
patches are masked and reconstructed from the rest: at toy size anywhere in space and time (Feichtenhofer et al. 2022),
because tubes through time would leave only two visible positions. Only the encoder ships, in transformers' format, so
`evatok.models.encoders.load_encoder` loads it like the public ones.

    python -m evatok.experiments.pretrain_videomae with toy      CPU, 12 minutes: the encoder that ships
    python -m evatok.experiments.pretrain_videomae with small    one GPU, an hour: a ViT-S at the paper's clip size
    python -m evatok.experiments.pretrain_videomae print_config

Two measurements tell whether it learned anything: the reconstruction error of masked patches of unseen clips, against
filling them with the mean colour of the visible ones; and the accuracy of linear probes on its features, against those
of the same network untrained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments import keys, runner, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.probe_encoder import CLASSIFIER, probed
from evatok.experiments.setting import of_size, streaming_of
from evatok.metrics import catalogue
from evatok.metrics.probe import mean_features
from evatok.models.encoders import FrozenEncoder, VideoMAE, load_encoder
from evatok.storage import records
from evatok.training import loop, masked_video
from evatok.training.batches import Batches
from evatok.training.masked_video import VIDEOMAE_SIZES, hidden_patch_error, mean_colour_error

ex = tracking.experiment("pretrain_videomae", __doc__, keys.RUN | keys.TRAINING | keys.MEMORY | keys.DECODING)


@ex.config
def config() -> None:
    data = "mixed"
    fps = None
    random_start = False
    train_clips = 6400
    validation_clips = 64
    probe_data = "freedoom"
    probe_labels = ["motion", "map"]
    probe_train_clips = 640
    probe_clips = 320
    masking = 0.9  # VideoMAE: 0.9
    tubes = False  # VideoMAE: True, which leaves two of the toy's 16 positions
    normalise_patches = False  # VideoMAE: True; slow to learn
    steps = 4000  # VideoMAE-B on Kinetics-400: 1600 epochs, 375000 steps of 1024 clips
    batch = 16
    learning_rate = 1.5e-3  # VideoMAE: 1.5e-4 per 256 clips of a batch
    final_learning_rate = 1e-5
    warmup = 100
    weight_decay = 0.05  # VideoMAE's
    ema = 0.998
    save_every = 200
    work = "results/work/pretrain_videomae"
    checkpoint = "results/checkpoints/videomae-toy"
    seed = 0


@ex.named_config
def toy() -> None:
    size = "toy"


@ex.named_config
def small() -> None:
    size = "small"
    tubes = True
    normalise_patches = True
    train_clips = 20000
    steps = 40000
    batch = 128
    learning_rate = 6e-4
    warmup = 2000
    ema = 0.9995
    bf16 = True
    device = "cuda"
    work = "results/work/pretrain_videomae-small"
    checkpoint = "results/checkpoints/videomae-small"


@ex.named_config
def paper() -> None:
    size = "paper"
    tubes = True
    normalise_patches = True
    data = "kinetics-400.csv"
    probe_data = "none"
    train_clips = 0
    validation_clips = 1024
    steps = 375000
    batch = 1024
    learning_rate = 6e-4
    final_learning_rate = 1e-6
    warmup = 9400
    ema = 0.9999
    bf16 = True
    device = "cuda"
    save_every = 1000
    work = "results/work/pretrain_videomae-paper"
    checkpoint = "results/checkpoints/videomae-paper"


@tracking.main(ex, Outputs(folders=("work", "checkpoint", "records_folder"), owned=("work",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, EncoderTask)


class EncoderTask(runner.Task[nn.Module]):
    """A VideoMAE, shipped as a folder that transformers loads."""

    kind = "pretrain_videomae"
    distributed = True

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.module = config, _network(config).to(config["device"])
        self.train_set = _clips(config, config["data"], "train", config["train_clips"])
        self.validation_set = _clips(config, config["data"], "validation", config["validation_clips"])
        self.inputs, self.objective = self.train_set.sha256, Objective(self.train_set, config)

    def ship(self, averaged: Any, path: Path, changes: dict[str, Any]) -> None:
        masked_video.ship(averaged.videomae, path)

    def measure(self, averaged: Any, path: Path, folder: Path) -> runner.Measured:
        shipped = load_encoder(str(path)).to(self.config["device"])
        averaged.videomae.load_state_dict(shipped.model.state_dict())
        metrics = {**reconstruction(averaged, self.validation_set, self.config), **probes(shipped, self.config)}
        return runner.Measured(
            protocol=_protocol(self.config, self.train_set),
            model={
                "sha256": shipped.weights_sha256,
                "parameters": sum(p.numel() for p in shipped.model.parameters()),
                "format": "transformers VideoMAEModel",
            },
            metrics=metrics,
            told={name: metric.value for name, metric in metrics.items()},
        )


class Objective:
    """The loss of one step: clips, patches to mask, the error on masked patches."""

    def __init__(self, clips: ClipSet, config: dict[str, Any]) -> None:
        self.config = config
        self.batches = Batches(clips, config["batch"], config["seed"], config["flip"], config["device"])

    def __call__(self, module: nn.Module, step: int, generator: torch.Generator) -> tuple[torch.Tensor, loop.Terms]:
        pixels = self.batches.take(step, generator).pixels
        loss = hidden_patch_error(module, pixels, self.config, generator)
        return loss, {"reconstruction": loss.detach()}


@torch.no_grad()
def reconstruction(network: Any, clips: ClipSet, config: dict[str, Any]) -> dict[str, records.Metric]:
    """Return the error on masked patches of unseen clips, and that of filling them with the visible mean colour.

    Both mask the same patches, drawn from the seed.
    """
    network.eval()
    errors = {"reconstruction": hidden_patch_error, "reconstruction_of_mean_colour": mean_colour_error}
    return {
        name: catalogue.of("reconstruction").measured(_mean_error(error, network, clips, config), len(clips))
        for name, error in errors.items()
    }


def _mean_error(error: Callable[..., torch.Tensor], network: Any, clips: ClipSet, config: dict[str, Any]) -> float:
    generator = torch.Generator().manual_seed(config["seed"])
    total = 0.0
    for start in range(0, len(clips), config["batch"]):
        pixels = clips.clips[start : start + config["batch"]]
        total += float(error(network, pixels, config, generator)) * len(pixels)
    return total / len(clips)


def probes(encoder: FrozenEncoder, config: dict[str, Any]) -> dict[str, records.Metric]:
    """Balanced accuracy of linear probes on the trained encoder, on its untrained twin, and of chance."""
    if config["probe_data"] == "none":
        return {}
    train = _clips(config, config["probe_data"], "train", config["probe_train_clips"])
    test = _clips(config, config["probe_data"], "validation", config["probe_clips"])
    untrained = VideoMAE(_network(config).videomae, source="untrained").to(config["device"])
    how = {"batch": config["batch"], "device": config["device"], "bf16": config["bf16"]}
    seen = {
        name: [mean_features(network, clips.clips, [network.depth], **how) for clips in (train, test)]
        for name, network in (("", encoder), ("_untrained", untrained))
    }
    return probed(seen, train, test, config["probe_labels"])


def _network(config: dict[str, Any]) -> Any:
    sizes = of_size(VIDEOMAE_SIZES, config["size"])
    return masked_video.untrained(sizes, seed=config["seed"], normalise_patches=config["normalise_patches"])


def _clips(config: dict[str, Any], data: str, split: str, count: int) -> ClipSet:
    side = of_size(VIDEOMAE_SIZES, config["size"])["image_size"]
    how = streaming_of(config, data, training=split == "train" and data == config["data"])
    return clip_set(data, split, count, size=side, frames=16, fps=config["fps"], streaming=how)


def _protocol(config: dict[str, Any], train_set: ClipSet) -> dict[str, Any]:
    return {
        "data": config["data"],
        "split": "validation",
        "clips": config["validation_clips"],
        "masking": config["masking"],
        "target": "patches normalised by themselves" if config["normalise_patches"] else "pixels in [0, 1]",
        "train": train_set.manifest,
        "probe": {
            "data": config["probe_data"],
            "train_clips": config["probe_train_clips"],
            "classifier": f"{CLASSIFIER} on the mean feature of the last layer, strength by leave-one-out",
            "accuracy": "balanced: mean over labels",
        },
    }


if __name__ == "__main__":
    tracking.command_line(ex)
