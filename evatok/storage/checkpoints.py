"""Checkpoints: one safetensors file with the weights, a description of them, and their hash.

The header holds kind, configuration, parents, and a sha256 over itself and all tensors, so that a truncated, edited or
wrong file is rejected with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from evatok.errors import EvatokError
from evatok.storage.files import replacing

Shape = TypeVar("Shape")

_PLAIN = 2**16  # a number of codes, frames or pixels that is never suspicious
_USUAL_WIDTH = 4096


class CheckpointError(EvatokError, ValueError):
    """A checkpoint that is missing, damaged or of another model."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and the header describing them."""

    kind: str
    config: dict[str, Any]
    parents: dict[str, str]
    facts: dict[str, Any]
    weights: dict[str, torch.Tensor]
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """What a record of a measurement on it says about it."""
        return {"sha256": self.sha256, "parents": self.parents, "facts": self.facts}

    def fill(self, module: nn.Module) -> None:
        """Load the weights into a module in the module's own precision.

        Raises:
            CheckpointError: names or shapes that do not fit.
        """
        own = {name: value.shape for name, value in module.state_dict().items()}
        held = {name: value.shape for name, value in self.weights.items()}
        odd = [name for name in {**own, **held} if own.get(name) != held.get(name)]
        if odd:
            raise CheckpointError(f"the {self.kind} checkpoint is of another network: {odd[0]} does not fit")
        module.load_state_dict(self.weights)


