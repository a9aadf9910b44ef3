"""Shards of a candidate table: one Parquet file per range of clips, merged when all are scored.

A shard's header, the origin, states which tokenizer scored which clips, so shards of different origins never mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evatok.search.candidate_table import CandidateTable, CurationError, header, read, write
from evatok.storage.files import ordinary
from evatok.storage.locks import lock_of, sole_writer
from evatok.storage.shards import ranges


class TableStore:
    """A folder of Parquet shards, for `evatok.storage.shards.computed`.

    A key holds `start` and `stop`, the range of clips, and `origin`. One process at a time computes a shard.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def path(self, made_by: Mapping[str, Any]) -> Path:
        return shard_path(self.folder, made_by["start"], made_by["stop"])

    def check(self, made_by: Mapping[str, Any]) -> bool:
        """Whether a shard exists. Raises CurationError if it is damaged or of another origin."""
        path = self.path(made_by)
        if path.exists():
            check_origin(path, made_by["origin"])
        return path.exists()

    def get(self, made_by: Mapping[str, Any]) -> CandidateTable | None:
        return read(self.path(made_by)) if self.check(made_by) else None

    def put(self, made_by: Mapping[str, Any], table: CandidateTable) -> None:
        write(self.path(made_by), table)

    def claim(self, made_by: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Hold the shard's lock. Raises LockedError if another process is computing it."""
        what = f"the shard of clips {made_by['start']}..{made_by['stop'] - 1}"
        return sole_writer(lock_of(self.folder, self.path(made_by).stem), what)


def shard_path(folder: Path | str, start: int, stop: int) -> Path:
    return Path(folder) / f"scores-{start:07d}-{stop:07d}.parquet"


def make_of(origin: dict[str, Any]) -> dict[str, Any]:
    """Drop from an origin what differs between shards: the number of clips and the hash of their pixels."""
    data = {key: value for key, value in origin.get("data", {}).items() if key not in ("clips", "sha256")}
    return {**origin, "data": data}


def check_origin(path: Path | str, origin: dict[str, Any]) -> None:
    """Check that a shard has this origin.

    Raises:
        CurationError: the shard is damaged, or was scored by another tokenizer, metric or precision, or on other clips.
    """
    try:
        found, _ = header(pq.read_schema(ordinary(path)))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CurationError(f"{path}: not a complete candidate table ({error}); delete it and score again") from error
    differing = sorted(key for key in found.keys() | origin.keys() if found.get(key) != origin.get(key))
    if differing:
        key = differing[0]
        raise CurationError(
            f"{path}: scored with another {key} ({found.get(key)} instead of {origin.get(key)}); delete the folder, or "
            "set work=FOLDER"
        )


def merge(folder: Path | str, clips: int, length: int) -> CandidateTable:
    """Merge all shards of a set into one table, checking that it holds every clip once and has one origin.

    Raises:
        CurationError: a missing shard, rows of other clips than its range, or shards of different origins.
    """
    expected = ranges(clips, length)
    missing = [r for r in expected if not shard_path(folder, *r).exists()]
    if missing:
        raise CurationError(
            f"{folder}: {len(missing)} of {len(expected)} shards missing, the first for clips "
            f"{missing[0][0]}..{missing[0][1] - 1}; run stage2_curation again to fill them"
        )
    tables = [read(shard_path(folder, *r)) for r in expected]
    for (start, stop), table in zip(expected, tables, strict=True):
        path = shard_path(folder, start, stop)
        if make_of(table.origin) != make_of(tables[0].origin):
            raise CurationError(f"{path}: scored by another tokenizer or on other clips than the first shard")
        if not np.array_equal(table.clips, np.arange(start, stop)):
            raise CurationError(f"{path}: does not hold clips {start}..{stop - 1}")
    return concatenate(tables)


def concatenate(tables: Iterable[CandidateTable]) -> CandidateTable:
    """Concatenate tables of one origin."""
    tables = list(tables)
    scores = {name: np.concatenate([t.scores[name] for t in tables]) for name in tables[0].scores}
    known = [t.seconds for t in tables if t.seconds is not None]
    seconds = sum(known) if len(known) == len(tables) else None
    return CandidateTable(np.concatenate([t.clips for t in tables]), scores, tables[0].origin, seconds)
