"""Visual tokens of every strategy, from features of the frozen image encoder: the language model's projector.

Spatial tokens go through phi, residuals through g (Eqs. 13 and 14), both two-layer MLPs that are trained with the
language model. A token's position is the sum of where it lies in the frame, when it is, and what kind it is; the table
of places is shared by all granularities, pooled as features are.

Legend: B clips, T frames, L tokens, S spatial tokens of a frame, s = sqrt(S), C channels of a feature, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.tokenizers.initialise import sine_cosine
from evatok.vtok import features as held
from evatok.vtok.features import MOTION_CHANNELS, SIDE, Features, pooled
from evatok.vtok.strategies import LAVIT_GRID, OMNI_FRAMES, OMNI_TUBES, Strategy, StrategyError

CELLS = 8  # cells along each axis in the table of places
MOMENTS = 61  # entries of the table of times: 12 per second for 5 s
_KEY, _MOTION = 0, 1  # kinds
_STRENGTH = 0.5  # of the codes that positions start from, beside features of deviation 1


class VideoTokens(nn.Module):
    """Features of clips to visual tokens (B, L, D) by one strategy.

    Parameters that strategies share have the same names, so that what was learned with one starts another
    (`start_from`).
    """

    def __init__(self, strategy: Strategy, channels: int, width: int) -> None:
        super().__init__()
        self.strategy = strategy
        self.project = _mlp(channels, width)
        self.cells = nn.Parameter(_STRENGTH * _codes_of_cells(width))
        self.moments = nn.Parameter(_STRENGTH * _codes_of_times(width))
        self.kinds = nn.Parameter(torch.zeros(2, width))
        self.motion = _motion_projector(strategy, channels, width)

    @classmethod
    def of(cls, kind: str, *, channels: int = 64, width: int = 64, **settings: Any) -> VideoTokens:
        """The tokens of a strategy by name: `VideoTokens.of("vtok", key=16, fps=6)(features)`."""
        return cls(Strategy.from_dict({"kind": kind, **settings}), channels, width)

    def start_from(self, other: VideoTokens) -> list[str]:
        """Take over all parameters that `other` has in the same shape; returns the names of those it lacks."""
        theirs, own = other.state_dict(), self.state_dict()
        shared = {name: value for name, value in theirs.items() if name in own and own[name].shape == value.shape}
        self.load_state_dict({**own, **shared})
        return sorted(own.keys() - shared.keys())

    def forward(self, features: Features) -> torch.Tensor:
        """(B, L, D). Raises StrategyError for features that the strategy cannot be made of."""
        held.check(features)
        makers = {
            "none": self._none,
            "key": self._key,
            "frames": self._frames,
            "vtok": self._vtok,
            "lavit": self._lavit,
            "omni": self._omni,
        }
        return makers[self.strategy.kind](features)

    def _none(self, features: Features) -> torch.Tensor:
        return features.first.new_zeros(len(features), 0, self.kinds.shape[1])

    def _key(self, features: Features) -> torch.Tensor:
        return self._spatial(pooled(features.first, self.strategy.side), 0)

    def _frames(self, features: Features) -> torch.Tensor:
        """Each picked frame as S tokens; finer than 4 x 4 is kept of the first frame alone."""
        side, count = self.strategy.side, features.frames.shape[1]
        if side > SIDE:
            raise StrategyError(f"{self.strategy.name}: later frames are kept at {SIDE} x {SIDE} cells, key <= 16")
        picks = self.strategy.picks(count).tolist()
        tokens = [self._spatial(pooled(features.frames[:, pick], side), _moment(pick, count)) for pick in picks]
        return torch.cat(tokens, dim=1)

    def _vtok(self, features: Features) -> torch.Tensor:
        """The key frame's tokens, then one for each later frame, of what it changes (Eqs. 13 to 15)."""
        count = features.frames.shape[1]
        picks = self.strategy.picks(count)
        frames = features.frames[:, picks]
        if self.strategy.residual == "pooled":
            tokens = self.project(frames[:, 1:].mean((2, 3))) + self._cells(1)[0] + self.kinds[_KEY]
        else:
            tokens = self.motion(self._residuals(frames)) + self.kinds[_MOTION]
        if self.strategy.residual == "shuffled":
            order = torch.rand(tokens.shape[:2]).argsort(1).to(tokens.device)
            tokens = tokens.gather(1, order[..., None].expand_as(tokens))
        moments = [_moment(pick, count) for pick in picks[1:].tolist()]
        return torch.cat([self._key(features), tokens + self.moments[moments]], dim=1)

    def _residuals(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T - 1, ...) what g sees of each later frame."""
        later, residual = frames[:, 1:], self.strategy.residual
        change = (
            later if residual == "absolute" else later - (frames[:, :-1] if residual == "previous" else frames[:, :1])
        )
        return change.mean((2, 3)) if self.strategy.residual == "mean" else change.flatten(2)

    def _lavit(self, features: Features) -> torch.Tensor:
        """The key frame's tokens, then those of the motion field, by convolution over space and time."""
        if features.motion is None:
            raise StrategyError(f"{self.strategy.name} reads a motion field of 16 frames, the clips have fewer")
        tokens = self.motion(features.motion)
        return torch.cat([self._key(features), self._in_time(tokens, LAVIT_GRID[0], LAVIT_GRID[1])], dim=1)

    def _omni(self, features: Features) -> torch.Tensor:
        """The key frame's tokens, then those of tubes of four later frames each, cell by cell."""
        picks = self.strategy.picks(features.frames.shape[1])[1:]
        tubes = rearrange(features.frames[:, picks], "b (u f) h w c -> b (u h w) (f c)", u=OMNI_TUBES, f=OMNI_FRAMES)
        tokens = self.motion(tubes)
        return torch.cat([self._key(features), self._in_time(tokens, OMNI_TUBES, SIDE)], dim=1)

    def _in_time(self, tokens: torch.Tensor, steps: int, side: int) -> torch.Tensor:
        """Tokens (B, steps side side, D) with kind, place and time."""
        moments = [round((step + 0.5) / steps * (MOMENTS - 1)) for step in range(steps)]
        placed = self._cells(side)[None] + self.moments[moments][:, None]
        return tokens + self.kinds[_MOTION] + placed.flatten(0, 1)

    def _spatial(self, grid: torch.Tensor, moment: int) -> torch.Tensor:
        """(B, S, D) tokens of a frame's cells (B, s, s, C)."""
        places = self._cells(grid.shape[1]) + self.moments[moment] + self.kinds[_KEY]
        return self.project(grid.flatten(1, 2)) + places

    def _cells(self, side: int) -> torch.Tensor:
        """(side side, D) of the table of places."""
        return pooled(self.cells[None], side)[0].flatten(0, 1)


