"""Published split lists as manifest rows: UCF-101's text files, Kinetics' and WebVid's CSV files.

Their labels and splits are kept; where they give less than a path, it is the one under which the sets are commonly
unpacked.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

Rows = dict[int, dict[str, str]]

_UCF = re.compile(r"(train|test)list(\d\d)\.txt")
_KINETICS, _WEBVID = {"youtube_id", "time_start", "time_end"}, {"videoid", "page_dir"}
_VALIDATION = ("validate", "val")  # Kinetics' names for it


def rows_of_official(path: Path, text: str) -> Rows | None:
    """Return line number and row (path, label, split) of every clip in an official list; None for any other text.

    UCF-101: `trainlist01.txt` lists the training split, and the `testlist01.txt` beside it what is held out, as the
    validation split; the class is the video's folder. Kinetics: `<label>/<id>_<start>_<end>.mp4`, or without the label.
    WebVid: `<page_dir>/<videoid>.mp4`. Raises csv.Error for a row that is none.
    """
    if found := _UCF.fullmatch(path.name):
        return _of_ucf(path, text, found[1], found[2])
    columns = next(csv.reader([text.lstrip().partition("\n")[0]]), [])
    if "path" in columns:
        return None
    if set(columns) >= _KINETICS:
        return _of_csv(text, _kinetics(path.absolute().parent))
    return _of_csv(text, _webvid) if set(columns) >= _WEBVID else None


def _of_ucf(path: Path, text: str, kind: str, number: str) -> Rows:
    if kind == "test":
        return dict(enumerate(_ucf_rows(path, text, "test"), start=1))
    held_out = path.with_name(f"testlist{number}.txt")
    rows = list(_ucf_rows(path, text, "train"))
    if held_out.is_file():
        rows += _ucf_rows(path, held_out.read_text(encoding="utf-8"), "validation")
    return dict(enumerate(rows, start=1))


def _ucf_rows(path: Path, text: str, split: str) -> Iterator[dict[str, str]]:
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    folder = _holding(path.absolute().parent, names[0]) if names else ""
    for name in names:
        yield {"path": folder + name, "label": Path(name).parent.name, "split": split}


def _holding(folder: Path, name: str) -> str:
    """Return where the videos are relative to the lists: beside them, in UCF-101, or in the parent folder's UCF-101."""
    places = ("", "UCF-101/", "../UCF-101/", "../")
    return next((place for place in places if (folder / place / name).exists()), "")


def _of_csv(text: str, row_of: Callable[[dict[str, str]], dict[str, str]]) -> Rows:
    reader, rows = csv.DictReader(io.StringIO(text), skipinitialspace=True), {}
    for row in reader:
        if any(value is None for value in row.values()):
            raise csv.Error(f"line {reader.line_num}: fewer cells than the header")
        rows[reader.line_num] = row_of({name.strip(): cell.strip() for name, cell in row.items() if name})
    return rows


def _kinetics(folder: Path) -> Callable[[dict[str, str]], dict[str, str]]:
    def row_of(cells: dict[str, str]) -> dict[str, str]:
        label, split = cells.get("label") or "", cells.get("split") or ""
        start, end = (_seconds(cells[name]) for name in ("time_start", "time_end"))
        name = f"{cells['youtube_id']}_{start:06d}_{end:06d}.mp4"
        inside = f"{label}/{name}"
        path = inside if label and not (folder / name).exists() else name
        return {"path": path, "label": label, "split": "validation" if split in _VALIDATION else split}

    return row_of


def _seconds(cell: str) -> int:
    try:
        return int(float(cell))
    except (ValueError, OverflowError) as error:
        raise csv.Error(f"{cell!r} is no number of seconds") from error


def _webvid(cells: dict[str, str]) -> dict[str, str]:
    return {"path": f"{cells['page_dir']}/{cells['videoid']}.mp4", "label": "", "split": cells.get("split") or ""}
