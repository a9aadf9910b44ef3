"""The mixed set: three Freedoom clips to one of Arcade, for tokenizers that should encode both well.

The paper scores its unseen clips (UCF-101) with a proxy that knows their domain, under a router that never saw it (main
paper Sec. 4.2). A proxy trained on this set is in the same position. A third of the games is held out, so that some
clips are unseen even by the proxy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evatok.data.embedded import arcade, freedoom

REEL = freedoom.REEL
_CYCLE = 4  # reels: three of Freedoom, then one of Arcade

RECIPE: dict[str, Any] = {
    "version": 2,
    "set": "mixed",
    "cycle": ["freedoom"] * (_CYCLE - 1) + ["arcade"],
    "freedoom": freedoom.RECIPE,
    "arcade": arcade.recipe_of(arcade.SEEN_GAMES),
}


def recipe_versions() -> dict[str, str]:
    """Return the versions of the packages that determine the pixels. Raises ImportError without `ale-py`."""
    return {**freedoom.recipe_versions(), **arcade.recipe_versions()}


def mixed_reel(stream: int, number: int, size: int = 64, frames: int = 16) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Render reel `number` of a random stream: uint8 (REEL, frames, size, size, 3) and one dict of labels per clip.

    Its clips are those of the same streams of the two sets, each in its own order; the label `set` says which.
    """
    cycle, place = divmod(number, _CYCLE)
    if place < _CYCLE - 1:
        clips, labels = freedoom.freedoom_reel(stream, cycle * (_CYCLE - 1) + place, size, frames)
        return clips, [{"set": "freedoom", **one} for one in labels]
    parts = REEL // arcade.REEL
    reels = [arcade.seen_reel(stream, cycle * parts + part, size, frames) for part in range(parts)]
    labels = [{"set": "arcade", **one} for _, reel in reels for one in reel]
    return np.concatenate([clips for clips, _ in reels]), labels
