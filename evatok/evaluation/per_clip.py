"""Per-clip measurements in files next to the records, so that two rows of a table can be compared clip by clip.

The record of an evaluation names two such files: values and features of the reconstructions, and features of the real
clips, which all evaluations of the same clips share. A file is named after its content. Paired, the means of two rows
can be told apart far better than their own intervals suggest, because clips that are hard for one are hard for both.

Legend: N clips, D features.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evatok.storage.environment import REPOSITORY
from evatok.storage.files import ordinary, replacing, sha256_file
from evatok.storage.records import Record, RecordError

if TYPE_CHECKING:
    from evatok.metrics.bootstrap import Interval

Arrays = dict[str, np.ndarray]
MEASURED, REFERENCE = "per_clip", "reference"
"""Names of the two files in a record."""
FEATURES, REAL, MOTION = "i3d", "real_i3d", "motion"
"""Names of the other arrays: (N, D) features of reconstructions and of real clips, (N, ...) motion moments."""
EXTRACTED = {"i3d": (FEATURES, REAL), "efficientnet": ("efficientnet", "real_efficientnet")}
"""Names of features of reconstructions and of real clips, by their extractor; a clip of each has one row."""
DISTANCES = {"rfvd": ("i3d", 0), "rfd_efficientnet": ("efficientnet", 1)}
"""Metrics of sets of reconstructions that can be paired: the extractor, and the ddof of their covariances."""
HALF = 6e4  # largest magnitude stored as float16
DRAWS_OF_MEANS, DRAWS_OF_SETS = 2000, 200  # bootstrap draws: distances between sets take milliseconds each
PAIRED = {**DISTANCES, "gfvd": DISTANCES["rfvd"], "gfd_efficientnet": DISTANCES["rfd_efficientnet"]}
"""The same, and those of samples, each of which was drawn for the class, caption or frames of its real clip."""
_DRAWN: dict[tuple[str, ...], tuple[float, np.ndarray]] = {}
"""Bootstrap draws by metric and file hashes: a row of a table is compared with several others."""


def write(arrays: Mapping[str, np.ndarray], folder: Path | str, name: str) -> Path:
    """Write `<folder>/<name>-<16 hex of its sha256>.npz` atomically, features in float16 if they fit."""
    held = io.BytesIO()
    np.savez_compressed(held, **{key: _small(key, values) for key, values in arrays.items()})  # type: ignore[arg-type]
    content = held.getvalue()
    path = Path(folder) / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.npz"
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def read(record: Record, root: Path = REPOSITORY) -> Arrays | None:
    """Read all arrays of a record's files; None if it names none, or they do not exist.

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
            raise RecordError(f"{path}: its content does not match record {record.id}; restore it, or measure again")
        try:
            with np.load(ordinary(path), allow_pickle=False) as file:
                arrays |= {key: file[key] for key in file.files}
        except Exception as error:  # as in `read_array`
            raise RecordError(f"{path}: not a file of arrays ({error})") from error
    return arrays


def same_clips(one: Record, other: Record) -> bool:
    """Whether both were measured on the same clips in the same order, under one protocol."""
    alike = all(one.protocol.get(key) == other.protocol.get(key) for key in ("hash", "measured_clips"))
    return alike and _pixels(one) is not None and _pixels(one) == _pixels(other)


def paired(one: Record, other: Record, metric: str, root: Path = REPOSITORY) -> Interval | None:
    """Difference of a metric, `one` minus `other`, with its paired bootstrap interval over clips.

    None if they measured different clips, or either did not store what the metric needs. See `read` for errors.
    """
    if not same_clips(one, other):
        return None
    rows = [_rows(arrays, metric) if (arrays := read(record, root)) else None for record in (one, other)]
    if rows[0] is None or rows[1] is None or not all(np.isfinite(part).all() for part in rows if part is not None):
        return None
    if len(rows[0]) != len(rows[1]):
        raise RecordError(f"records {one.id} and {other.id} hold {len(rows[0])} and {len(rows[1])} of the same clips")
    from evatok.metrics.bootstrap import interval_of  # imported here: it loads PyTorch, which tables do not need

    (ours, drawn), (theirs, others) = _drawn(one, rows[0], metric), _drawn(other, rows[1], metric)
    return interval_of(ours - theirs, drawn - others)


def _drawn(record: Record, rows: np.ndarray, metric: str) -> tuple[float, np.ndarray]:
    """A metric of all clips and of each bootstrap draw of them, computed once per process."""
    key = (metric, *(record.artifacts[name].sha256 for name in (MEASURED, REFERENCE) if name in record.artifacts))
    if key not in _DRAWN:
        _DRAWN[key] = _draw_distances(rows, PAIRED[metric][1]) if metric in PAIRED else _draw_means(rows, metric)
    return _DRAWN[key]


def _draw_distances(rows: np.ndarray, ddof: int) -> tuple[float, np.ndarray]:
    from evatok.evaluation import tradeoff

    positions = tradeoff.draws(len(rows), DRAWS_OF_SETS)
    values = tradeoff.distances_of_draws(rows[:, 0], rows[None, :, 1], positions, ddof)[:, 0]
    return float(values[0]), values[1:]


def _draw_means(rows: np.ndarray, metric: str) -> tuple[float, np.ndarray]:
    from evatok.metrics.bootstrap import drawn_statistics

    return drawn_statistics(rows, _statistic(metric), DRAWS_OF_MEANS)


def _rows(arrays: Arrays, metric: str) -> np.ndarray | None:
    """Per-clip rows from which a metric is computed."""
    if metric in PAIRED:
        fake, real = map(arrays.get, EXTRACTED[PAIRED[metric][0]])
        return None if real is None or fake is None else np.stack((real, fake), axis=1).astype(np.float64)
    values = arrays.get(MOTION if metric.startswith("motion_") else metric)
    return None if values is None else values.astype(np.float64)


def _statistic(metric: str) -> Callable[[np.ndarray], float]:
    """Return the metric, a mean or of motion, as a function of the rows of `_rows`."""
    from evatok.metrics import motion

    moving = {"motion_ratio": motion.ratio_of, "motion_correlation": motion.correlation_of}
    return moving.get(metric, lambda rows: float(rows.mean()))


def _small(key: str, values: np.ndarray) -> np.ndarray:
    """Convert features to float16 and per-clip values to float32; motion moments stay as they are."""
    if any(key in names for names in EXTRACTED.values()) and np.abs(values).max() < HALF:
        return values.astype(np.float16)
    return values.astype(np.float32) if values.dtype == np.float64 and key != MOTION else values


def _pixels(record: Record) -> str | None:
    sha256: str | None = (record.protocol.get("manifest") or {}).get("sha256")
    return sha256