class _MotionField(nn.Module):
    """A motion field (B, S, h, w, M) to 45 tokens: one convolution over space and time, pooled to 5 x 3 x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(MOTION_CHANNELS, 2 * width, 3, padding=1)
        self.out = nn.Linear(2 * width, width)

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        field = self.convolution(rearrange(motion, "b s h w m -> b m s h w"))
        small = F.adaptive_avg_pool3d(F.silu(field), LAVIT_GRID)
        return self.out(rearrange(small, "b d t h w -> b (t h w) d"))


def _moment(pick: int, count: int) -> int:
    """The entry in the table of times of frame `pick` among `count`."""
    return round(pick / max(count - 1, 1) * (MOMENTS - 1))


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def _motion_projector(strategy: Strategy, channels: int, width: int) -> nn.Module:
    """g, or what a strategy has in its place."""
    if strategy.kind == "lavit":
        return _MotionField(width)
    if strategy.kind == "omni":
        return _mlp(OMNI_FRAMES * channels, width)
    if strategy.kind == "vtok" and strategy.residual != "pooled":
        return _mlp(channels if strategy.residual == "mean" else SIDE * SIDE * channels, width)
    return nn.Identity()


def _codes_of_cells(width: int) -> torch.Tensor:
    """(8, 8, D) sines and cosines of row and column."""
    return sine_cosine(1, (CELLS, CELLS), width).reshape(CELLS, CELLS, width)


def _codes_of_times(width: int) -> torch.Tensor:
    """(61, D) sines and cosines of time."""
    return sine_cosine(MOMENTS, (1, 1), 5 * width).reshape(MOMENTS, 5 * width)[:, -width:]
