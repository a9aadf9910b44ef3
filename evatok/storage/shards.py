"""Arrays computed once: shards in a folder, each keyed by everything that determines it, and the loop that fills it.

A shard's name is a hash of its key, say of pixels, preprocessing, network, weights, code and precision: a change of
any of them is another name, so nothing stale is ever read. A damaged shard is computed again, with a warning and a
count, and never used. Because keys contain the pixels, a longer set reuses the shards of a shorter one, and an
interrupted computation resumes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from evatok.errors import EvatokError
from evatok.storage.files import cache_folder, ordinary, replacing, sha256_file

Arrays = dict[str, np.ndarray]
Piece = TypeVar("Piece")
Value = TypeVar("Value")
Tick = Callable[[int], Any]
"""Called with the number of items just done."""


class FeatureError(EvatokError, ValueError):
    """Features that cannot be used: damaged, not finite, or of an extractor without an identity."""


class Store(Protocol[Value]):
    """Where `computed` keeps shards: arrays in a `ShardStore`, or another format."""

    def get(self, made_by: Mapping[str, Any], /) -> Value | None:
        """Return the shard of a key; None if it is absent."""

    def put(self, made_by: Mapping[str, Any], value: Value, /) -> None:
        """Write a shard atomically."""

    def claim(self, made_by: Mapping[str, Any], /) -> AbstractContextManager[None]:
        """Keep other writers away from a shard while it is looked up, computed and written."""


class ShardStore:
    """A folder of shards: named arrays with a header that holds their key.

    Attributes:
        damaged: names of the shards found damaged, and recomputed, since the store was opened.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.damaged: list[str] = []

    @classmethod
    def of_features(cls) -> ShardStore:
        """Open the cache of reference features."""
        return cls(cache_folder() / "features")

    def path(self, made_by: Mapping[str, Any]) -> Path:
        return self.folder / f"{digest(made_by)[:32]}.safetensors"

    def get(self, made_by: Mapping[str, Any]) -> Arrays | None:
        """Return the arrays of a key; None if they are absent, or damaged (which warns and is counted)."""
        path = self.path(made_by)
        if not path.exists():
            return None
        try:
            return _read(path, made_by)
        except FeatureError as error:
            self.damaged.append(path.name)
            warnings.warn(f"{error}; it is computed again", stacklevel=2)
            return None

    def put(self, made_by: Mapping[str, Any], arrays: Arrays) -> None:
        """Write a shard atomically: a killed writer leaves none. Raises FeatureError for NaN."""
        path = self.path(made_by)
        for name, values in arrays.items():
            if np.isnan(values).any():
                raise FeatureError(f"{name} of {path.name}: NaN among {values.shape} values; nothing was kept")
        arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        header = {"made_by": made_by, "sha256": _sha256(arrays)}
        with replacing(path, size=sum(values.nbytes for values in arrays.values())) as partial:
            save_file(arrays, partial, metadata={"evatok": json.dumps(header, sort_keys=True)})

    def claim(self, made_by: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Let several processes compute the same shard: the last writer wins, and all write the same."""
        return nullcontext()


@dataclass(frozen=True)
class Computed(Generic[Value]):
    """The shards of all pieces.

    Attributes:
        shards: one per piece, in order.
        resumed: number of items that the store already held.
    """

    shards: list[Value]
    resumed: int

    def joined(self: Computed[Arrays]) -> Arrays:
        return concatenated(self.shards)


def computed(
    store: Store[Value] | None,
    pieces: Iterable[Piece],
    key: Callable[[Piece], Mapping[str, Any]],
    make: Callable[[Piece, Tick], Value],
    *,
    size: Callable[[Piece], int] = len,  # type: ignore[assignment]
    tick: Tick | None = None,
) -> Computed[Value]:
    """Read each piece's shard, or compute and store it. Ranks of a distributed run share the work, and read all.

    Args:
        store: None computes everything and keeps nothing.
        pieces: taken one by one, so a generator may end early, as when time is up.
        key: everything that determines a piece's shard, in JSON types.
        make: computes a piece's shard, calling the function it is given as items are done.
        size: number of items in a piece.
        tick: called with the number of items done, computed or read.
    """
    tick = tick or (lambda count: None)
    shards, resumed = [], 0
    if store is not None and _ranks() > 1:
        pieces = list(pieces)
        resumed -= _computed_by_ranks(store, pieces, key, make, size)  # what is read below but did not exist before
    for piece in pieces:
        if store is None:
            shards.append(make(piece, tick))
            continue
        made_by = key(piece)
        with store.claim(made_by):
            found = store.get(made_by)
            if found is None:
                value = make(piece, tick)
                store.put(made_by, value)
            else:
                value = found
                resumed += size(piece)
                tick(size(piece))
        shards.append(value)
    return Computed(shards, resumed)


def _ranks() -> int:
    """Number of joined processes in a distributed run; stage 2's do not join."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 1
    from evatok.storage import ranks  # imported here: it loads torch, which not every command needs

    return ranks.count()


def _computed_by_ranks(
    store: Store[Value],
    pieces: Sequence[Piece],
    key: Callable[[Piece], Mapping[str, Any]],
    make: Callable[[Piece, Tick], Value],
    size: Callable[[Piece], int],
) -> int:
    """Compute the absent shards, consecutive ones on each rank of a distributed run; returns the number of items."""
    from evatok.storage import ranks

    done = 0
    for piece in ranks.part_of(pieces):
        with store.claim(key(piece)):
            if store.get(key(piece)) is None:
                store.put(key(piece), make(piece, lambda count: None))
                done += size(piece)
    return sum(ranks.gathered(done))


def concatenated(parts: Sequence[Arrays]) -> Arrays:
    """Join arrays of the same names along their first axis."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ranges(count: int, length: int) -> list[tuple[int, int]]:
    """Split `count` items into ranges [start, stop) of at most `length`."""
    return [(start, min(start + length, count)) for start in range(0, count, length)]


def length_of(span: tuple[int, int]) -> int:
    """The number of items in a range [start, stop)."""
    return span[1] - span[0]


def digest(made_by: Mapping[str, Any]) -> str:
    """Hash (sha256) a key in JSON types. Raises TypeError for anything else."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def code_version(thing: Any) -> str:
    """Return the `version` of a function or object, else the sha256 of its source file.

    Raises:
        FeatureError: it has neither, as for classes typed into an interpreter.
    """
    if hasattr(thing, "version"):
        return str(thing.version)
    try:
        source = inspect.getsourcefile(thing if inspect.isfunction(thing) else type(thing))
    except TypeError:
        source = None
    if source is None or not Path(source).exists():
        raise FeatureError(f"{thing!r} has no source file: give it an attribute `version` that changes with its code")
    return sha256_file(source)


def package_version(*packages: ModuleType) -> str:
    """Hash (sha256) all modules directly in packages: a network is more than the file of its class."""
    folders = [Path(folder) for package in packages for folder in package.__path__]
    files = sorted(path for folder in folders for path in folder.glob("*.py"))
    return digest({f"{path.parent.name}/{path.name}": sha256_file(path) for path in files})


def _read(path: Path, made_by: Mapping[str, Any]) -> Arrays:
    try:
        with safe_open(ordinary(path), framework="np") as file:
            header = json.loads((file.metadata() or {})["evatok"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        made, sha256 = header["made_by"], header["sha256"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FeatureError(f"{path}: not a complete shard ({error})") from error
    if sha256 != _sha256(arrays):
        raise FeatureError(f"{path}: its content does not match its sha256")
    if made != json.loads(json.dumps(made_by)):
        raise FeatureError(f"{path}: its name is not the hash of its key")
    return arrays


def _sha256(arrays: Arrays) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {values.dtype.str} {values.shape};".encode())
        total.update(values.tobytes())
    return total.hexdigest()
