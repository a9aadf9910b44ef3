"""The question about Freedoom's clips: what the camera does, answered by the clip's motion label.

Most cameras rest: clips should be chosen `balanced`, as many of each motion as of the rarest.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

CATEGORY = "camera"
PHRASES = ("what does", "the camera do ?")
OPTIONS = ("idle", "walk", "run", "pan", "turn", "strafe")  # `freedoom.MOTIONS`, whose import loads PyTorch
_RESTS = "idle"


def asked(labels: pd.DataFrame) -> pd.DataFrame:
    """Return question, answer and need of every clip, in columns like those of `moving_shapes`.

    A camera at rest shows one picture, so its first frame suffices (need `key`); any motion takes several frames
    (`path`).
    """
    motion = labels["motion"].astype(str)
    need = np.where(motion == _RESTS, "key", "path")
    return pd.DataFrame({f"q_{CATEGORY}": " ".join(PHRASES), f"a_{CATEGORY}": motion, f"need_{CATEGORY}": need})


def balanced(labels: pd.DataFrame) -> np.ndarray:
    """Return indices of the first clips of each motion, in order, as many of each as of the rarest."""
    motion = labels["motion"].astype(str).reset_index(drop=True)
    place = motion.groupby(motion).cumcount()
    least = motion.value_counts().reindex(list(OPTIONS), fill_value=0).min()
    return np.flatnonzero(place < least)
