"""Many videos: a manifest (CSV) or a tree of class folders in; clips, labels and failures out.

Both sources give the same frame, one row per clip: `path` (absolute), `label` ("" if none is given), `start` (seconds;
for a folder of images the index of the first) and `split` ("" if none is given).

Manifests are read as they are found: cells between commas, semicolons or tabs; further columns, which are named once
in the log; `action` or `class` in the place of an absent `label`; and lists without a header, `path` or `path label`
on each line; and the lists of UCF-101, Kinetics and WebVid (`evatok.data.official_lists`).
"""

import csv
import difflib
import functools
import io
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evatok.data.containers import VIDEO_SUFFIXES
from evatok.data.decoding import check_sampling
from evatok.data.image_folder import IMAGE_SUFFIXES, read_frames_folder
from evatok.data.official_lists import rows_of_official
from evatok.data.probe import VideoError
from evatok.data.still_image import read_image
from evatok.data.video import ClipReader
from evatok.errors import EvatokError
from evatok.storage.files import ordinary

COLUMNS = ("path", "label", "start", "split")
LABEL_ALIASES = ("action", "class")  # the first one present is the label if there is no column `label`
NEAR = 0.8  # likeness (difflib) above which an unknown name counts as misspelt
SEPARATORS = (",", ";", "\t")
NAMED = 3  # how many offenders an error names

_log = logging.getLogger(__name__)


class ManifestError(EvatokError, ValueError):
    """A manifest or class tree that yields no set of clips."""


def read_manifest(path: Path | str, *, missing: bool = False) -> pd.DataFrame:
    """Read a CSV with the column `path` and optionally `label`, `start`, `split`; the frame has all four.

    A row's path is that of a video or of a folder of images, relative to the manifest's own folder. Without `label`,
    `action` or else `class` is the label. Other columns are left alone and named once in the log. A first line whose
    first cell is a video or an existing path is no header: the lines are then `path` or `path label`, with a comma,
    semicolon, tab or blanks before the label.

    Raises ManifestError, naming line numbers, for a missing or empty manifest, a header without `path`, a column that
    looks like a misspelt one, a row of the wrong length, a start that is no time, a clip named twice, or missing files;
    with `missing` only where all are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: there is no such manifest file")
    lines = _lines(path)
    if not lines:
        raise ManifestError(f"{path}: the manifest lists no clips; write one path per line below the header")
    folder = path.absolute().parent
    rows = [
        {
            "path": str(folder / row["path"]),
            "label": row.get("label", ""),
            "start": _start(path, line, row.get("start", "")),
            "split": row.get("split", ""),
        }
        for line, row in lines.items()
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    _refuse_duplicates(path, frame, list(lines))
    if not missing or not any(map(_exists, map(Path, frame["path"]))):
        _refuse_missing(path, frame)
    return frame


def readable(name: str) -> str:
    """Return a printable file or class name; bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def decode_manifest(
    rows: pd.DataFrame,
    *,
    frames: int = 16,
    size: int = 128,
    fps: float | None = None,
    progress: bool = True,
    timeout: float = 30.0,
    count: int = 0,
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Decode every row to clips (N, frames, size, size, 3) uint8, their N labels, and the failures.

    The labels are the decoded rows, numbered as the clips are. The failures have columns `path` and `reason`
    and keep the index of `rows`; every row is in exactly one of the two, unless `count` clips (0: all) come from
    fewer rows. `timeout` is seconds per clip. With `frames` 1 a row is an image (`evatok.data.still_image`).

    Raises ManifestError where there are no rows or every one fails, ValueError for an argument out of range.
    """
    check_sampling(frames=frames, size=size, fps=fps)
    if rows.empty:
        raise ManifestError("there are no rows to decode")
    most = min(count or len(rows), len(rows))
    clips = np.empty((most, frames, size, size, 3), dtype=np.uint8)  # allocated at once: a stack would need twice this
    decoded: list[int] = []  # positions in `rows`
    reasons: dict[int, str] = {}
    with ClipReader() as reader:
        steps = enumerate(zip(rows["path"], _starts(rows), strict=True))
        for row, (path, start) in tqdm(steps, "decode", len(rows), unit="clip", disable=None if progress else True):
            if len(decoded) == most:
                break
            try:
                clips[len(decoded)] = _read(reader, Path(path), frames, size, fps, start, timeout)
                decoded.append(row)
            except VideoError as error:
                reasons[row] = error.reason
    failures = rows.iloc[list(reasons)][["path"]].assign(reason=list(reasons.values()))
    if not decoded:
        path, reason = failures.iloc[0][["path", "reason"]]
        raise ManifestError(f"none of {len(rows)} clips could be decoded; the first, {path}: {reason}")
    return clips[: len(decoded)], rows.iloc[decoded].reset_index(drop=True), failures


def _lines(path: Path) -> dict[int, dict[str, str]]:
    """Yield line number and row of every non-blank line."""
    if not path.is_file():
        raise ManifestError(f"{path}: not a regular file, so not a manifest")  # a pipe would block
    try:
        text = ordinary(path).read_text(encoding="utf-8-sig")  # -sig: spreadsheets write a byte-order mark
        if (official := rows_of_official(path, text)) is not None:
            return official
        first = next((line for line in text.split("\n") if line.strip()), "")
        under = [separator for separator in SEPARATORS if "path" in _cells(first, separator)]
        if not under and (of_list := _separator_of_list(first, path.absolute().parent)) is not None:
            return dict(_rows_of_list(path, text, of_list))
        return dict(_rows_under_header(path, text, (under or SEPARATORS)[0]))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not a comma-separated UTF-8 text file ({error})") from error


def _separator_of_list(first: str, folder: Path) -> str | None:
    """Return the separator of path and label if the first line of a manifest starts with a path; None otherwise."""
    for separator in ("", *SEPARATORS, " "):
        head = _cells(first, separator)[0]
        if head and (Path(head).suffix.lower() in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) or _exists(folder / head)):
            return separator
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False


def _cells(line: str, separator: str) -> list[str]:
    """Split a line into cells; "" keeps it whole, " " splits at the last blanks."""
    if not separator:
        return [line.strip()]
    if separator == " ":
        return line.strip().rsplit(maxsplit=1) or [""]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True)) or [""]]


def _rows_under_header(path: Path, text: str, separator: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    columns = [name.strip() for name in next(filter(any, reader), [])]
    meant = _meant(path, columns)
    for cells in reader:
        if not any(cells):
            continue
        if len(cells) != len(columns):
            want = f"{len(columns)} of the header ({', '.join(columns)})"
            raise ManifestError(f"{path}, line {reader.line_num}: {len(cells)} cells for the {want}")
        row = {meant[name]: cell.strip() for name, cell in zip(columns, cells, strict=True) if name in meant}
        if not row["path"]:
            raise ManifestError(f"{path}, line {reader.line_num}: the path is empty")
        yield reader.line_num, row


def _rows_of_list(path: Path, text: str, separator: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a list without a header, whose lines are a path (label "") or a path and a label."""
    width = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        cells = _cells(line, separator)
        width = width or len(cells)
        if len(cells) != width or width > 2:
            told = f"{len(cells)} cells in a list without a header, where a line is a path, or a path and a label"
            raise ManifestError(
                f"{path}, line {number}: {told}; name the columns in a first line: {', '.join(COLUMNS)}"
            )
        if not cells[0]:
            raise ManifestError(f"{path}, line {number}: the path is empty")
        yield number, dict(zip(COLUMNS, cells, strict=False))


def _meant(path: Path, columns: list[str]) -> dict[str, str]:
    """Map the name of each column that is read to its meaning."""
    allowed = f"the columns are {', '.join(COLUMNS)}, of which only path is required"
    if not columns:
        raise ManifestError(f"{path}: the manifest is empty; {allowed}")
    meant = {name: name for name in columns if name in COLUMNS}
    others = [name for name in columns if name not in meant]
    misses = {name: near for name in others if (near := _near(name, meant))}
    if misses:
        told = few([f"{name!r} (is it {near}?)" for name, near in misses.items()])
        raise ManifestError(f"{path}: unknown column {told}; {allowed}: rename it, even if it means something else")
    if "label" not in meant:
        meant |= {name: "label" for name in [name for name in LABEL_ALIASES if name in others][:1]}
    if "path" not in meant or any(columns.count(name) > 1 for name in meant):
        raise ManifestError(f"{path}: the header is {', '.join(columns)}; {allowed}, each once")
    unused = [name or "(no name)" for name in columns if name not in meant]
    if unused:
        log_once(f"{path}: columns that are not used: {', '.join(unused)}")
    return meant


def _near(name: str, known: Iterable[str]) -> str:
    """Return the column that `name` seems to be a misspelling of; "" if none, or if that column also exists."""
    near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=NEAR)
    return near[0] if near and near[0] not in known else ""


