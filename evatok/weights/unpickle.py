"""Read arrays from an untrusted pickle without running code from it.

A pickle is a program: its GLOBAL opcodes name any importable function, and REDUCE calls it. This reader allows three
globals, all that numpy's pickles need, and rejects every other name before it is imported.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]
"""numpy's `_reconstruct`, obtained from numpy itself because its module depends on numpy's version."""

ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read the float32 arrays of a pickled tree of dictionaries, by their path "a/b/c".

    Raises pickle.UnpicklingError for a global that is not in ALLOWED, for a damaged pickle, and for a tree that
    contains anything but named float32 arrays.
    """
    try:
        tree = _ArrayUnpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything: EOFError, ValueError, AttributeError...
        raise pickle.UnpicklingError(f"the pickle is damaged ({type(error).__name__}: {error})") from error
    return dict(_leaves(tree, ""))


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle refers to {module}.{name}, which is not allowed") from None


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict) and all(isinstance(name, str) for name in tree):
        for name, branch in tree.items():
            yield from _leaves(branch, f"{path}/{name}" if path else name)
    elif isinstance(tree, np.ndarray) and tree.dtype == np.float32:
        yield path, tree
    else:
        raise pickle.UnpicklingError(f"{path or 'the pickle'} is not a float32 array, but a {type(tree).__name__}")
