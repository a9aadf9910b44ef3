"""Visual tokens of every strategy, from features of the frozen image encoder: the language model's projector.

Spatial tokens go through phi, residuals through g (Eqs. 13 and 14), both two-layer MLPs trained with the language
model. A token's position is the sum of its location in the frame, its time, and its kind; the location table is shared
by all granularities, pooled as features are.

Legend: B clips, T frames, L tokens, S spatial tokens of a frame, s = sqrt(S), C channels of a feature, G numbers of
what a motion token is made of, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from evatok.tokenizers.initialise import sine_cosine
from evatok.vtok import features as held
from evatok.vtok.features import MOTION_CHANNELS, SIDE, Features, pooled
from evatok.vtok.strategies import LAVIT_FRAMES, LAVIT_GRID, OMNI_FRAMES, OMNI_TUBES, Strategy, StrategyError

CELLS = 8  # cells along each axis in the location table
MOMENTS = 61  # entries of the time table: 12 per second for 5 s
FIELD = (LAVIT_FRAMES - 1) // LAVIT_GRID[0] * MOTION_CHANNELS
"""Numbers of a motion field's token that is not convolved: its three steps'."""
_KEY, _MOTION = 0, 1  # kinds
_STRENGTH = 0.5  # scale of the initial position codes, relative to features of deviation 1


Raw = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class RawTokens:
    """Tokens of B clips as the projector reads them, before it.

    Attributes:
        spatial: (B, n, C) cells of frames, in order.
        motion: (B, m, G) what follows them; m may be 0. A motion field to be convolved is (B, S, h, w, M).
        frames: per clip they are made from.
    """

    spatial: torch.Tensor
    motion: torch.Tensor
    frames: int


class VideoTokens(nn.Module):
    """Features of clips to visual tokens (B, L, D) by one strategy.

    Parameters shared between strategies have the same names, so that weights trained with one can initialise another
    (`start_from`).
    """

    def __init__(self, strategy: Strategy, channels: int, width: int, *, cell_by_cell: bool = False) -> None:
        """`cell_by_cell`: a motion field's tokens are its pooled cells (`field_cells`), not a convolution's outputs."""
        super().__init__()
        self.strategy, self.cell_by_cell = strategy, cell_by_cell
        self.project = mlp(channels, width)
        self.cells = nn.Parameter(_STRENGTH * _codes_of_cells(width))
        self.moments = nn.Parameter(_STRENGTH * _codes_of_times(width))
        self.kinds = nn.Parameter(torch.zeros(2, width))
        self.motion = _motion_projector(strategy, channels, width, cell_by_cell)

    @classmethod
    def of(cls, kind: str, *, channels: int = 64, width: int = 64, **settings: Any) -> VideoTokens:
        """The tokens of a strategy by name: `VideoTokens.of("vtok", key=16, fps=6)(features)`."""
        return cls(Strategy.from_dict({"kind": kind, **settings}), channels, width)

    def start_from(self, other: VideoTokens) -> list[str]:
        """Copy all parameters that `other` has in the same shape; return the names of those it lacks."""
        theirs, own = other.state_dict(), self.state_dict()
        shared = {name: value for name, value in theirs.items() if name in own and own[name].shape == value.shape}
        self.load_state_dict({**own, **shared})
        return sorted(own.keys() - shared.keys())

    def forward(self, features: Features) -> torch.Tensor:
        """Return (B, L, D). Raises StrategyError for features the strategy cannot use."""
        return self.embed(self.raw(features))

    def embed(self, raw: RawTokens) -> torch.Tensor:
        """Return (B, L, D) of raw tokens: projected, with positions."""
        pooled_later = self.strategy.residual == "pooled" and self.strategy.kind == "vtok"
        later = (self.project if pooled_later else self.motion)(raw.motion)
        tokens = torch.cat([self.project(raw.spatial), later], dim=1)
        return tokens + placed(self.strategy, raw.frames, self.cells, self.moments, self.kinds)

    def raw(self, features: Features) -> RawTokens:
        """Return the projector's input for each token. Raises StrategyError as `forward` does."""
        held.check(features)
        makers = {
            "none": self._none,
            "key": self._key,
            "frames": self._frames,
            "vtok": self._vtok,
            "lavit": self._lavit,
            "omni": self._omni,
        }
        count = features.frames.shape[1]
        spatial, motion = makers[self.strategy.kind](features)
        # A projector without tokens still needs a width.
        none = features.first.new_zeros(len(features), 0, motion_width(self.strategy, features.first.shape[-1]))
        return RawTokens(spatial, none if motion is None else motion, count)

    def _none(self, features: Features) -> Raw:
        return features.first.new_zeros(len(features), 0, features.first.shape[-1]), None

    def _key(self, features: Features) -> Raw:
        return pooled(features.first, self.strategy.side).flatten(1, 2), None

    def _frames(self, features: Features) -> Raw:
        """Return each picked frame as S tokens; grids finer than 4 x 4 are stored for the first frame only."""
        side = self.strategy.side
        if side > SIDE:
            raise StrategyError(f"{self.strategy.name}: later frames are kept at {SIDE} x {SIDE} cells, key <= 16")
        picks = self.strategy.picks(features.frames.shape[1])
        return pooled(features.frames[:, picks], side).flatten(1, 3), None

    def _vtok(self, features: Features) -> Raw:
        """Return the key frame's tokens, then one per later frame, encoding its change (Eqs. 13 to 15)."""
        frames = features.frames[:, self.strategy.picks(features.frames.shape[1])]
        motion = frames[:, 1:].mean((2, 3)) if self.strategy.residual == "pooled" else self._residuals(frames)
        if self.strategy.residual == "shuffled":
            order = torch.rand(motion.shape[:2]).argsort(1).to(motion.device)
            motion = motion.gather(1, order[..., None].expand_as(motion))
        return self._key(features)[0], motion

    def _residuals(self, frames: torch.Tensor) -> torch.Tensor:
        """Return (B, T - 1, ...), the input of g for each later frame."""
        later, residual = frames[:, 1:], self.strategy.residual
        change = (
            later if residual == "absolute" else later - (frames[:, :-1] if residual == "previous" else frames[:, :1])
        )
        return change.mean((2, 3)) if self.strategy.residual == "mean" else change.flatten(2)

    def _lavit(self, features: Features) -> Raw:
        """Return the key frame's tokens, then the motion field's, made by a convolution over space and time."""
        if features.motion is None:
            raise StrategyError(f"{self.strategy.name} reads a motion field of 16 frames, the clips have fewer")
        field = field_cells(features.motion) if self.cell_by_cell else features.motion
        return self._key(features)[0], field

    def _omni(self, features: Features) -> Raw:
        """Return the key frame's tokens, then those of tubes of four later frames each, cell by cell."""
        picks = self.strategy.picks(features.frames.shape[1])[1:]
        tubes = rearrange(features.frames[:, picks], "b (u f) h w c -> b (u h w) (f c)", u=OMNI_TUBES, f=OMNI_FRAMES)
        return self._key(features)[0], tubes


