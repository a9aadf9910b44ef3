"""How a video becomes visual tokens for a language model, and how many: VTok, its baselines, and controls.

The length of VTok is L = S + (T - 1): S tokens of the first frame and one for each later frame (Eqs. 13 to 15); that of
frame sampling is n S. The abstract and Fig. 1 print T + S, and Table 5 prints 30 for S = 1 where the formula gives 31.

Legend: S tokens of a frame, T frames that a strategy reads, L tokens of a clip.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from evatok.errors import EvatokError
from evatok.storage import checkpoints

KINDS = ("none", "key", "frames", "vtok", "lavit", "omni")
RESIDUALS = ("grid", "mean", "absolute", "previous", "shuffled", "pooled")
SECONDS = 5.0
LAVIT_FRAMES, LAVIT_GRID = 16, (5, 3, 3)  # frames of the motion field; its tokens along time, rows and columns
OMNI_TUBES, OMNI_FRAMES, OMNI_CELLS = 4, 4, 16  # tubes of the frames after the first; frames and tokens per tube


class StrategyError(EvatokError, ValueError):
    """An unknown or inconsistent strategy, or one that cannot read a clip."""


@dataclass(frozen=True)
class Strategy:
    """One way to turn the frames of a clip into tokens.

    Attributes:
        kind: "none" (text only), "key" (the first frame alone), "frames" (evenly spaced frames), "vtok"; "lavit" (a key
            frame and a motion field's tokens) and "omni" (a key frame and tubes of later frames) are our readings of
            Video-LaViT's and OmniTokenizer's strategies.
        key: S, tokens of a frame: a square number up to 64.
        fps: motion tokens per second of "vtok".
        residual: what "vtok" makes a motion token of: "grid" (Eq. 14: features of a frame less those of the key frame,
            4 x 4 cells side by side), "mean" (the same, averaged over the picture), and as controls "absolute" (no
            difference), "previous" (less those of the frame before), "shuffled" (grid, tokens in random order).
            "pooled" is Table 3's swap without training: a later frame's features averaged and projected as the key
            frame's are, without a parameter of its own.
        frames: n of "frames".

    Raises:
        StrategyError: an unknown kind or residual, or a number out of range.
    """

    kind: str
    key: int = 16
    fps: int = 6
    residual: str = "grid"
    frames: int = 4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise StrategyError(f"strategy {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.residual not in RESIDUALS:
            raise StrategyError(f"residual {self.residual!r} is not one of {', '.join(RESIDUALS)}")
        if not 1 <= self.key <= 64 or math.isqrt(self.key) ** 2 != self.key:
            raise StrategyError(f"key must be a square number of tokens per frame (1, 4, 9, ... 64), got {self.key}")
        if self.fps < 1 or self.frames < 1:
            raise StrategyError(f"fps and frames must be at least 1, got {self.fps} and {self.frames}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Strategy:
        names = {field.name for field in fields(cls)}
        odd = sorted(set(values) - names)
        if odd:
            raise StrategyError(f"unknown strategy setting {odd[0]!r}; known ones: {', '.join(sorted(names))}")
        return checkpoints.shaped(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def side(self) -> int:
        """Cells along each axis of a frame."""
        return math.isqrt(self.key)

    @property
    def name(self) -> str:
        """A unique short name, used in tables and folders."""
        if self.kind in ("none", "lavit", "omni"):
            return self.kind
        if self.kind == "key":
            return f"key{self.key}"
        if self.kind == "frames":
            return f"frames{self.frames}x{self.key}"
        return f"vtok-{self.key}-{self.fps}fps" + ("" if self.residual == "grid" else f"-{self.residual}")

    def length(self, seconds: float = SECONDS) -> int:
        """Return L for a clip of this many seconds.

        Raises:
            StrategyError: no whole number of motion tokens.
        """
        if self.kind == "none":
            return 0
        if self.kind == "frames":
            return self.frames * self.key
        if self.kind == "vtok":
            return self.key + self._later(seconds)
        more = {"key": 0, "lavit": math.prod(LAVIT_GRID), "omni": OMNI_TUBES * OMNI_CELLS}
        return self.key + more[self.kind]

    def picks(self, clip_frames: int, seconds: float = SECONDS) -> np.ndarray:
        """Return (T,) indices of the frames read from `clip_frames` evenly spaced ones, first and last included.

        Raises:
            StrategyError: too few frames, or of another rate than motion tokens are made at.
        """
        wanted = self._reads(seconds)
        if wanted > clip_frames:
            raise StrategyError(
                f"strategy {self.name} reads {wanted} frames, the clip has {clip_frames}: build clips of {wanted} "
                f"frames (frames={wanted}), or choose fewer"
            )
        if self.kind == "vtok" and (clip_frames - 1) % (wanted - 1):
            raise StrategyError(
                f"strategy {self.name} reads {self.fps} frames per second; {clip_frames} frames in {seconds:g} s are "
                f"{(clip_frames - 1) / seconds:g} per second, not a multiple: build clips of {wanted} frames"
            )
        return np.rint(np.linspace(0, clip_frames - 1, wanted)).astype(int)

    def _reads(self, seconds: float) -> int:
        if self.kind == "vtok":
            return 1 + self._later(seconds)
        return {"none": 0, "key": 1, "frames": self.frames, "lavit": LAVIT_FRAMES}.get(
            self.kind, 1 + OMNI_TUBES * OMNI_FRAMES
        )

    def _later(self, seconds: float) -> int:
        """Frames after the key frame."""
        count = self.fps * seconds
        if count < 1 or abs(count - round(count)) > 1e-9:
            raise StrategyError(
                f"{self.fps} motion tokens per second for {seconds:g} s make {count:g}: a video of one frame has none, "
                "and others need a whole number of them; choose another fps"
            )
        return round(count)


def length(kind: str, *, seconds: float = SECONDS, **settings: Any) -> int:
    """L of a strategy by its kind and settings, as `Strategy` takes them. Raises StrategyError as it does."""
    return Strategy.from_dict({"kind": kind, **settings}).length(seconds)
