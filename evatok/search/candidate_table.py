"""Stage 2's table: every clip's scores under every candidate, in Parquet shards by clip range.

A shard holds one row per clip: its index and, for each metric, the m^K scores in candidate order. Its header, the
origin, states which tokenizer scored which clips, so shards of different origins never mix.

Legend: N clips, K temporal blocks, m levels, A = m^K candidates.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evatok.assignments.candidates import CandidateSet
from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.data.streaming import Streaming
from evatok.errors import EvatokError
from evatok.metrics.catalogue import quality
from evatok.storage import records
from evatok.storage.files import ordinary, replacing

_MOST_BLOCKS, _MOST_CANDIDATES = 64, 10**6
_WORDS = ("name", "source", "split", "sha256")
_BEFORE_VERSIONS = {"freedoom": "freedoom@2", "arcade": "arcade@1"}
"""Recipe versions of tables scored before tables recorded them."""


class CurationError(EvatokError, ValueError):
    """Shards that are missing, damaged or of another origin."""


@dataclass(frozen=True)
class CandidateTable:
    """Scores of N consecutive clips under all A candidates.

    Attributes:
        clips: (N,) clip indices, ascending.
        scores: metric -> (N, A) float32.
        origin: levels, blocks, tokenizer (sha256), data (name, split, seed, clips, sha256), precision.
        seconds: wall time of the scoring, summed over the processes that shared it; None if unknown.
    """

    clips: np.ndarray
    scores: dict[str, np.ndarray]
    origin: dict[str, Any]
    seconds: float | None = None

    @property
    def candidates(self) -> CandidateSet:
        return CandidateSet(tuple(self.origin["levels"]), self.origin["blocks"])

    def quality(self, metric: str) -> np.ndarray:
        """(N, A) float64 quality by one metric, higher is better.

        Raises:
            CurationError: the table does not hold the metric.
        """
        if metric not in self.scores:
            raise CurationError(f"the candidate table holds {', '.join(self.scores)}, not {metric!r}")
        return quality(self.scores[metric], metric)

    def take(self, clips: np.ndarray) -> CandidateTable:
        """Select rows by position."""
        scores = {name: values[clips] for name, values in self.scores.items()}
        return CandidateTable(self.clips[clips], scores, self.origin)

    @property
    def sha256(self) -> str:
        """Hash of origin, clips and scores."""
        digest = hashlib.sha256(json.dumps(self.origin, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.clips, dtype=np.int64).tobytes())
        for name in sorted(self.scores):
            digest.update(name.encode() + np.ascontiguousarray(self.scores[name]).tobytes())
        return digest.hexdigest()


def write(path: Path | str, table: CandidateTable) -> None:
    """Write a table atomically: a killed writer leaves no file."""
    expected = (len(table.clips), len(table.candidates))
    columns: dict[str, pa.Array] = {"clip": pa.array(table.clips, pa.int64())}
    for name, values in table.scores.items():
        if values.shape != expected or not np.isfinite(values).all():
            raise CurationError(f"{path}: scores {name} must be finite {expected}, got {values.shape}")
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel(), pa.float32())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, expected[1])
    metadata = {"evatok": json.dumps({"origin": table.origin, "sha256": table.sha256}, sort_keys=True)}
    if table.seconds is not None:
        metadata["seconds"] = repr(table.seconds)
    arrow = pa.table(columns).replace_schema_metadata(metadata)
    with replacing(path) as partial:
        pq.write_table(arrow, partial, compression="zstd", write_page_checksum=True)


def read(path: Path | str) -> CandidateTable:
    """Read a shard or a merged table.

    Raises:
        CurationError: absent, damaged, or not a candidate table.
    """
    try:
        arrow = pq.read_table(ordinary(path), page_checksum_verification=True)
        origin, sha256 = header(arrow.schema)
        _check_origin(origin)
        size = len(CandidateSet(tuple(origin["levels"]), origin["blocks"]))
        scores = {
            name: arrow[name].combine_chunks().flatten().to_numpy().reshape(len(arrow), size)
            for name in arrow.column_names
            if name != "clip"
        }
        seconds = arrow.schema.metadata.get(b"seconds")
        clips = arrow["clip"].to_numpy()
        _check_rows(clips, scores)
        table = CandidateTable(clips, scores, origin, None if seconds is None else float(seconds))
        if table.seconds is not None and not 0 <= table.seconds < math.inf:
            raise ValueError(f"its scoring time is {table.seconds} seconds")
        if sha256 not in (None, table.sha256):
            raise ValueError("content does not match its sha256")
        return table
    except (OSError, pa.ArrowException, AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CurationError(f"{path}: not a complete candidate table ({reason}); delete it and score again") from error


def _check_origin(origin: Any) -> None:
    """Raise ValueError, LookupError or TypeError unless this can be the header of a table."""
    levels, blocks, data = origin["levels"], origin["blocks"], origin.get("data", {})
    if not isinstance(levels, list) or not all(type(level) is int for level in levels) or type(blocks) is not int:
        raise ValueError(f"its levels and blocks must be integers, got {levels!r} and {blocks!r}")
    if blocks > _MOST_BLOCKS or len(levels) ** max(blocks, 0) > _MOST_CANDIDATES:
        raise ValueError(f"{len(levels)} levels over {blocks} blocks are too many candidates")
    if not isinstance(data, dict):
        raise ValueError(f"its entry data is not an object: {data!r:.60}")
    if not isinstance(data.get("streamed", {}), dict):
        raise ValueError("its entry streamed is not an object")
    words = {"tokenizer": origin.get("tokenizer"), **{key: data.get(key) for key in _WORDS}}
    odd = [key for key, value in words.items() if not isinstance(value, str | None)]
    if odd or not isinstance(data.get("seed"), int | None):
        raise ValueError(f"its entry {(odd or ['seed'])[0]} has the wrong type")


def header(schema: pa.Schema) -> tuple[dict[str, Any], str | None]:
    """Read a table's origin and the sha256 of its content; None if it was written before tables had one."""
    header = json.loads(schema.metadata[b"evatok"])
    if "levels" in header:
        return header, None
    return header["origin"], str(header["sha256"])


