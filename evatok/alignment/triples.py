"""Questions for samples of a text-to-video model: prompts, their questions, and the samples to judge.

A protocol such as moving-shapes-align asks one question per prompt, cycling through the seven categories; one that asks
all seven is also possible. Samples are named by their prompt's number, so that none can be mistaken for another.

Legend: N prompts, Q questions of each.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from evatok.data.embedded.scene_text import CATEGORIES, NEEDS, OPTIONS, Question
from evatok.evaluation import protocols
from evatok.evaluation.folders import FolderClips
from evatok.evaluation.protocols import Protocol
from evatok.storage.files import ordinary
from evatok.vtok.scoring import ScoringError

DATA = "moving-shapes"
ONE_EACH = "moving-shapes-align"


@dataclass(frozen=True)
class Triples:
    """N prompts, their questions, and the manifest of the real clips that match them."""

    protocol: Protocol
    prompts: list[str]
    questions: list[list[Question]]
    manifest: dict[str, object]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def texts(self) -> list[list[str]]:
        return [[question.text for question in asked] for asked in self.questions]

    def table(self) -> pd.DataFrame:
        """One row per question: the prompt's number and text, category, question, answer, options, need."""
        rows = [
            {
                "clip": number,
                "prompt": prompt,
                "category": question.category,
                "question": question.text,
                "answer": question.answer,
                "options": " | ".join(question.options),
                "need": question.need,
            }
            for number, (prompt, asked) in enumerate(zip(self.prompts, self.questions, strict=True))
            for question in asked
        ]
        return pd.DataFrame(rows)


def triples_of(protocol: Protocol, limit: int | None = None) -> Triples:
    """Return the prompts of a protocol and their questions, or the first `limit` of them.

    Raises:
        ScoringError: a protocol that asks nothing, or whose prompts are not known.
        ClipSetError: more prompts than there are.
    """
    asking = [one for one in protocols.PROTOCOLS.values() if one.data == DATA and "accuracy" in one.metrics]
    if protocol not in asking:
        names = ", ".join(one.name for one in asking)
        raise ScoringError(f"protocol {protocol.name} has no questions here; {names} have")
    real = protocols.clips_of(protocol, limit=limit)
    questions = questions_of(real.labels, one_each=protocol.name == ONE_EACH)
    return Triples(protocol, real.labels["caption"].astype(str).tolist(), questions, real.manifest)


def questions_of(labels: pd.DataFrame, *, one_each: bool = False) -> list[list[Question]]:
    """Return the questions among a set's labels: all of a clip's, or one each, cycling through the categories.

    Raises:
        ScoringError: an answer that is not among its options.
    """
    return [
        [_question(row, name) for name in ([CATEGORIES[number % len(CATEGORIES)]] if one_each else CATEGORIES)]
        for number, row in enumerate(labels.to_dict("records"))
    ]


def samples_of(folder: Path, triples: Triples) -> FolderClips:
    """Load samples of all prompts from a folder: one array (N, T, H, W, 3), or files named by the prompts' numbers.

    Raises:
        EvaluationError: no clips of the protocol's shape.
        ScoringError: too few or too many, or a name that is not the number of its prompt.
    """
    found = FolderClips(folder, frames=triples.protocol.frames, size=triples.protocol.size)
    if len(found) != len(triples):
        raise ScoringError(
            f"{folder}: {len(found)} samples for {len(triples)} prompts; --prompts FILE lists them, --limit takes fewer"
        )
    for number, name in enumerate(found.names or []):
        if not name.isdecimal() or int(name) != number:
            raise ScoringError(
                f"{folder}: found sample {name!r} where prompt {number} is expected; name the file {number}"
            )
    return found


def answers_in(path: Path, triples: Triples) -> list[list[str]]:
    """Read answers of an external judge from a CSV with the columns clip, category and answer.

    Raises:
        ScoringError: no such file or columns, other clips or categories than were asked, or an answer that is not
            among a question's options.
    """
    try:
        table = pd.read_csv(ordinary(path), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ScoringError(
            f"{path}: not a CSV of answers ({error}); it needs the columns clip, category, answer"
        ) from error
    lacking = {"clip", "category", "answer"} - set(table)
    if lacking:
        raise ScoringError(f"{path}: missing column {min(lacking)!r}; it needs the columns clip, category, answer")
    given = {(row["clip"], row["category"]): row["answer"].strip() for row in table.to_dict("records")}
    asked = {
        (str(number), question.category): question
        for number, questions in enumerate(triples.questions)
        for question in questions
    }
    odd = sorted(given.keys() ^ asked.keys())
    if odd or len(table) != len(asked):
        name = f"clip {odd[0][0]}, {odd[0][1]}" if odd else "a question twice"
        raise ScoringError(f"{path} does not answer what was asked: see {name}; --prompts FILE lists the questions")
    for key, question in asked.items():
        if given[key] and given[key] not in question.options:
            told = ", ".join(question.options)
            raise ScoringError(f"{path}: clip {key[0]}, {key[1]}: {given[key]!r} is not one of {told}")
    return [
        [given[str(number), question.category] for question in questions]
        for number, questions in enumerate(triples.questions)
    ]


def right(triples: Triples, given: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 7) whether answers are correct and (N, 7) indices of the needs, -1 where nothing was asked."""
    return scored(triples.questions, given)


def scored(asked: list[list[Question]], given: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """See `right`, for the questions of each clip."""
    held = np.zeros((len(asked), len(CATEGORIES)))
    needs = np.full(held.shape, -1, dtype=np.int64)
    for row, (questions, answers) in enumerate(zip(asked, given, strict=True)):
        for question, answer in zip(questions, answers, strict=True):
            column = CATEGORIES.index(question.category)
            held[row, column] = answer == question.answer
            needs[row, column] = NEEDS.index(question.need)
    return held, needs


def _question(row: Mapping[Hashable, object], category: str) -> Question:
    answer = str(row[f"a_{category}"])
    if answer not in OPTIONS[category]:
        raise ScoringError(f"the answer {answer!r} of {category} is not one of {', '.join(OPTIONS[category])}")
    return Question(category, (str(row[f"q_{category}"]),), answer, str(row[f"need_{category}"]))
