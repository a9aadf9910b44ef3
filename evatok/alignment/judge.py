"""Judges that answer questions about clips: the ruler, which measures pixels, or a trained model (`ModelJudge`).

A learned judge is a model of `vtok_understanding`, with a seed no row uses. It stands in for the paper's Qwen2.5-VL;
its accuracy on real clips tells how far it can be trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from evatok.data.clips import ClipSet
from evatok.data.embedded.scene_ruler import Ruler, category_of
from evatok.data.embedded.scene_text import CATEGORIES, OPTIONS
from evatok.storage.shards import ShardStore
from evatok.vtok import lessons
from evatok.vtok.features import features_of
from evatok.vtok.image_encoder import ImageEncoder
from evatok.vtok.language_model import VideoLanguageModel
from evatok.vtok.lessons import Lessons
from evatok.vtok.scoring import ScoringError


class Judge(Protocol):
    """Answers the questions about each uint8 clip (N, T, S, S, 3); "" if it has none."""

    name: str
    version: str

    def answers(self, clips: np.ndarray, questions: list[list[str]], /) -> list[list[str]]: ...


class ModelJudge:
    """A video language model as judge; `version` is the beginning of its checkpoint's hash."""

    name = "model"

    def __init__(
        self,
        model: VideoLanguageModel,
        encoder: ImageEncoder,
        sha256: str,
        store: ShardStore,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.encoder, self.version = model, encoder, sha256[:16]
        self.store, self.device = store, device

    @classmethod
    def load(cls, path: Path, encoder_path: Path, device: torch.device | str = "cpu") -> ModelJudge:
        """Load a model's checkpoint with the image encoder it was trained on.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
            ScoringError: an encoder the model was not trained on.
        """
        encoder = ImageEncoder.load(encoder_path, device)
        model = VideoLanguageModel.load(path, device)
        if model.checkpoint.parents.get("image_encoder") != encoder.checkpoint.sha256:
            raise ScoringError(f"{path} was trained on features of another image encoder than {encoder_path}")
        return cls(model, encoder, model.checkpoint.sha256, ShardStore.of_features(), device)

    def answers(self, clips: np.ndarray, questions: list[list[str]]) -> list[list[str]]:
        """Answer by likelihood, category by category."""
        features = features_of(self.encoder, ClipSet(clips, pd.DataFrame(), {}), device=self.device, store=self.store)
        found: list[list[str]] = [[""] * len(texts) for texts in questions]
        by_category: dict[str, list[tuple[int, int]]] = {name: [] for name in CATEGORIES}
        for row, texts in enumerate(questions):
            for place, text in enumerate(texts):
                by_category[category_of(text)].append((row, place))
        for category, places in by_category.items():
            if not places:
                continue
            rows = np.array([row for row, _ in places])
            asked = [questions[row][place] for row, place in places]
            labels = {f"q_{category}": asked, f"a_{category}": OPTIONS[category][0], f"need_{category}": "key"}
            held = Lessons.of(pd.DataFrame(labels))
            numbers = lessons.answered(self.model, features.take(rows), held)[:, 0]
            for (row, place), number in zip(places, numbers.tolist(), strict=True):
                found[row][place] = self.model.words[number]
        return found


def judge_of(name: str, encoder: Path, device: torch.device | str = "cpu") -> Judge:
    """Return the ruler by name, else the model whose checkpoint is at this path."""
    return Ruler() if name == "ruler" else ModelJudge.load(Path(name), encoder, device)
