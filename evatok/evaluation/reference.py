"""The reference clips of an evaluation: how many of them, sliceable, and with a manifest.

Legend: n clips measured, T frames, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evatok.data.clips import ClipSet, pixels_sha256
from evatok.evaluation.folders import EvaluationError, FolderClips
from evatok.evaluation.protocols import Protocol


def reference_clips(
    clips: ClipSet | FolderClips | np.ndarray, protocol: Protocol, limit: int | None
) -> tuple[Any, dict[str, Any]]:
    """Return the clips to measure, sliceable to uint8 (n, T, H, W, 3), and their manifest.

    Raises:
        EvaluationError: a limit out of range, not the protocol's number of clips without a limit, or clips that are not
            uint8.
    """
    available, required = len(clips), protocol.clips
    if limit is not None and not 1 <= limit <= available:
        raise EvaluationError(f"limit={limit} of {available} clips: it must be between 1 and {available}")
    if limit is None and required is not None and available != required:
        raise EvaluationError(
            f"protocol {protocol.name} measures {required} clips, {available} were given: pass "
            f"limit={min(available, required)} for a run that stands in no table"
        )
    count = available if limit is None else limit
    if isinstance(clips, ClipSet):
        part = clips.head(count)
        return part.clips, part.manifest
    if isinstance(clips, FolderClips):
        if clips[:1].dtype != np.uint8:
            raise EvaluationError(f"{clips.folder}: reference clips must be uint8, as videos are")
        return FirstClips(clips, count), {"name": clips.folder.name, **clips.identity, "shape": [count, *clips.shape]}
    array = clips[:count]
    return array, {"name": "array", "shape": list(array.shape), "sha256": pixels_sha256(array)}


class FirstClips:
    """The first clips of a folder, sliceable."""

    def __init__(self, clips: FolderClips, count: int) -> None:
        self.clips, self.count = clips, count
        self.shape = (count, *clips.shape)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, where: slice) -> np.ndarray:
        return self.clips[slice(*where.indices(self.count))]
