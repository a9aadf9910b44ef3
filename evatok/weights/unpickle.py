"""Arrays out of somebody else's pickle, without running anything of it.

A pickle is a program: its GLOBAL opcodes name any importable function, and REDUCE calls it. The reader here knows
three globals, which is all that numpy's own pickles need, and refuses every other name before it is imported.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]
"""numpy's `_reconstruct`, asked of numpy itself: its module is numpy.core or numpy._core, by numpy's version."""

ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def arrays(data: bytes) -> dict[str, np.ndarray]:
    """The float32 arrays of a pickled tree of dictionaries, by their path "a/b/c".

    Raises pickle.UnpicklingError for a global that is not in ALLOWED, for a damaged pickle, and for a tree that
    holds anything but float32 arrays under names.
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
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is not on the list") from None


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict) and all(isinstance(name, str) for name in tree):
        for name, branch in tree.items():
            yield from _leaves(branch, f"{path}/{name}" if path else name)
    elif isinstance(tree, np.ndarray) and tree.dtype == np.float32:
        yield path, tree
    else:
        raise pickle.UnpicklingError(f"{path or 'the pickle'} is no float32 array, but a {type(tree).__name__}")