def save(
    path: Path | str,
    module: nn.Module,
    *,
    kind: str,
    config: dict[str, Any],
    parents: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a module's weights atomically; returns the sha256 of weights and header, the checkpoint's identity.

    Args:
        kind: what the weights are of ("tokenizer", "router").
        config: everything needed to rebuild the module.
        parents: sha256 of the checkpoints and tables this one was made from, by role.
        facts: further JSON facts (steps, size).
        dtype: precision of floating-point weights on disk.

    Raises:
        CheckpointError: weights that are not finite, or overflow in that precision; nothing is written.
    """
    weights = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for name, value in module.state_dict().items()
    }
    _refuse_non_finite(weights, f"{path} is not written")
    header: dict[str, Any] = {"kind": kind, "config": config, "parents": parents or {}, "facts": facts or {}}
    digest = header["sha256"] = _sha256(header, weights)
    with replacing(path, size=sum(value.nbytes for value in weights.values())) as partial:
        save_file(weights, partial, metadata={"evatok": json.dumps(header, sort_keys=True)})
    return digest


def load(path: Path | str, kind: str | None = None) -> Checkpoint:
    """Read and verify a checkpoint, of any kind unless one is named.

    Raises:
        CheckpointError: missing, not a file, truncated, tampered with, not finite, or not of this kind.
    """
    header, weights = _read(Path(path))
    if _sha256(header, weights) != header["sha256"]:
        raise CheckpointError(f"{path}: its content does not match the checkpoint's sha256; fetch or train it again")
    if kind not in (None, header["kind"]):
        raise CheckpointError(f"{path}: a checkpoint of kind {header['kind']!r} where {kind!r} is expected")
    _refuse_non_finite(weights, f"{path} is not used")
    _refuse_oversized(Path(path), header["config"], weights)
    return Checkpoint(weights=weights, **header)


def kind_of(path: Path) -> str:
    """Return the kind that a checkpoint's header names; its weights are not verified.

    Raises:
        CheckpointError: missing, not a file, or truncated.
    """
    header, _ = _read(Path(path), header_only=True)
    return str(header["kind"])


def _read(path: Path, *, header_only: bool = False) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read header and weights, unverified; with `header_only` no weights."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; name another, or train it (README: Train your own)")
    if not path.is_file():
        raise CheckpointError(f"{path}: not a regular file; name the .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            header = _header((file.metadata() or {})["evatok"])
            names = [] if header_only else list(file.keys())
            return header, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a complete evatok checkpoint ({error}); fetch or train it again") from error


def headers(folder: Path, kind: str) -> dict[Path, dict[str, Any]]:
    """Read headers of the checkpoints of one kind in a folder, by path, without weights; other files are skipped.

    Nothing is verified: use `load` to read a checkpoint.
    """
    found = {}
    for path in sorted(file for file in folder.glob("*.safetensors") if file.is_file()):
        try:
            with safe_open(path, framework="pt") as file:
                header = _header((file.metadata() or {})["evatok"])
        except (SafetensorError, OSError, KeyError, ValueError):
            continue
        if header["kind"] == kind:
            found[path] = header
    return found


@contextmanager
def built_from(path: Path | str) -> Iterator[None]:
    """Turn any error caused by an invalid checkpoint header into one CheckpointError.

    A header may be valid JSON with a correct hash and still ask for -1 heads, or hold a word for a number; the error,
    deep in the construction of a network, then depends on the key.
    """
    try:
        yield
    except EvatokError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        raise CheckpointError(
            f"{path}: its header does not describe a valid model ({told}); fetch or train it again"
        ) from error


def shaped(kind: type[Shape], values: dict[str, Any]) -> Shape:
    """Build a dataclass of numbers, words and tuples of them from JSON, where tuples are lists.

    Raises:
        TypeError: an unknown name, or a value of another type, such as 2.5 layers.
    """
    asked = get_type_hints(kind)
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in arguments.items():
        if name in asked and not _is_of(value, asked[name]):
            raise TypeError(f"{name} is {value!r:.60}")
    return kind(**arguments)


def listed(values: Any, kind: type[Shape]) -> tuple[Shape, ...]:
    """The entries of a JSON list. Raises TypeError for anything else, and for an entry of another type."""
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise TypeError(f"{values!r:.60} is not a list of {kind.__name__}")
    return tuple(values)


def _is_of(value: Any, asked: Any) -> bool:
    """Whether a value is of an annotated type; an int is a float, but True is not a number."""
    parts = get_args(asked)
    if get_origin(asked) is tuple:
        kinds = parts[:1] * len(value) if isinstance(value, tuple) and Ellipsis in parts else parts
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_of, value, kinds))
    if parts:  # one of several types
        return any(_is_of(value, part) for part in parts)
    return type(value) is asked or (asked is float and type(value) is int) or asked is Any


def _refuse_oversized(path: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Raise CheckpointError for a header that asks for more than its file holds, before hours go into building it.

    Every layer has a tensor of its own, every width is a side of one, and nothing is negative. Usual widths pass: a
    network need not use every width its configuration names.
    """
    tensors = len(weights)
    side = max((max(value.shape, default=1) for value in weights.values()), default=1)
    values = sum(value.numel() for value in weights.values())
    for key, asked in _numbers(config):
        limit = tensors if "layers" in key else max(side, _USUAL_WIDTH) if "width" in key else max(values, _PLAIN)
        if not 0 <= asked <= limit:
            raise CheckpointError(
                f"{path}: its header says {key} {asked}, its {tensors} tensors allow {limit}; fetch or train it again"
            )


def _numbers(config: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Return all numbers of a configuration with the key they belong to."""
    if isinstance(config, bool) or config is None:
        return
    if isinstance(config, int | float):
        yield key, config
    parts = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for name, part in parts:
        yield from _numbers(part, str(name) if isinstance(config, dict) else key)


def _refuse_non_finite(weights: dict[str, torch.Tensor], consequence: str) -> None:
    """Raise CheckpointError for the first weight that holds NaN or infinity: it would turn into plausible numbers."""
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{consequence}: its weight {name} holds NaN or infinity; train it again")


def _header(text: str) -> dict[str, Any]:
    values = json.loads(text, parse_constant=_refuse_constant)
    names = {field.name for field in fields(Checkpoint)} - {"weights"}
    if not isinstance(values, dict) or values.keys() != names:
        raise ValueError(f"its header must hold {', '.join(sorted(names))}")
    for name, value in values.items():
        if not isinstance(value, str if name in ("kind", "sha256") else dict):
            raise ValueError(f"its header has an invalid {name} {value!r:.60}")
    if not all(isinstance(parent, str) for parent in values["parents"].values()):
        raise ValueError(f"its header has invalid parents {values['parents']!r:.60}")
    return values


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"its header holds {word}, which is not a number")


def _sha256(header: dict[str, Any], weights: dict[str, torch.Tensor]) -> str:
    told = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
