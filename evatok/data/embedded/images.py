"""The images set: one frame of each clip of the mixed set, for image tokenizers.

The supplement's images are a one-block video (Section H), and so are these: clips of one frame. Training, validation
and test images come from different maps of Freedoom and different episodes of the Arcade games.
"""

from __future__ import annotations

from typing import Any

from evatok.data.clips import ClipSetError
from evatok.data.embedded import mixed
from evatok.data.reels import Reel

REEL = mixed.REEL

RECIPE: dict[str, Any] = {
    "version": 1,
    "set": "images",
    "frame": "the first of a clip of one frame",
    "label": "the game: that of Arcade, or the one of Freedoom's two that the map is of",
    "mixed": mixed.RECIPE,
}

_OF_MOTION = ("motion", "motions", "cuts")


def images_reel(stream: int, number: int, size: int = 64, frames: int = 1) -> Reel:
    """Render reel `number` of a random stream: uint8 (REEL, 1, size, size, 3) and one dict of labels per image.

    Labels are the mixed set's without those of motion, plus `label`, the game, which all splits share.

    Raises:
        ClipSetError: a number of frames other than 1.
    """
    if frames != 1:
        raise ClipSetError(f"images: an image has 1 frame, {frames} requested (set frames=1, or --frames 1)")
    clips, labels = mixed.mixed_reel(stream, number, size, 1)
    return clips, [_still_labels(one) for one in labels]


def _still_labels(labels: dict[str, Any]) -> dict[str, Any]:
    game = labels.get("game") or ("freedoom1" if labels["map"].startswith("E") else "freedoom2")
    return {"label": game, **{name: value for name, value in labels.items() if name not in _OF_MOTION}}
