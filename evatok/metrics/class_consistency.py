"""Whether clips show the class they should: a trained classifier, and how often it is right.

Rates come twice: over clips, where a frequent class decides, and as the mean over classes ("balanced"), where each
counts alike. With generated clips a rate is their class consistency; the same rate on real clips and on their
reconstructions is what it could reach at best.

Legend: N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import to_network
from evatok.errors import EvatokError
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint

_WILSON = 1.96  # deviations of a 95 % interval


class ClassificationError(EvatokError, ValueError):
    """Clips or classes that a classifier cannot judge."""


@dataclass(frozen=True)
class Rates:
    """How often clips were told to be of the class they should be.

    Attributes:
        accuracy: share of the clips, in percent.
        balanced: mean of the classes' shares, in percent.
        recall: share of each class, in percent, by its name; classes without a clip are left out.
        clips: N.
        confusion: (C, C) clips by class they should be of (row) and class they were told to be of (column).
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
    def balanced_half_interval(self) -> float:
        """Half the 95 % interval of `balanced`, in percent: a rare class makes it wide."""
        held = self.confusion.sum(1)
        return _half_interval(np.array(list(self.recall.values())), held[held > 0])


@dataclass(frozen=True)
class Classifier:
    """A trained classifier, frozen, with the names of its classes and the column of labels it learned."""

    module: ClipClassifier
    checkpoint: Checkpoint
    classes: tuple[str, ...]
    label: str

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Classifier:
        """A classifier's checkpoint.

        Raises:
            CheckpointError: absent, damaged, or no classifier.
        """
        checkpoint = checkpoints.load(path, "classifier")
        with checkpoints.built_from(path):
            module = ClipClassifier(ClassifierConfig.from_dict(checkpoint.config))
            classes, label = tuple(checkpoint.facts["classes"]), str(checkpoint.facts["label"])
        checkpoint.fill(module)
        module.to(device).eval().requires_grad_(False)
        return cls(module, checkpoint, classes, label)

    def predict(self, clips: np.ndarray, batch: int = 64) -> np.ndarray:
        """(N,) numbers of the classes that uint8 clips (N, T, H, W, 3) show, by a vote of their steps.

        Raises:
            ValueError: clips of another shape.
        """
        return predicted(self.module, clips, batch)

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """(N,) numbers of named classes.

        Raises:
            ClassificationError: a class it did not learn.
        """
        odd = sorted(set(names) - set(self.classes))
        if odd:
            raise ClassificationError(
                f"the classifier knows no class {odd[0]!r}, only {', '.join(self.classes)}: train one on such clips "
                "with evatok.experiments.train_classifier"
            )
        return np.array([self.classes.index(name) for name in names], dtype=np.int64)

    def judge(self, clips: np.ndarray, names: Sequence[str], batch: int = 64) -> Rates:
        """How often clips (N, T, H, W, 3) show the classes `names` (N) that they should.

        Raises:
            ClassificationError: a class it did not learn, or not one class a clip.
        """
        return rates(self.numbers(names), self.predict(clips, batch), self.classes)


@torch.no_grad()
def predicted(module: ClipClassifier, clips: np.ndarray, batch: int = 64) -> np.ndarray:
    """(N,) classes of most steps of uint8 clips (N, T, H, W, 3)."""
    device = next(module.parameters()).device
    parts = (clips[start : start + batch] for start in range(0, len(clips), batch))
    return torch.cat([module.voted(module.step_logits(to_network(part, device))).cpu() for part in parts]).numpy()


def rates(wanted: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> Rates:
    """The rates of found classes (N,) against those wanted (N,).

    Raises:
        ClassificationError: no clip, or unlike numbers of them.
    """
    if not len(wanted) or wanted.shape != found.shape:
        raise ClassificationError(f"{found.shape} classes found for {wanted.shape} wanted: one each of at least one")
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (wanted, found), 1)
    held = confusion.sum(1)
    recall = {str(name): 100.0 * float(confusion[i, i] / held[i]) for i, name in enumerate(classes) if held[i]}
    balanced = float(np.mean(list(recall.values())))
    return Rates(100.0 * float((wanted == found).mean()), balanced, recall, len(wanted), confusion)


def _half_interval(percent: np.ndarray, counts: np.ndarray) -> float:
    """Of the mean of independent shares. A share of 0 or 1 says little of few: it is drawn to the middle (Wilson)."""
    shares = (percent / 100 * counts + _WILSON**2 / 2) / (counts + _WILSON**2)
    variances = shares * (1 - shares) / (counts + _WILSON**2)
    return float(100 * _WILSON * np.sqrt(variances.sum()) / len(counts))


def balanced_rows(labels: np.ndarray, batch: int, step: int, seed: int) -> np.ndarray:
    """(batch,) clip indices of a step: every class equally often, but for what the batch leaves over.

    They depend on the seed and the step alone.

    Args:
        labels: (N,) class numbers.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step, 2]))
    present = rng.permutation(np.unique(labels))
    members: list[Any] = [np.flatnonzero(labels == number) for number in present]
    drawn = [rng.choice(members[place % len(present)]) for place in range(batch)]
    return np.sort(np.array(drawn, dtype=np.int64))
