"""Sheets and moving pictures of VideoFlexTok's samples, from the files that experiments leave (`pictures.stored`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evatok.pictures import stored
from evatok.pictures.contact_sheet import contact_sheet
from evatok.pictures.gallery import save_moving, side_by_side
from evatok.storage.files import replacing

SAMPLES = "samples"
"""Folder of the files, inside results."""


def draw(results: Path, file: str, name: str, *, frames: int = 8, fps: float = 8.0) -> list[Path]:
    """Write <results>/figures/<name>.{png,webp} from <results>/samples/<file>; nothing if there is no such file.

    The sheet has a row of `frames` frames per clip; in the moving picture, clips with the same title (the first line of
    their captions) are side by side.

    Raises:
        StoredClipsError: a file that holds something else.
    """
    path = results / SAMPLES / file
    if not path.exists():
        return []
    clips, captions = stored.load(path)
    sheet = contact_sheet(clips, captions, frames=frames)
    still = results / "figures" / f"{name}.png"
    still.parent.mkdir(parents=True, exist_ok=True)
    with replacing(still) as partial:
        sheet.save(partial, "PNG")
    width = _alike(captions)
    variants = [clips[number::width] for number in range(width)]
    moving = side_by_side(*variants, columns=1 if width > 1 else 0)
    return [still, save_moving(moving, still.with_suffix(".webp"), fps=fps)]


def _alike(captions: Sequence[str]) -> int:
    """Return the number of clips per title if it is the same for all and they are grouped; else 1."""
    titles = [caption.partition("\n")[0] for caption in captions]
    changes = np.flatnonzero([one != other for one, other in itertools.pairwise(titles)])
    width = int(changes[0]) + 1 if len(changes) else len(titles)
    even = len(titles) % width == 0 and all(
        len(set(titles[start : start + width])) == 1 for start in range(0, len(titles), width)
    )
    return width if even else 1
