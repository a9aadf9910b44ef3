"""Features of clips, computed once: shards in a cache, each named after everything that made it.

A shard's name is a hash of the pixels, the preprocessing, the extractor with its weights and code, and the
precision: a change of any of them is another name, so nothing stale is ever read. A shard that is damaged is made
again, with a warning and a count, and never used. Because shards are named by their pixels, a longer set reuses
those of a shorter one, and an interrupted computation resumes.

Legend: N clips, R rows of features per clip (1 for I3D, T for networks of frames), D features.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from evatok.errors import EvatokError
from evatok.storage.files import cache_folder, replacing, sha256_file

Arrays = dict[str, np.ndarray]


class FeatureError(EvatokError, ValueError):
    """Features that cannot be used: damaged, not finite, or of an extractor that does not say what it is."""


class ShardStore:
    """A folder of shards: named arrays with a header that says what made them.

    Attributes:
        damaged: names of the shards found damaged and made again since the store was opened.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.damaged: list[str] = []

    @classmethod
    def of_features(cls) -> ShardStore:
        """The cache of reference features."""
        return cls(cache_folder() / "features")

    def path(self, made_by: Mapping[str, Any]) -> Path:
        return self.folder / f"{digest(made_by)[:32]}.safetensors"

    def get(self, made_by: Mapping[str, Any]) -> Arrays | None:
        """The arrays that this made; None where they are not there, or damaged (which warns and is counted)."""
        path = self.path(made_by)
        if not path.exists():
            return None
        try:
            return _read(path, made_by)
        except FeatureError as error:
            self.damaged.append(path.name)
            warnings.warn(f"{error}; it is made again", stacklevel=2)
            return None

    def put(self, made_by: Mapping[str, Any], arrays: Arrays) -> None:
        """Write a shard in one step: a killed writer leaves none. Raises FeatureError for NaN."""
        path = self.path(made_by)
        for name, values in arrays.items():
            if np.isnan(values).any():
                raise FeatureError(f"{name} of {path.name}: NaN among {values.shape} values; nothing was kept")
        arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        header = {"made_by": made_by, "sha256": _sha256(arrays)}
        with replacing(path, size=sum(values.nbytes for values in arrays.values())) as partial:
            save_file(arrays, partial, metadata={"evatok": json.dumps(header, sort_keys=True)})


def digest(made_by: Mapping[str, Any]) -> str:
    """sha256 of a description in JSON types. Raises TypeError for anything else."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def code_version(thing: Any) -> str:
    """The `version` of a function or object, else the sha256 of the file that its code lies in.

    Raises:
        FeatureError: neither is there, as for classes typed into an interpreter.
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
    """sha256 of all modules directly in packages: a network is more than the file its class lies in."""
    folders = [Path(folder) for package in packages for folder in package.__path__]
    files = sorted(path for folder in folders for path in folder.glob("*.py"))
    return digest({f"{path.parent.name}/{path.name}": sha256_file(path) for path in files})


def _read(path: Path, made_by: Mapping[str, Any]) -> Arrays:
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {})["evatok"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        made, sha256 = header["made_by"], header["sha256"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FeatureError(f"{path}: no whole shard ({error})") from error
    if sha256 != _sha256(arrays):
        raise FeatureError(f"{path}: its content does not match its sha256")
    if made != json.loads(json.dumps(made_by)):
        raise FeatureError(f"{path}: made by something else than its name says")
    return arrays


def _sha256(arrays: Arrays) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {values.dtype.str} {values.shape};".encode())
        total.update(values.tobytes())
    return total.hexdigest()
