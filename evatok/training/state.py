"""Training state on disk with a hash of its content, so that a modified state is never resumed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evatok.storage.files import ordinary, replacing

log = logging.getLogger(__name__)

PARTS = frozenset({"step", "seconds", "module", "averaged", "optimiser", "objective"})
_HASH = "sha256"


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state of PARTS atomically: a killed writer leaves the previous one."""
    assert state.keys() == PARTS
    with replacing(path, size=_nbytes(state)) as partial:
        torch.save({**state, _HASH: sha256(state)}, partial)


def read(path: Path) -> dict[str, Any]:
    """Read a state, on the CPU.

    Raises:
        ValueError: the content is not what was written.
        NotAFileError: a pipe, a device or a folder. PyTorch's own errors for a file it cannot read.
    """
    state: dict[str, Any] = torch.load(ordinary(path), weights_only=True, map_location="cpu")
    if state.keys() == PARTS:
        log.warning("%s was written before states had a hash: it cannot be verified", path)
        return state
    if state.keys() != PARTS | {_HASH}:
        raise ValueError(f"unexpected parts: {', '.join(sorted(map(str, state)))}")
    if state.pop(_HASH) != sha256(state):
        raise ValueError("content does not match its sha256")
    return state


def sha256(value: Any) -> str:
    """Hash tensors and plain values in dictionaries, lists and tuples, including their order and types."""
    digest = hashlib.sha256()
    _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"{len(value)} entries;".encode())
        for key, entry in value.items():
            _add(digest, key)
            _add(digest, entry)
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} values;".encode())
        for entry in value:
            _add(digest, entry)
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        content = f"{type(value).__name__} {value!r}".encode()
        digest.update(b"%d %s;" % (len(content), content))
    else:
        raise TypeError(f"a state can only hold tensors and plain values, not {type(value).__name__}")


def _nbytes(state: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(_nbytes, parts))