def placed(
    strategy: Strategy, frames: int, cells: torch.Tensor, moments: torch.Tensor, kinds: torch.Tensor
) -> torch.Tensor:
    """Return (L, D) positions of a strategy's tokens in order: location, time and kind.

    Args:
        frames: per clip they are made from.
        cells: (8, 8, D), the location table.
        moments: (61, D), the time table.
        kinds: (2, D), spatial tokens and motion tokens.
    """

    def of_grid(side: int, moment: int, kind: int) -> torch.Tensor:
        return pooled(cells[None], side)[0].flatten(0, 1) + moments[moment] + kinds[kind]

    if strategy.kind == "none":
        return cells.new_zeros(0, cells.shape[-1])
    if strategy.kind == "frames":
        picks = strategy.picks(frames).tolist()
        return torch.cat([of_grid(strategy.side, _moment(pick, frames), _KEY) for pick in picks])
    parts = [of_grid(strategy.side, 0, _KEY)]
    if strategy.kind == "vtok":
        when = moments[[_moment(pick, frames) for pick in strategy.picks(frames)[1:].tolist()]]
        as_key = strategy.residual == "pooled"
        parts.append(when + (pooled(cells[None], 1)[0, 0] + kinds[_KEY] if as_key else kinds[_MOTION]))
    elif strategy.kind in ("lavit", "omni"):
        steps, side = (LAVIT_GRID[0], LAVIT_GRID[1]) if strategy.kind == "lavit" else (OMNI_TUBES, SIDE)
        at = [round((step + 0.5) / steps * (MOMENTS - 1)) for step in range(steps)]
        parts += [of_grid(side, moment, _MOTION) for moment in at]
    return torch.cat(parts)


def motion_width(strategy: Strategy, channels: int) -> int:
    """Return G, the input width of a motion token, cell by cell for "lavit"; C for a strategy without any."""
    if strategy.kind == "vtok" and strategy.residual not in ("mean", "pooled"):
        return SIDE * SIDE * channels
    return {"lavit": FIELD, "omni": OMNI_FRAMES * channels}.get(strategy.kind, channels)


def field_cells(motion: torch.Tensor) -> torch.Tensor:
    """Return (B, 45, `FIELD`) of a motion field (B, S, h, w, M), pooled over cells instead of convolved.

    A token's three steps stand side by side: in their mean, motion to and fro would cancel.
    """
    moments, rows, columns = LAVIT_GRID
    small = F.adaptive_avg_pool2d(rearrange(motion, "b s h w m -> b (s m) h w"), (rows, columns))
    return rearrange(small, "b (t r m) h w -> b (t h w) (r m)", t=moments, m=MOTION_CHANNELS)


class _Nothing(nn.Module):
    """The projector of a strategy without motion tokens: no tokens (B, 0, G) to none of width D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        return motion.new_zeros(*motion.shape[:2], self.width)


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
    """Return the time-table entry of frame `pick` among `count`."""
    return round(pick / max(count - 1, 1) * (MOMENTS - 1))


def mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def _motion_projector(strategy: Strategy, channels: int, width: int, cell_by_cell: bool) -> nn.Module:
    """Build g, or the strategy's equivalent."""
    if strategy.kind == "lavit" and not cell_by_cell:
        return _MotionField(width)
    if strategy.kind in ("lavit", "omni") or (strategy.kind == "vtok" and strategy.residual != "pooled"):
        return mlp(motion_width(strategy, channels), width)
    return _Nothing(width)


def _codes_of_cells(width: int) -> torch.Tensor:
    """(8, 8, D) sines and cosines of row and column."""
    return sine_cosine(1, (CELLS, CELLS), width).reshape(CELLS, CELLS, width)


def _codes_of_times(width: int) -> torch.Tensor:
    """(61, D) sines and cosines of time."""
    return sine_cosine(MOMENTS, (1, 1), 5 * width).reshape(MOMENTS, 5 * width)[:, -width:]
