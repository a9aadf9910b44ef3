"""Train the clip classifier that scores the class consistency of generated clips.

Classes are equally frequent in every batch, since four in five clips of the embedded set rest. If per-frame labels are
known (the embedded set's column `motions`), the steps between frames are trained on as well. Mirroring preserves every
motion class: pans, turns and strafes go either way. Rerun the command to resume a killed run.

    python -m evatok.experiments.train_classifier with toy       CPU, a minute
    python -m evatok.experiments.train_classifier with embedded  CPU, eight minutes: the one of motions that ships
    python -m evatok.experiments.train_classifier with games     the same of games; needs evatok[arcade]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from evatok.data.clips import ClipSet, to_network
from evatok.data.sets import clip_set
from evatok.experiments import keys, runner, tracking
from evatok.experiments.setting import TRAINING, autocast, streaming_of
from evatok.generation import code_cache
from evatok.metrics import catalogue, class_consistency
from evatok.metrics.class_consistency import ClassificationError, Classifier, Rates
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.storage import checkpoints, records
from evatok.storage.transfer import moved
from evatok.training import loop
from evatok.training.augmentation import diff_augment
from evatok.training.batches import Batches

ex = tracking.experiment("train_classifier", __doc__, keys.RUN | keys.TRAINING | keys.MEMORY | keys.DECODING)


@ex.config
def config() -> None:
    data = "freedoom"
    label = "motion"
    frame_label = "motions"
    fps = None
    random_start = False
    frames = 16
    pixels = 64
    train_clips = 4800
    validation_clips = 320
    width = 24
    dropout = 0.2
    steps = 700
    batch = 36  # every class equally often
    learning_rate = 2e-3
    final_learning_rate = 1e-5
    warmup = 50
    weight_decay = 0.05
    ema = 0.99
    frame_weight = 1.0
    policy = ["translation"]
    save_every = 200
    work = "results/work/train_classifier"
    checkpoint = "results/work/train_classifier/classifier.safetensors"
    seed = 0


@ex.named_config
def toy() -> None:
    train_clips = 1600
    steps = 200


@ex.named_config
def embedded() -> None:
    work = "results/work/embedded/train_classifier"
    checkpoint = "results/checkpoints/classifier-toy-motion.safetensors"


@ex.named_config
def games() -> None:
    data = "arcade"
    label = "game"
    frame_label = ""
    work = "results/work/embedded/train_classifier-games"
    checkpoint = "results/checkpoints/classifier-toy-games.safetensors"


@tracking.main(ex, TRAINING)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, ClassifierTask)


class ClassifierTask(runner.Task[ClipClassifier]):
    """A classifier of clips by one of their labels."""

    kind = "train_classifier"
    distributed = True

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.clips = {split: _clips(config, split) for split in ("train", "validation")}
        self.labels = {
            split: code_cache.labels_of(held, config["label"]).tolist() for split, held in self.clips.items()
        }
        self.classes = sorted(set(self.labels["train"]))
        self.inputs = self.clips["train"].sha256
        torch.manual_seed(config["seed"])
        self.shape = ClassifierConfig(
            len(self.classes), config["frames"], config["pixels"], 2, config["width"], config["dropout"]
        )
        self.module = ClipClassifier(self.shape).to(config["device"])
        self.objective = Objective(self.clips["train"], self.classes, config)

    def ship(self, averaged: ClipClassifier, path: Path, changes: dict[str, Any]) -> None:
        told = {name: self.config[name] for name in ("label", "size", "steps")}
        checkpoints.save(
            path,
            averaged,
            kind="classifier",
            config=self.shape.to_dict(),
            parents={"train_clips": self.inputs},
            facts={"classes": self.classes, **told, **changes},
            dtype=torch.float16,
        )

    def measure(self, averaged: ClipClassifier, path: Path, folder: Path) -> runner.Measured:
        shipped, clips = Classifier.load(path, self.config["device"]), self.clips["validation"]
        found = shipped.judge(clips.clips, self.labels["validation"])
        return runner.Measured(
            protocol={
                "data": clips.name,
                "split": "validation",
                "label": self.config["label"],
                "manifest": clips.manifest,
            },
            model={
                "sha256": shipped.checkpoint.sha256,
                "parents": shipped.checkpoint.parents,
                "classes": self.classes,
                "parameters": sum(p.numel() for p in averaged.parameters()),
                "confusion": found.confusion,
            },
            metrics=metrics_of(found),
            told={"accuracy": found.accuracy, "balanced_accuracy": found.balanced, "recall": found.recall},
        )


class Objective:
    """The loss of one step: clips of all classes, their class and, if known, the class of every frame."""

    def __init__(self, clips: ClipSet, classes: list[str], config: dict[str, Any]) -> None:
        self.config = config
        self.batches = Batches(
            clips, config["batch"], config["seed"], config["flip"], config["device"], order=self._balanced
        )
        told = code_cache.labels_of(clips, config["label"]).tolist()
        self.labels = np.array([classes.index(name) for name in told])
        self.frame_labels = frame_numbers(clips, config["frame_label"], classes) if config["frame_label"] else None

    def _balanced(self, step: int) -> np.ndarray:
        return class_consistency.balanced_rows(self.labels, self.config["batch"], step, self.config["seed"])

    def __call__(
        self, module: ClipClassifier, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, loop.Terms]:
        config = self.config
        pixels, rows, _ = self.batches.take(step, generator)
        clips = diff_augment(to_network(pixels, config["device"]), generator, config["policy"])
        with autocast(config):
            logits_BSC = module.step_logits(clips)
        logits_BSC = logits_BSC.float()
        wanted = moved(torch.from_numpy(self.labels[rows]), logits_BSC.device)
        told = module.of_clip(logits_BSC)
        terms = {"clips": F.nll_loss(told, wanted), "accuracy": (told.argmax(1) == wanted).float().mean()}
        loss = terms["clips"]
        if self.frame_labels is not None:
            steps = moved(torch.from_numpy(self.frame_labels[rows]), logits_BSC.device)
            terms["frames"] = F.cross_entropy(logits_BSC.flatten(0, 1), steps.flatten())
            loss = loss + config["frame_weight"] * terms["frames"]
        return loss, terms


def frame_numbers(clips: ClipSet, column: str, classes: list[str]) -> np.ndarray:
    """Return (N, T - 1) classes of every step between frames: what moves a frame shows in the next one.

    Raises:
        CodingError: unknown column.
        ClassificationError: not one word per frame, or a word that is not a class.
    """
    words = [str(text).split() for text in code_cache.labels_of(clips, column)]
    odd = next((number for number, told in enumerate(words) if len(told) != clips.clips.shape[1]), None)
    if odd is not None:
        raise ClassificationError(
            f"column {column!r}: clip {odd} has {len(words[odd])} words for {clips.clips.shape[1]} frames"
        )
    unknown = {word for told in words for word in told} - set(classes)
    if unknown:
        raise ClassificationError(
            f"column {column!r} names {min(unknown)!r}, which is not a class of the clips: {', '.join(classes)}; set "
            'frame_label="" to train on labels of clips only'
        )
    return np.array([[classes.index(word) for word in told[:-1]] for told in words])


def metrics_of(found: Rates) -> dict[str, records.Metric]:
    """Return accuracy over clips, its mean over classes, and each class's."""
    by_class = {f"recall.{name}": value for name, value in found.recall.items()}
    held = {
        name: int(row.sum()) for name, row in zip(found.recall, found.confusion[found.confusion.any(1)], strict=True)
    }
    named = {"accuracy": found.accuracy, "balanced_accuracy": found.balanced}
    return {name: catalogue.of(name).measured(value, found.clips) for name, value in named.items()} | {
        name: catalogue.of("recall").measured(value, held[name.partition(".")[2]]) for name, value in by_class.items()
    }


def _clips(config: dict[str, Any], split: str) -> ClipSet:
    count, size, frames = config[f"{split}_clips"], config["pixels"], config["frames"]
    how = streaming_of(config, config["data"], training=split == "train")
    return clip_set(config["data"], split, count, size=size, frames=frames, fps=config["fps"], streaming=how)


if __name__ == "__main__":
    tracking.command_line(ex)