@functools.cache  # a manifest is read several times on the way to its clips, but reported once
def log_once(told: str) -> None:
    _log.info("%s", readable(told))


def _start(path: Path, line: int, cell: str) -> float:
    try:
        start = float(cell or 0)
    except ValueError:
        start = -1.0
    if not (np.isfinite(start) and start >= 0):
        raise ManifestError(f"{path}, line {line}: start is {cell!r}; it must be a number of at least 0")
    return start


def _refuse_duplicates(path: Path, frame: pd.DataFrame, lines: list[int]) -> None:
    groups = pd.Series(lines).groupby([frame["path"].map(os.path.normpath), frame["start"]])
    twice = [f"lines {', '.join(map(str, group))}" for _, group in groups if len(group) > 1]
    if twice:
        raise ManifestError(f"{path}: duplicate path and start: {few(twice)}")


def _refuse_missing(path: Path, frame: pd.DataFrame) -> None:
    missing = [name for name in frame["path"].unique() if not _exists(Path(name))]
    if missing:
        total = f"{len(missing)} of {frame['path'].nunique()} files are missing"
        raise ManifestError(f"{path}: {total}: {few(missing)}; paths are relative to the manifest's folder")


def few(names: list[str], most: int = NAMED) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _starts(rows: pd.DataFrame) -> list[float]:
    return [float(start) for start in rows["start"]] if "start" in rows else [0.0] * len(rows)


def _read(
    reader: ClipReader, path: Path, frames: int, size: int, fps: float | None, start: float, timeout: float
) -> np.ndarray:
    if frames == 1 and not path.is_dir():
        return _read_still(path, size, fps, start)
    if not path.is_dir():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise VideoError(path, f"an image, but clips have {frames} frames; modality=image, frames 1, reads images")
        return reader.read(path, frames=frames, size=size, fps=fps, start=start, timeout=timeout)
    if fps is not None:
        raise VideoError(path, f"a folder of images has no timestamps to sample at {fps:g} fps; pass fps=None")
    if not start.is_integer():
        raise VideoError(path, f"start {start:g} is not the index of an image")
    return read_frames_folder(path, frames=frames, size=size, start=int(start))


def _read_still(path: Path, size: int, fps: float | None, start: float) -> np.ndarray:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise VideoError(path, "a video, but images are asked for; modality=video, frames above 1, reads videos")
    if fps is not None or start:
        raise VideoError(path, f"an image has neither a start ({start:g}) nor a rate to sample at (fps={fps})")
    return read_image(path, size=size)
