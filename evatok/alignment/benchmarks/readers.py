"""Read the annotations of a benchmark as its authors publish them: JSON, JSON lines, CSV or Parquet, one file or more.

Open questions, which Video-MMMU and MMVU also contain, have no options and are skipped; their number is reported.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from evatok.alignment.benchmarks.items import LETTERS, BenchmarkError, Item
from evatok.storage.files import ordinary

Row = Mapping[str, Any]


class Place(NamedTuple):
    """Location of a row: its file, without suffix, and its index there."""

    file: str
    number: int


SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_LETTERED = re.compile(r"^\(?[A-Z][.):]\s*")
_INLINE = re.compile(r"\n\s*\(([A-Z])\)\s*")
_MULTIPLE_CHOICE = ("multiple-choice", "perception")


def read(protocol: str, path: Path) -> tuple[list[Item], int]:
    """Read the questions of a benchmark; also return how many others are not multiple choice.

    Args:
        protocol: a key of READERS.
        path: an annotation file, or a folder of several.

    Raises:
        BenchmarkError: an unknown benchmark or file, an incomplete row, one whose question or answer is not text, or
            two questions with one name.
    """
    if protocol not in READERS:
        raise BenchmarkError(f"protocol {protocol} has no questions of a user's to read; {', '.join(READERS)} have")
    found: list[Item] = []
    left_out = 0
    for file in _files(path):
        for number, row in enumerate(_rows(file)):
            try:
                items = list(READERS[protocol](row, Place(file.stem, number)))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
                raise BenchmarkError(f"{file}, row {number}: not as {protocol} is published ({reason})") from error
            found += items
            left_out += not items
    names = [item.name for item in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise BenchmarkError(f"{path}: question {twice!r} stands there twice")
    if not found:
        raise BenchmarkError(f"{path}: no question of multiple choice")
    return found, left_out


def video_mme(row: Row, place: Place) -> Iterator[Item]:
    """Video-MME: a row per question, options with their letters; subtitles are named as the video."""
    options = _stripped(_listed(row["options"]))
    name, video = str(row["question_id"]), str(row["videoID"])
    yield Item(name, video, _text(row, "question"), options, _letter(row), str(row["duration"]), subtitles=video)


def video_mmmu(row: Row, place: Place) -> Iterator[Item]:
    """Video-MMMU: a file per track (perception, comprehension, adaptation); the video is named as the question."""
    options = _stripped(_listed(row["options"]))
    if options and str(row.get("question_type", _MULTIPLE_CHOICE[0])) in _MULTIPLE_CHOICE:
        name = f"{place.file}/{row['id']}"
        yield Item(name, str(row["id"]), _text(row, "question"), options, _letter(row), place.file)


def mmvu(row: Row, place: Place) -> Iterator[Item]:
    """MMVU: choices by letter; a video's address ends in subject and number, which is the group."""
    if row["question_type"] == _MULTIPLE_CHOICE[0]:
        path = PurePosixPath(str(row.get("video_path") or row["video"]))
        options = tuple(str(text) for _, text in sorted(row["choices"].items()) if text)
        video = f"{path.parent.name}/{path.name}"
        yield Item(str(row["id"]), video, _text(row, "question"), options, _letter(row), path.parent.name)


def mvbench(row: Row, place: Place) -> Iterator[Item]:
    """MVBench: a file per task, rows without a name; the answer is an option's text, some rows name a video segment."""
    options = tuple(map(str, row["candidates"]))
    name, answer = f"{place.file}/{place.number}", _position(row, options)
    start, end = float(row.get("start") or 0.0), float(row.get("end") or math.inf)
    yield Item(name, str(row["video"]), _text(row, "question"), options, answer, place.file, start, end)


def longvideobench(row: Row, place: Place) -> Iterator[Item]:
    """LongVideoBench: up to five candidates and the number of the right one; the group is the range of lengths."""
    given = row["candidates"] if "candidates" in row else [row.get(f"option{number}") for number in range(5)]
    options = tuple(str(option) for option in given if option is not None and str(option) != "N/A")
    where = PurePosixPath(str(row.get("subtitle_path") or "")).stem
    details: dict[str, Any] = {"group": str(row["duration_group"]), "subtitles": where}
    yield Item(
        str(row["id"]), str(row["video_path"]), _text(row, "question"), options, int(row["correct_choice"]), **details
    )