def check_named(path: Path | str, table: CandidateTable, folder: Path | str) -> None:
    """Compare a table with those that the records in `folder` name for the same tokenizer and clips, if any do.

    For tables written before files held the hash of their content, records are its only source.

    Raises:
        CurationError: records name other tables.
    """
    named = {
        record.model["table"]: record.id
        for record in records.query(folder, kind="stage2_curation", superseded=True)
        if record.model.get("tokenizer") == table.origin.get("tokenizer")
        and record.protocol.get("manifest", {}).get("sha256") == table.origin.get("data", {}).get("sha256")
    }
    if named and table.sha256 not in named and header(pq.read_schema(path))[1] is None:
        raise CurationError(
            f"{path}: not the table that record {list(named.values())[-1]} names (sha256 "
            f"{list(named)[-1][:12]}, this one {table.sha256[:12]}); fetch it again, or run stage2_curation again"
        )


def _check_rows(clips: np.ndarray, scores: dict[str, np.ndarray]) -> None:
    """Raise ValueError for clips that do not ascend, which would pair scores with other clips, and for odd scores."""
    if not np.issubdtype(clips.dtype, np.integer) or not scores:
        raise ValueError("it holds no clip numbers, or no scores")
    if not (np.diff(clips) > 0).all():
        raise ValueError("its clips are not in ascending order")
    for name, values in scores.items():
        if not np.isfinite(values).all():
            raise ValueError(f"its scores {name} hold NaN or infinity")


def clips_again(
    table: CandidateTable, *, size: int, frames: int, fps: float | None = None, workers: int = 2
) -> ClipSet:
    """Regenerate or decode the clips that a table's origin describes.

    See `evatok.data.sets.clip_set` for errors. Another version of a game's package generates other pixels: compare the
    sha256, or use `scored_clips`.
    """
    data = table.origin.get("data", {})
    missing = [key for key in (*_WORDS, "seed", "versions") if key not in data]
    if missing:
        raise CurationError(f"the candidate table does not record the {missing[0]} of its clips: score them again")
    seed, count = data["seed"] or 0, len(table.clips)
    source = _BEFORE_VERSIONS.get(data["source"], data["source"])
    streamed = data.get("streamed")
    how = Streaming(max(1, workers), short=streamed["short"], seed=seed) if streamed else None
    shape: dict[str, Any] = {"size": size, "frames": frames, "fps": fps}
    return clip_set(source, data["split"], count, **shape, seed=seed, workers=workers, streaming=how)


def scored_clips(
    table: CandidateTable, *, size: int, frames: int, fps: float | None = None, workers: int = 2
) -> ClipSet:
    """Return exactly the clips that were scored.

    Raises:
        CurationError: the regenerated clips differ.
    """
    data = table.origin.get("data", {})
    if not np.array_equal(table.clips, np.arange(len(table.clips))):
        raise CurationError(
            f"the candidate table of {data.get('name')} ({data.get('split')}) holds clips {table.clips[0]}.."
            f"{table.clips[-1]} with gaps, not the first of the set: run stage2_curation again"
        )
    clips = clips_again(table, size=size, frames=frames, fps=fps, workers=workers)
    if clips.sha256 != data["sha256"]:
        raise CurationError(
            f"the {data['split']} clips of {data['name']} differ from those that were scored (made with "
            f"{data['versions']}): run stage2_curation again"
        )
    return clips
