"""Arrays in files of numpy's format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from evatok.storage.files import ordinary


def read_array(path: Path | str, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Read the array of a .npy file.

    Raises:
        ValueError: the file holds no complete array of numbers, or several arrays (.npz).
        OSError: it cannot be opened.
    """
    try:
        array = np.load(ordinary(path), mmap_mode=mmap_mode, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy evaluates the header as Python: a damaged one raises nearly anything
        reason = str(error).partition(". ")[0]  # without numpy's advice to unpickle
        raise ValueError(f"not a complete array of numbers as written by numpy.save ({reason})") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("several arrays (.npz): save each clip, or all in one array, with numpy.save")
    return array
