"""One question of a benchmark."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

from evatok.errors import EvatokError

LETTERS = string.ascii_uppercase


class BenchmarkError(EvatokError, ValueError):
    """Annotations, videos or a model that a benchmark cannot be run with."""


@dataclass(frozen=True)
class Item:
    """A multiple-choice question about a video.

    Attributes:
        name: unique within the benchmark.
        video: file relative to the video folder; without a suffix, any video suffix matches.
        answer: index of the correct option.
        group: task, length or category by which scores are also reported.
        start, end: seconds of the video to use.
        subtitles: file of subtitles, relative to their folder, without suffix; "" for none.

    Raises:
        BenchmarkError: fewer than two options, more than there are letters, or an answer that is none of them.
    """

    name: str
    video: str
    question: str
    options: tuple[str, ...]
    answer: int
    group: str
    start: float = 0.0
    end: float = math.inf
    subtitles: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LETTERS):
            raise BenchmarkError(f"question {self.name} has {len(self.options)} options, 2 to {len(LETTERS)} can be")
        if not 0 <= self.answer < len(self.options):
            letters = LETTERS[: len(self.options)]
            raise BenchmarkError(f"question {self.name}: its answer is not among its options ({', '.join(letters)})")

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]
