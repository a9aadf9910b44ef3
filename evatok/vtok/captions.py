"""Captions as word indices, for networks that read videos or generate them.

Legend: N captions, W words of the longest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from evatok.data.embedded.scene_text import vocabulary
from evatok.errors import EvatokError

LONGEST = 80  # words of a caption
PADDING = -1


class CaptionError(EvatokError, ValueError):
    """A caption with an unknown word, none at all, or one that is too long."""


def trimmed(captions_BW: torch.Tensor) -> torch.Tensor:
    """(B, up to W) captions without the padding that all of them share."""
    return captions_BW[:, : int((captions_BW != PADDING).sum(1).max())] if len(captions_BW) else captions_BW


def numbers(captions: Iterable[str]) -> np.ndarray:
    """Return (N, `LONGEST`) vocabulary indices of the words, `PADDING` after the last.

    Raises:
        CaptionError: an empty caption, a word that is not in the vocabulary, or too many words.
    """
    places = {word: number for number, word in enumerate(vocabulary())}
    rows = []
    for number, caption in enumerate(captions):
        words = caption.split()
        unknown = [word for word in words if word not in places]
        if unknown or not words or len(words) > LONGEST:
            why = f"the vocabulary has no word {unknown[0]!r}" if unknown else f"it has {len(words)} words"
            raise CaptionError(f"caption {number}, {caption[:60]!r}: {why}; captions have 1 to {LONGEST} known words")
        rows.append([places[word] for word in words] + [PADDING] * (LONGEST - len(words)))
    return np.array(rows, dtype=np.int64).reshape(-1, LONGEST)
