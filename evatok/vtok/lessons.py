"""Questions and answers as token ids for the language model.

Legend: N clips, Q questions of a clip, W words of all of them, V symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from evatok.data.embedded import camera_text
from evatok.data.embedded.scene_text import CATEGORIES, OPTIONS, PLACES, vocabulary
from evatok.vtok.features import Features
from evatok.vtok.language_model import LONGEST, LanguageModelError, VideoLanguageModel

BATCH = 50  # clips answered per batch
_ANSWERS = {**OPTIONS, **PLACES, camera_text.CATEGORY: camera_text.OPTIONS}


@dataclass(frozen=True)
class Lessons:
    """Questions about N clips, Q each, in the order of `categories`, where a category may appear several times.

    Attributes:
        words: (N, W) indices of their words, questions concatenated.
        lengths: words of each question; those of one category are equally long in every clip.
        answers: (N, Q) indices of the answering symbols.
        needs: (N, Q) what must be seen to answer (`scene_text.NEEDS`).
    """

    categories: tuple[str, ...]
    words: np.ndarray
    lengths: tuple[int, ...]
    answers: np.ndarray
    needs: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, labels: pd.DataFrame, *, further: bool = False) -> Lessons:
        """Collect the questions among a set's labels, one per category.

        Args:
            further: with those that ask for a category again (columns q_position_2, ...), and with lessons of where
                single objects are (q_row, q_column, ...), which belong to no category.

        Raises:
            LanguageModelError: no questions, an unknown word, questions of unlike length, or an answer that is not
                among its options.
        """
        names = (*CATEGORIES, camera_text.CATEGORY, *(PLACES if further else ()))
        columns = [column for name in names for column in _columns(labels, name, further)]
        if not columns:
            raise LanguageModelError(f"the clips have no questions: columns q_{CATEGORIES[0]}, ... are needed")
        asked = [_asked(labels, column) for column in columns]
        return cls(
            tuple(_category(column) for column in columns),
            np.concatenate([words for words, _ in asked], axis=1),
            tuple(words.shape[1] for words, _ in asked),
            np.stack([answers for _, answers in asked], axis=1),
            labels[[f"need_{column}" for column in columns]].to_numpy(dtype=str),
        )

    def take(self, rows: np.ndarray) -> Lessons:
        """Select some clips."""
        return Lessons(self.categories, self.words[rows], self.lengths, self.answers[rows], self.needs[rows])

    def drawn(self, most: int, random: np.random.Generator) -> Lessons:
        """Draw at most this many per category, anew and for all clips together, keeping their order."""
        named = np.array(self.categories)
        kept = [random.permutation(np.flatnonzero(named == name))[:most] for name in dict.fromkeys(self.categories)]
        columns = np.sort(np.concatenate(kept))
        of_word = np.repeat(np.arange(len(named)), self.lengths)
        words = self.words[:, np.isin(of_word, columns)]
        categories, lengths = zip(*((self.categories[at], self.lengths[at]) for at in columns), strict=True)
        return Lessons(categories, words, lengths, self.answers[:, columns], self.needs[:, columns])


def loss(model: VideoLanguageModel, features: Features, lessons: Lessons) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the cross-entropy of the answers over the whole vocabulary, and the share of correct answers."""
    device = next(model.parameters()).device
    logits = model(features, torch.from_numpy(lessons.words).to(device), lessons.lengths)
    answers = torch.from_numpy(lessons.answers).to(device)
    right = (logits.argmax(-1) == answers).float().mean()
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten()), right


@torch.no_grad()
def answered(model: VideoLanguageModel, features: Features, lessons: Lessons) -> np.ndarray:
    """Return (N, Q) indices of the likeliest option of each question."""
    device = next(model.parameters()).device
    places = _numbers()
    options = [torch.tensor([places[option] for option in _ANSWERS[name]]) for name in lessons.categories]
    parts = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the control `shuffled` draws an order
        for start in range(0, len(lessons), BATCH):
            rows = np.arange(start, min(start + BATCH, len(lessons)))
            words = torch.from_numpy(lessons.words[rows]).to(device)
            logits = model(features.take(rows, device), words, lessons.lengths).float().cpu()
            best = [held[logits[:, number, held].argmax(-1)] for number, held in enumerate(options)]
            parts.append(torch.stack(best, dim=1).numpy())
    return np.concatenate(parts)


def _columns(labels: pd.DataFrame, category: str, further: bool) -> list[str]:
    """Return the label columns of a category's questions: position, position_2, ..."""
    found = [category, *(f"{category}_{number}" for number in range(2, len(labels.columns)) if further)]
    return [column for column in found if f"q_{column}" in labels]


def _category(column: str) -> str:
    return column.partition("_")[0]


def _asked(labels: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, words) and (N,): questions and answers of one column."""
    places, category = _numbers(), _category(column)
    texts = labels[f"q_{column}"].astype(str)
    known = {text: _words_of(text, places) for text in texts.unique()}  # a set repeats the same questions many times
    split = [known[text] for text in texts]
    odd = next((number for number, words in enumerate(split) if len(words) != len(split[0])), None)
    if odd is not None or len(split[0]) > LONGEST:
        raise LanguageModelError(f"question {odd or 0} of {column}: {len(split[odd or 0])} words, not {len(split[0])}")
    answers = labels[f"a_{column}"].astype(str)
    options = _ANSWERS[category]
    unknown = sorted(set(answers) - set(options))
    if unknown:
        raise LanguageModelError(
            f"an answer of {category} is {unknown[0]!r}, which is not among its options: {', '.join(options)}"
        )
    return np.array(split, dtype=np.int64), answers.map(places).to_numpy(dtype=np.int64)


def _words_of(text: str, places: dict[str, int]) -> list[int]:
    """Split a text into the fewest known phrases from left to right, longest first.

    Raises:
        LanguageModelError: a word that no phrase begins with.
    """
    words, found = text.split(), []
    while words:
        fits = [n for n in range(len(words), 0, -1) if " ".join(words[:n]) in places]
        if not fits:
            raise LanguageModelError(f"{text!r}: the vocabulary has no word {words[0]!r}")
        found.append(places[" ".join(words[: fits[0]])])
        words = words[fits[0] :]
    return found


def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(vocabulary())}
