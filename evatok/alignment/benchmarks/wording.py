"""Prompt wording: one per benchmark, following its authors' where they give one.

VTok states none; this is one reason why its Table 3 cannot be reproduced to the digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evatok.alignment.benchmarks.items import BenchmarkError, Item
from evatok.storage.files import ordinary

WITH_SUBTITLES = "video-mme-with-subtitles"
_TAGS = re.compile(r"<[^>]+>")
_TIMES = re.compile(r"^\d+$|-->")


@dataclass(frozen=True)
class Wording:
    """Text before the question, the format of an option, and text after them."""

    before: str = ""
    option: str = "{letter}. {text}"
    after: str = "\nAnswer with the option's letter from the given choices directly."


_MME = "Select the best answer to the following multiple-choice question based on {what}. " + (
    "Respond with only the letter ({letters}) of the correct option.\n"
)
WORDINGS: dict[str, Wording] = {
    "video-mme-without-subtitles": Wording(_MME.replace("{what}", "the video"), after="\nThe best answer is:"),
    WITH_SUBTITLES: Wording(_MME.replace("{what}", "the video and the subtitles"), after="\nThe best answer is:"),
    "video-mmmu": Wording(after="\nPlease ignore the Quiz question in last frame of the video."),
    "mmvu": Wording("Question: ", "{letter}: {text}", "\nAnswer directly with the option letter from the choices."),
    "mvbench": Wording("Question: ", "({letter}) {text}", "\nOnly give the best option."),
    "lvbench": Wording(option="({letter}) {text}", after="\nAnswer the question with the option letter."),
}
"""By protocol; the others use `Wording()`."""


def prompt_of(protocol: str, item: Item, subtitles: Path | None = None) -> str:
    """Return the text of a question with its options.

    Args:
        subtitles: folder of files SUBTITLES.srt, which video-mme-with-subtitles needs.

    Raises:
        BenchmarkError: no such folder where it is needed.
    """
    wording = WORDINGS.get(protocol, Wording())
    letters = f"{', '.join(item.letters[:-1])}, or {item.letters[-1]}"
    before = wording.before.replace("{letters}", letters)
    options = "\n".join(
        wording.option.format(letter=letter, text=text) for letter, text in zip(item.letters, item.options, strict=True)
    )
    asked = f"{before}{item.question}\n{options}{wording.after}"
    return f"{_told(item, subtitles)}\n{asked}" if protocol == WITH_SUBTITLES else asked


def _told(item: Item, folder: Path | None) -> str:
    """Return a video's subtitles, as Video-MME words them; some videos have none."""
    if folder is None or not folder.is_dir():
        raise BenchmarkError(f"{WITH_SUBTITLES} needs a folder of subtitles: --subtitles FOLDER")
    path = folder / f"{item.subtitles}.srt"
    if not path.exists():
        return "This video's subtitles are listed below:\nNo subtitles available"
    lines = [_TAGS.sub("", line).strip() for line in ordinary(path).read_text(encoding="utf-8").splitlines()]
    spoken = [line for line in lines if line and not _TIMES.search(line)]
    return "\n".join(["This video's subtitles are listed below:", *spoken])
