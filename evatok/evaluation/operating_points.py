"""Operating points of a quality-cost curve: one assignment per clip by some rule, and the distinct pairs to measure.

Legend: N clips, K temporal blocks, A candidates, P points, M pairs of clip and candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evatok.assignments import reward
from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale
from evatok.errors import EvatokError
from evatok.routing.rankings import Rankings
from evatok.routing.trained_router import Router
from evatok.storage.shards import ranges

_RULES = {"vit": "router", "pyramid": "pyramid_router", "features": "feature_router"}
_USUAL_TARGET = {"vit": "hard", "pyramid": "soft", "features": "soft"}


class PointError(EvatokError, ValueError):
    """Points that cannot be distinguished."""


@dataclass(frozen=True, eq=False)
class Point:
    """One assignment per clip: the rule, its parameter as text, and tokens per block (N, K)."""

    rule: str
    parameter: str
    assignments: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.rule}.{self.parameter}"

    @property
    def tokens(self) -> np.ndarray:
        """(N,) tokens per clip."""
        return self.assignments.sum(axis=1)


def uniform_points(candidates: CandidateSet, clips: int) -> list[Point]:
    """`uniform.<tokens per block>`, one point per level, shortest first."""
    rows = candidates.row(candidates.uniform)
    return [Point("uniform", str(row[0]), np.tile(row, (clips, 1))) for row in rows]


def reward_points(quality: np.ndarray, candidates: CandidateSet, scale: Scale, weights: Sequence[float]) -> list[Point]:
    """`max_reward.<w_q>`: the max-proxy-reward assignment of each clip, w_l = 2 - w_q; quality is (N, A)."""
    best = [reward.best(reward.proxy_reward(quality, candidates, scale, w_q)) for w_q in weights]
    return [Point("max_reward", f"{w_q:g}", candidates.row(choice)) for w_q, choice in zip(weights, best, strict=True)]


def threshold_points(quality: np.ndarray, candidates: CandidateSet, count: int) -> list[Point]:
    """`threshold.<bound>`: per clip the shortest assignment whose quality (N, A) reaches the bound, else the longest.

    The bounds, at most `count`, are those whose mean tokens are nearest to even steps of log tokens from shortest to
    longest; a bound is named by its magnitude in the metric's unit, to four digits.
    """
    bounds = np.unique([float(f"{bound:.4g}") for bound in np.quantile(quality, np.linspace(0, 1, 201))])
    chosen = [reward.threshold(quality, candidates, bound) for bound in bounds]
    tokens = np.array([candidates.totals[choice].mean() for choice in chosen])
    budgets = np.geomspace(tokens.min(), tokens.max(), count)
    nearest = np.unique([np.abs(np.log(tokens / budget)).argmin() for budget in budgets])
    return [Point("threshold", f"{abs(bounds[i]):g}", candidates.row(chosen[i])) for i in nearest]


def router_points(routers: Sequence[Router], clips: np.ndarray) -> list[Point]:
    """`<router_rule>.<w_q>`: each router's assignments of uint8 clips (N, T, H, W, 3)."""
    rankings = Rankings(clips)
    return [Point(router_rule(router), f"{router.point.w_q:g}", rankings.assignments(router)) for router in routers]


def router_name(router: Router) -> str:
    """`<router_rule>.<w_q>`, the name of a router's point."""
    return f"{router_rule(router)}.{router.point.w_q:g}"


def router_rule(router: Router) -> str:
    """`router` for the paper's (a ViT, trained on the best only), `router_soft`, `pyramid_router`, `feature_router`.

    A suffix names a target or head other than the kind's usual one.
    """
    kind, target = router.config.kind, router.checkpoint.facts.get("target", "hard")
    suffix = "" if target == _USUAL_TARGET[kind] else f"_{target}"
    return _RULES[kind] + suffix + ("" if router.config.head == "joint" else f"_{router.config.head}")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every (clip, candidate) that any point needs, once.

    A point's new pairs follow those of earlier points, short assignments first: measurements of earlier points stay
    valid when points are added, and a batch of adjacent pairs needs little padding.

    Attributes:
        clips, candidates: (M,) indices of clips and of candidates.
        ends: (P,) number of pairs needed by the points up to each one.
        where: (P, N) index of the pair of each point and clip.
    """

    clips: np.ndarray
    candidates: np.ndarray
    ends: np.ndarray
    where: np.ndarray

    @classmethod
    def of(cls, points: Sequence[Point], candidates: CandidateSet) -> Pairs:
        """Collect the pairs of all points. Raises PointError for two points with the same name."""
        names = [point.name for point in points]
        duplicates = [name for name in names if names.count(name) > 1]
        if duplicates:
            raise PointError(f"two points are called {duplicates[0]}: leave one of them out")
        total = len(candidates)
        clips = np.arange(len(points[0].assignments))
        needed = np.stack([clips * total + candidates.index(point.assignments) for point in points])
        index: dict[int, int] = {}
        ends = []
        for keys in needed:
            new = (key for key in keys.tolist() if key not in index)
            for key in sorted(new, key=lambda key: (candidates.totals[key % total], key % total, key)):
                index[key] = len(index)
            ends.append(len(index))
        pairs = np.array(list(index), dtype=np.int64)
        where = np.vectorize(index.__getitem__, otypes=[np.int64])(needed)
        return cls(pairs // total, pairs % total, np.array(ends), where)

    def __len__(self) -> int:
        return len(self.clips)

    def shards(self, length: int) -> list[tuple[int, int]]:
        """Split into ranges [start, stop) of at most `length` pairs, none across the end of a point's new pairs."""
        starts = [0, *self.ends[:-1].tolist()]
        return [
            (start + low, start + high)
            for start, stop in zip(starts, self.ends.tolist(), strict=True)
            for low, high in ranges(stop - start, length)
        ]