def lvbench(row: Row, place: Place) -> Iterator[Item]:
    """LVBench: a row per video with its questions, whose options are part of the text."""
    for asked in row["qa"]:
        question, *pieces = _INLINE.split(_text(asked, "question"))
        options = tuple(text.strip() for text in pieces[1::2])
        kinds = asked["question_type"]
        group = kinds if isinstance(kinds, str) else " + ".join(kinds)
        yield Item(str(asked["uid"]), str(row["key"]), question.strip(), options, _letter(asked), group)


def tv_align(row: Row, place: Place) -> Iterator[Item]:
    """TV-Align's form: triples (prompt, question, answer) with options and category; samples are named `clip`."""
    options = tuple(_listed(row["options"]))
    name, group = f"{row['clip']}/{row['category']}", str(row["category"])
    yield Item(name, str(row["clip"]), _text(row, "question"), options, _position(row, options), group)


READERS: dict[str, Callable[[Row, Place], Iterable[Item]]] = {
    "video-mme-without-subtitles": video_mme,
    "video-mme-with-subtitles": video_mme,
    "video-mmmu": video_mmmu,
    "mmvu": mmvu,
    "mvbench": mvbench,
    "longvideobench": longvideobench,
    "lvbench": lvbench,
    "vtok-tv-align": tv_align,
}
"""How the rows of each benchmark are read, by protocol."""


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not found:
            raise BenchmarkError(f"{path}: no annotations, that is no file that ends in {', '.join(SUFFIXES)}")
        return found
    if path.suffix not in SUFFIXES or not path.exists():
        raise BenchmarkError(f"{path}: no annotation file; one that ends in {', '.join(SUFFIXES)} is needed")
    return [path]


def _rows(path: Path) -> list[Row]:
    try:
        if path.suffix == ".parquet":
            return _records(pd.read_parquet(path))
        if path.suffix == ".csv":
            return _records(pd.read_csv(ordinary(path), dtype=str, keep_default_na=False))
        text = ordinary(path).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else None
        rows = json.loads(text) if lines is None else lines
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: cannot be read ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchmarkError(f"{path}: annotations are a list of objects")
    return rows


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _listed(options: Any) -> list[str]:
    """Return options given as a list, an array, its text, or joined by bars."""
    if isinstance(options, str):
        listed = ast.literal_eval(options) if options.startswith("[") else options.split(" | ")
        return [str(option) for option in listed]
    if options is None or (isinstance(options, float) and math.isnan(options)):
        return []
    return [str(option) for option in options]


def _stripped(options: list[str]) -> tuple[str, ...]:
    """Strip leading letters if all options have theirs."""
    own = all(option.lstrip("(").startswith(letter) for option, letter in zip(options, LETTERS, strict=False))
    lettered = own and all(_LETTERED.match(option) for option in options)
    return tuple(_LETTERED.sub("", option) if lettered else option for option in options)


def _letter(row: Row) -> int:
    """Return the index of the option whose letter is the answer."""
    answer = _text(row, "answer")
    letter = answer.strip().strip("().")
    if len(letter) != 1 or letter not in LETTERS:
        raise ValueError(f"the answer {answer!r} is not a letter")
    return LETTERS.index(letter)


def _position(row: Row, options: Sequence[str]) -> int:
    """Return the index of the option whose text is the answer."""
    answer = _text(row, "answer")
    if answer not in options:
        raise ValueError(f"the answer {answer!r} is not among its options: {', '.join(options)}")
    return options.index(answer)


def _text(row: Row, key: str) -> str:
    """Return a field of text. Raises ValueError for another kind of value: a null would be asked as "None"."""
    value = row[key]
    if not isinstance(value, str):
        raise ValueError(f"the field {key!r} must be text, not {value!r}")
    return value
