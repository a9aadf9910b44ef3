"""Class consistency: how often a trained classifier finds the expected class in clips.

Rates are computed over clips, where frequent classes dominate, and as the mean over classes ("balanced"). The rate of
generated clips is their class consistency; the same rate on real clips and on their reconstructions is its upper bound.

Legend: N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from evatok.data.clips import network_batches
from evatok.errors import EvatokError
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.models.trained import Trained
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint

_WILSON = 1.96  # standard deviations in half a 95 % interval


class ClassificationError(EvatokError, ValueError):
    """Clips or classes that a classifier does not support."""


@dataclass(frozen=True)
class Rates:
    """How often clips were classified as the expected class.

    Attributes:
        accuracy: percentage of clips.
        balanced: mean over classes of the percentages.
        recall: percentage for each class, by name, without classes that have no clip.
        clips: N.
        confusion: (C, C) number of clips by expected (row) and predicted (column) class.
    """

    accuracy: float
    balanced: float
    recall: dict[str, float]
    clips: int
    confusion: np.ndarray

    @property
    def half_interval(self) -> float:
        """Half the 95 % interval of `accuracy`, in percent, by the normal approximation."""
        return _half_interval(np.array([self.accuracy]), np.array([self.clips]))

    @property
    def facts(self) -> dict[str, Any]:
        """Shares and confusions of each class, for a record's entry `model`."""
        return {"recall": self.recall, "confusion": self.confusion}

    @property
    def balanced_half_interval(self) -> float:
        """Half the 95 % interval of `balanced`, in percent; rare classes make it wide."""
        counts = self.confusion.sum(1)
        return _half_interval(np.array(list(self.recall.values())), counts[counts > 0])


@dataclass(frozen=True)
class Classifier(Trained):
    """A trained, frozen classifier with the names of its classes and the label column it was trained on."""

    KIND = "classifier"

    module: ClipClassifier
    checkpoint: Checkpoint
    classes: tuple[str, ...]
    label: str

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        module, facts = ClipClassifier(ClassifierConfig.from_dict(checkpoint.config)), checkpoint.facts
        return cls(module, checkpoint, checkpoints.listed(facts["classes"], str), str(facts["label"]), **parts)

    def predict(self, clips: np.ndarray, batch: int = 64) -> np.ndarray:
        """(N,) class indices of uint8 clips (N, T, H, W, 3), by majority vote of their steps.

        Raises:
            ValueError: clips of the wrong shape.
        """
        return predicted(self.module, clips, batch)

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """(N,) indices of named classes.

        Raises:
            ClassificationError: a class that it was not trained on.
        """
        unknown = sorted(set(names) - set(self.classes))
        if unknown:
            raise ClassificationError(
                f"the classifier was not trained on class {unknown[0]!r}, only on {', '.join(self.classes)}: "
                "train one on such "
                "clips with evatok.experiments.train_classifier"
            )
        return np.array([self.classes.index(name) for name in names], dtype=np.int64)

    def judge(self, clips: np.ndarray, names: Sequence[str], batch: int = 64) -> Rates:
        """Measure how often clips (N, T, H, W, 3) show their expected classes `names` (N).

        Raises:
            ClassificationError: a class that it was not trained on, or not one class per clip.
        """
        return rates(self.numbers(names), self.predict(clips, batch), self.classes)


@torch.no_grad()
def predicted(module: ClipClassifier, clips: np.ndarray, batch: int = 64) -> np.ndarray:
    """(N,) majority class over the steps of uint8 clips (N, T, H, W, 3)."""
    device = next(module.parameters()).device
    parts = (part for part, _ in network_batches(clips, batch, device))
    return torch.cat([module.voted(module.step_logits(part)).cpu() for part in parts]).numpy()


def rates(expected: np.ndarray, classified: np.ndarray, classes: Sequence[str]) -> Rates:
    """Compare classified with expected class indices, both (N,).

    Raises:
        ClassificationError: no clips, or different numbers of them.
    """
    if not len(expected) or expected.shape != classified.shape:
        raise ClassificationError(
            f"classified and expected classes must both be (N,) with N >= 1, got {classified.shape} and "
            f"{expected.shape}"
        )
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (expected, classified), 1)
    counts = confusion.sum(1)
    recall = {str(name): 100.0 * float(confusion[i, i] / counts[i]) for i, name in enumerate(classes) if counts[i]}
    balanced = float(np.mean(list(recall.values())))
    return Rates(100.0 * float((expected == classified).mean()), balanced, recall, len(expected), confusion)


def _half_interval(percent: np.ndarray, counts: np.ndarray) -> float:
    """Half the Wilson interval of a mean of independent proportions, variances summed."""
    shares = (percent / 100 * counts + _WILSON**2 / 2) / (counts + _WILSON**2)
    variances = shares * (1 - shares) / (counts + _WILSON**2)
    return float(100 * _WILSON * np.sqrt(variances.sum()) / len(counts))


def balanced_rows(labels: np.ndarray, batch: int, step: int, seed: int) -> np.ndarray:
    """(batch,) clip indices of a step, every class equally often up to the remainder of the batch.

    They depend only on the seed and the step.

    Args:
        labels: (N,) class indices.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step, 2]))
    present = rng.permutation(np.unique(labels))
    members: list[Any] = [np.flatnonzero(labels == number) for number in present]
    drawn = [rng.choice(members[i % len(present)]) for i in range(batch)]
    return np.sort(np.array(drawn, dtype=np.int64))
