"""What was measured of every clip, in files beside the records, so that two rows can be compared clip by clip.

A record of an evaluation names two such files: the values and features of what was measured, and the features of the
real clips, which all evaluations of the same clips share. A file is named after its content, as a record that names
it cannot be named in it. Means of two rows of the same clips differ by far more than their own intervals would tell:
clips that are hard are hard for both.

Legend: N clips, D features.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evatok.storage.environment import REPOSITORY
from evatok.storage.files import replacing, sha256_file
from evatok.storage.records import Record, RecordError

if TYPE_CHECKING:
    from evatok.metrics.bootstrap import Interval

Arrays = dict[str, np.ndarray]
MEASURED, REFERENCE = "per_clip", "reference"
"""What a record calls its two files."""
FEATURES, REAL, MOTION = "i3d", "real_i3d", "motion"
"""(N, D) features of reconstructions and of real clips, and (N, ...) moments of motion, among the values by metric."""
HALF = 6e4  # what float16 can hold
DRAWS_OF_SETS = 200  # of distances between sets, each of which takes milliseconds


def write(arrays: Mapping[str, np.ndarray], folder: Path | str, name: str) -> Path:
    """Write `<folder>/<name>-<16 hex of its content>.npz` in one step; features are kept in float16 where they fit."""
    held = io.BytesIO()
    np.savez_compressed(held, **{key: _small(key, values) for key, values in arrays.items()})  # type: ignore[arg-type]
    content = held.getvalue()
    path = Path(folder) / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.npz"
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def read(record: Record, root: Path = REPOSITORY) -> Arrays | None:
    """All arrays that a record's files hold; None where it names none, or they are not there.

    Raises:
        RecordError: a file whose content is not what the record names, or that cannot be read.
    """
    named = [record.artifacts[name] for name in (MEASURED, REFERENCE) if name in record.artifacts]
    paths = [root / artifact.path for artifact in named]
    if MEASURED not in record.artifacts or not all(path.exists() for path in paths):
        return None
    arrays: Arrays = {}
    for artifact, path in zip(named, paths, strict=True):
        if sha256_file(path) != artifact.sha256:
            raise RecordError(f"{path}: its content is not what {record.id} names; restore it, or measure again")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays |= {key: file[key] for key in file.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise RecordError(f"{path}: no file of arrays ({error})") from error
    return arrays


def same_clips(one: Record, other: Record) -> bool:
    """Whether both were measured on the same clips in the same order, under one protocol."""
    alike = all(one.protocol.get(key) == other.protocol.get(key) for key in ("hash", "measured_clips"))
    return alike and _pixels(one) is not None and _pixels(one) == _pixels(other)


def paired(one: Record, other: Record, metric: str, root: Path = REPOSITORY) -> Interval | None:
    """The value of a metric of `one` less that of `other`, with its interval over draws of the same clips from both.

    None where they are of different clips, or either did not leave what the metric is made of. Raises as `read`.
    """
    if not same_clips(one, other):
        return None
    rows = [_rows(arrays, metric) if (arrays := read(record, root)) else None for record in (one, other)]
    if rows[0] is None or rows[1] is None or not all(np.isfinite(part).all() for part in rows if part is not None):
        return None
    from evatok.metrics.bootstrap import paired_difference  # PyTorch comes with it, which tables alone do not need

    draws = DRAWS_OF_SETS if metric == "rfvd" else 2000
    return paired_difference(_statistic(metric), rows[0], rows[1], draws=draws)


def _rows(arrays: Arrays, metric: str) -> np.ndarray | None:
    """One row a clip of what a metric is made of."""
    if metric == "rfvd":
        held = [arrays.get(name) for name in (REAL, FEATURES)]
        return None if any(part is None for part in held) else np.stack(held, axis=1).astype(np.float64)  # type: ignore[arg-type]
    found = arrays.get(MOTION if metric.startswith("motion_") else metric)
    return None if found is None else found.astype(np.float64)


def _statistic(metric: str) -> Callable[[np.ndarray], float]:
    """The metric of rows as `_rows` gives them."""
    from evatok.metrics import frechet, motion

    if metric == "rfvd":
        return lambda rows: float(frechet.frechet_distance_of_features(rows[:, 0], rows[:, 1]))
    moving = {"motion_ratio": motion.ratio_of, "motion_correlation": motion.correlation_of}
    return moving.get(metric, lambda rows: float(rows.mean()))


def _small(key: str, values: np.ndarray) -> np.ndarray:
    """Features in float16, moments of motion as they are, values of clips in float32."""
    if key in (FEATURES, REAL) and np.abs(values).max() < HALF:
        return values.astype(np.float16)
    return values.astype(np.float32) if values.dtype == np.float64 and key != MOTION else values


def _pixels(record: Record) -> str | None:
    found: str | None = (record.protocol.get("manifest") or {}).get("sha256")
    return found
