"""Many videos: a manifest (CSV) or a tree of class folders in; clips, labels and failures out.

Both sources give the same frame, one row a clip: `path` (absolute), `label` ("" where none is given), `start`
(seconds; for a folder of images the index of the first) and `split` ("" where none is given).
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evatok.data.probe import VideoError
from evatok.data.video import (
    VIDEO_SUFFIXES,
    ClipReader,
    check_sampling,
    images_in,
    natural_order,
    read_frames_folder,
)

COLUMNS = ("path", "label", "start", "split")
NAMED = 3  # how many of many offenders an error names


class ManifestError(ValueError):
    """A manifest or class tree from which no set of clips can be made."""


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a CSV with the column `path` and optionally `label`, `start`, `split`; the frame has all four.

    A row's path is that of a video or of a folder of images, relative to the manifest's own folder.

    Raises ManifestError, naming line numbers, for a missing or empty manifest, a column that is absent or
    unknown, a row of the wrong length, a start that is no time, a clip named twice, or missing files.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: there is no such manifest file")
    lines = dict(_lines(path))
    if not lines:
        raise ManifestError(f"{path}: the manifest names no clip; write one path a line below the header")
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
    _refuse_missing(path, frame)
    return frame


def scan_class_folders(root: Path) -> pd.DataFrame:
    """List root/<class>/<videos> in natural order, labelled by class; a folder of images there is one clip.

    Raises ManifestError for a missing root, videos outside a class, a class without clips, or a deeper folder
    without images: nothing that looks like a clip is passed over. Hidden entries and other files are.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise ManifestError(f"{root}: there is no such folder; it should hold one folder of videos a class")
    loose = [entry for entry in _visible(root) if _is_video(entry)]
    if loose:
        raise ManifestError(f"{root}: videos outside a class folder: {_few([entry.name for entry in loose])}")
    clips = {folder.name: _clips_in(folder) for folder in _visible(root) if folder.is_dir()}
    bare = [label for label, paths in clips.items() if not paths]
    if bare or not clips:
        held = f"class folders without a clip: {_few(bare)}" if bare else "it holds no class folder"
        raise ManifestError(f"{root}: {held}; expected <class>/<video> ({', '.join(VIDEO_SUFFIXES)})")
    rows = [(str(path), label, 0.0, "") for label, paths in clips.items() for path in paths]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def decode_manifest(
    rows: pd.DataFrame,
    *,
    frames: int = 16,
    size: int = 128,
    fps: float | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Decode every row to clips (N, frames, size, size, 3) uint8, their N labels, and the failures.

    The labels are the decoded rows, numbered as the clips are. The failures have columns `path` and `reason`
    and keep the index of `rows`; every row is in exactly one of the two. `timeout` is seconds a clip.

    Raises ManifestError where there are no rows or every one fails, ValueError for an argument out of range.
    """
    check_sampling(frames=frames, size=size, fps=fps)
    if rows.empty:
        raise ManifestError("there are no rows to decode")
    clips = np.empty((len(rows), frames, size, size, 3), dtype=np.uint8)  # at once: a stack would need twice this
    decoded: list[int] = []  # positions in `rows`
    reasons: dict[int, str] = {}
    with ClipReader() as reader:
        steps = enumerate(zip(rows["path"], _starts(rows), strict=True))
        for row, (path, start) in tqdm(steps, "decode", len(rows), unit="clip", disable=None if progress else True):
            try:
                clips[len(decoded)] = _read(reader, Path(path), frames, size, fps, start, timeout)
                decoded.append(row)
            except VideoError as error:
                reasons[row] = error.reason
    failures = rows.iloc[list(reasons)][["path"]].assign(reason=list(reasons.values()))
    if not decoded:
        first = failures.iloc[0]
        raise ManifestError(f"none of {len(rows)} clips was decoded; first {first['path']}: {first['reason']}")
    return clips[: len(decoded)], rows.iloc[decoded].reset_index(drop=True), failures


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:  # -sig: spreadsheets write a byte-order mark
            reader = csv.reader(stream, skipinitialspace=True, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _check_columns(path, columns)
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(columns):
                    want = f"{len(columns)} of the header ({', '.join(columns)})"
                    raise ManifestError(f"{path}, line {reader.line_num}: {len(cells)} cells for the {want}")
                row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
                if not row["path"]:
                    raise ManifestError(f"{path}, line {reader.line_num}: the path is empty")
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not a comma-separated UTF-8 text file ({error})") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    allowed = f"the columns are {', '.join(COLUMNS)}, of which only path is required"
    if not columns:
        raise ManifestError(f"{path}: the manifest is empty; {allowed}")
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ManifestError(f"{path}: unknown column {_few([repr(name) for name in unknown])}; {allowed}")
    if "path" not in columns or len(set(columns)) < len(columns):
        raise ManifestError(f"{path}: the header is {', '.join(columns)}; {allowed}, each once")


def _start(path: Path, line: int, cell: str) -> float:
    try:
        start = float(cell or 0)
    except ValueError:
        start = -1.0
    if not (np.isfinite(start) and start >= 0):
        raise ManifestError(f"{path}, line {line}: start is {cell!r}; it must be a number from 0 up")
    return start


def _refuse_duplicates(path: Path, frame: pd.DataFrame, lines: list[int]) -> None:
    groups = pd.Series(lines).groupby([frame["path"].map(os.path.normpath), frame["start"]])
    twice = [f"lines {', '.join(map(str, group))}" for _, group in groups if len(group) > 1]
    if twice:
        raise ManifestError(f"{path}: the same path and start more than once: {_few(twice)}")


def _refuse_missing(path: Path, frame: pd.DataFrame) -> None:
    missing = [name for name in frame["path"].unique() if not Path(name).exists()]
    if missing:
        total = f"{len(missing)} of {frame['path'].nunique()} files are missing"
        raise ManifestError(f"{path}: {total}: {_few(missing)}; relative paths begin at the manifest's folder")


def _clips_in(folder: Path) -> list[Path]:
    entries = _visible(folder)
    empty = [entry.name for entry in entries if entry.is_dir() and not images_in(entry)]
    if empty:
        raise ManifestError(f"{folder}: folders without images: {_few(empty)}; videos lie directly in their class")
    return [entry for entry in entries if entry.is_dir() or _is_video(entry)]


def _visible(folder: Path) -> list[Path]:
    return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_order)


def _is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES


def _few(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _starts(rows: pd.DataFrame) -> list[float]:
    return [float(start) for start in rows["start"]] if "start" in rows else [0.0] * len(rows)


def _read(
    reader: ClipReader, path: Path, frames: int, size: int, fps: float | None, start: float, timeout: float
) -> np.ndarray:
    if not path.is_dir():
        return reader.read(path, frames=frames, size=size, fps=fps, start=start, timeout=timeout)
    if fps is not None:
        raise VideoError(path, f"a folder of images has no times to pick {fps:g} fps from; pass fps=None")
    if not start.is_integer():
        raise VideoError(path, f"start {start:g} is not the index of an image")
    return read_frames_folder(path, frames=frames, size=size, start=int(start))
