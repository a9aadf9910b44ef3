"""A training's state on disk, with a hash of its content: what was changed since is never resumed from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evatok.storage.files import replacing

log = logging.getLogger(__name__)

PARTS = frozenset({"step", "seconds", "module", "averaged", "optimiser", "objective"})
_HASH = "sha256"


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state of PARTS in one step: a killed writer leaves the one before."""
    assert state.keys() == PARTS
    with replacing(path, size=_nbytes(state)) as partial:
        torch.save({**state, _HASH: sha256(state)}, partial)


def read(path: Path) -> dict[str, Any]:
    """The state, on the CPU.

    Raises:
        ValueError: it is not what was written. Torch's own errors for a file that it cannot read.
    """
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state.keys() == PARTS:
        log.warning("%s was written before states had a hash: it cannot be checked", path)
        return state
    if state.keys() != PARTS | {_HASH}:
        raise ValueError(f"its parts are {', '.join(sorted(map(str, state)))}")
    if state.pop(_HASH) != sha256(state):
        raise ValueError("its content does not match its sha256")
    return state


def sha256(value: Any) -> str:
    """Hash of tensors and plain values in dictionaries, lists and tuples, order and types included."""
    digest = hashlib.sha256()
    _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        held = value.detach().cpu().contiguous()
        digest.update(f"{held.dtype}{tuple(held.shape)};".encode())
        digest.update(held.flatten().view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"{len(value)} entries;".encode())
        for key, held in value.items():
            _add(digest, key)
            _add(digest, held)
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} values;".encode())
        for held in value:
            _add(digest, held)
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        told = f"{type(value).__name__} {value!r}".encode()
        digest.update(b"%d %s;" % (len(told), told))
    else:
        raise TypeError(f"a state holds tensors and plain values, not {type(value).__name__}")


def _nbytes(state: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(_nbytes, parts))
