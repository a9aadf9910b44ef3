"""Captioned clips in one file, from the experiment that draws them to the script that shows them.

Legend: N clips, T frames, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evatok.errors import EvatokError
from evatok.storage.files import ordinary, replacing


class StoredClipsError(EvatokError, ValueError):
    """A file that does not hold clips with captions."""


def save(path: Path | str, clips: np.ndarray, captions: Sequence[str]) -> Path:
    """Write uint8 clips (N, T, H, W, 3) with N captions to a compressed .npz file.

    Raises:
        ValueError: clips of another layout, or not one caption per clip.
    """
    path = Path(path)
    if clips.dtype != np.uint8 or clips.ndim != 5 or len(clips) != len(captions):
        raise ValueError(f"{len(captions)} captions for clips {clips.dtype} {clips.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, clips=clips, captions=np.array(json.dumps(list(captions))))
    return path


def load(path: Path | str) -> tuple[np.ndarray, list[str]]:
    """Load clips and captions, see `save`.

    Raises:
        StoredClipsError: a file that holds something else.
    """
    try:
        with np.load(ordinary(Path(path)), allow_pickle=False) as file:
            clips, captions = np.asarray(file["clips"]), json.loads(str(file["captions"]))
    except Exception as error:  # a damaged file raises nearly anything
        raise StoredClipsError(f"{path}: no clips with captions ({error})") from error
    fits = clips.dtype == np.uint8 and clips.ndim == 5 and clips.shape[-1] == 3 and len(clips)
    if not fits or not isinstance(captions, list) or [type(word) for word in captions] != [str] * len(clips):
        raise StoredClipsError(f"{path}: clips {clips.dtype} {clips.shape} and {captions!r:.60}")
    return clips, captions
