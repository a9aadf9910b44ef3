"""Quality against tokens (main Figs. 4 and 5): the curve through a rule's points, and what it saves over another.

A rule (uniform rows, the best reward, a router, a threshold) gives every clip an assignment for each value of its
parameter (`evatok.evaluation.operating_points`); mean tokens and quality of one such point are a dot, the points of a
rule a curve.

Legend: N clips, P points, D draws of clips, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from evatok.metrics import catalogue
from evatok.storage.records import Metric

LEVEL = 0.95  # of the bootstrap intervals


@dataclass(frozen=True, eq=False)
class Curve:
    """Quality (higher is better) over mean tokens, linear in the logarithm of the tokens between its points.

    Nobody need spend more for less, so a point worse than a cheaper one counts as that one: quality never falls.
    Build it with `through`.
    """

    tokens: np.ndarray
    quality: np.ndarray

    @classmethod
    def through(cls, tokens: np.ndarray, quality: np.ndarray) -> Curve:
        """The curve of points (P,) in any order."""
        order = np.lexsort((-quality, tokens))
        ascending, best = np.unique(tokens[order], return_index=True)
        return cls(ascending, np.maximum.accumulate(quality[order][best]))

    def quality_at(self, budget: float) -> float | None:
        """Quality for that many tokens; None outside the range of the points."""
        if not self.tokens[0] <= budget <= self.tokens[-1]:
            return None
        return float(np.interp(np.log(budget), np.log(self.tokens), self.quality))

    def tokens_at(self, quality: float) -> float | None:
        """The fewest tokens that reach this quality; None where all points are better, or all are worse."""
        if not self.quality[0] <= quality <= self.quality[-1]:
            return None
        after = int(np.searchsorted(self.quality, quality))
        if after == 0:
            return float(self.tokens[0])
        low, high = self.quality[after - 1 : after + 1]
        logs = np.log(self.tokens[after - 1 : after + 1])
        return float(np.exp(logs[0] + (quality - low) / (high - low) * (logs[1] - logs[0])))


def saving(curve: Curve, reference_tokens: float, reference_quality: float) -> float | None:
    """Percent of the reference's tokens that the curve saves at the reference's quality; None where it has none."""
    needed = curve.tokens_at(reference_quality)
    return None if needed is None else 100 * (1 - needed / reference_tokens)


@dataclass(frozen=True)
class Saving:
    """A saving in percent and the ends of its bootstrap interval over clips, None where they leave the curve.

    `at_least` is what the cheapest point saves where even that one is better than the reference.
    """

    value: float | None
    low: float | None
    high: float | None
    at_least: float | None


def saving_of_draws(
    tokens: np.ndarray, quality: np.ndarray, reference_tokens: np.ndarray, reference_quality: np.ndarray
) -> Saving:
    """The saving of a curve's points, tokens and quality (D, P), against a reference (D,); draw 0 is all clips.

    A draw in which all points are better than the reference saves more than any number, one in which all are worse
    less: an end of the interval that falls there is None.
    """
    drawn = zip(tokens, quality, reference_tokens, reference_quality, strict=True)
    found = np.array([_unbounded(*draw) for draw in drawn])
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    # One of the draws, never between two: half-way to infinity is no number.
    low, high = np.quantile(found[1:], ends, method="inverted_cdf") if len(found) > 1 else (np.inf, np.inf)
    at_least = 100 * (1 - tokens[0].min() / reference_tokens[0]) if found[0] == np.inf else None
    value, low, high = (float(x) if np.isfinite(x) else None for x in (found[0], low, high))
    return Saving(value, low, high, None if at_least is None else float(at_least))


def _unbounded(tokens: np.ndarray, quality: np.ndarray, reference_tokens: float, reference_quality: float) -> float:
    curve = Curve.through(tokens, quality)
    found = saving(curve, reference_tokens, reference_quality)
    if found is not None:
        return found
    return np.inf if reference_quality < curve.quality[0] else -np.inf


@dataclass(frozen=True)
class Comparison:
    """The one budget, in tokens, that decides a comparison of two curves, and what they differ by there."""

    difference: float
    tokens: float


def smallest_margin(curve: Curve, other: Curve) -> Comparison | None:
    """Where `curve` is least ahead of `other` in quality, of all budgets both cover; None where there are none."""
    low, high = max(curve.tokens[0], other.tokens[0]), min(curve.tokens[-1], other.tokens[-1])
    knots = np.unique([low, high, *curve.tokens, *other.tokens])
    found = []
    for budget in knots[(knots >= low) & (knots <= high)]:  # both are straight between these
        ours, theirs = curve.quality_at(budget), other.quality_at(budget)
        if ours is not None and theirs is not None:
            found.append(Comparison(ours - theirs, float(budget)))
    return min(found, key=lambda comparison: comparison.difference, default=None)


def dominates(curve: Curve, other: Curve, tolerance: float = 0.0) -> bool | None:
    """Whether `curve` is nowhere worse than `other` by more than `tolerance`; None without a budget both cover."""
    margin = smallest_margin(curve, other)
    return None if margin is None else margin.difference >= -tolerance


def largest_gap(curve: Curve, tokens: np.ndarray, quality: np.ndarray) -> Comparison | None:
    """The point (of P) farthest from the curve, relative to the curve's quality; None if it covers none of them."""
    found = []
    for spent, reached in zip(tokens, quality, strict=True):
        expected = curve.quality_at(spent)
        if expected is not None:
            found.append(Comparison(float((reached - expected) / abs(expected)), float(spent)))
    return max(found, key=lambda comparison: abs(comparison.difference), default=None)


def draws(clips: int, count: int, seed: int = 0) -> np.ndarray:
    """(1 + count, N) positions of clips: all of them once, then `count` draws with replacement."""
    random = np.random.default_rng(seed)
    return np.vstack([np.arange(clips), random.integers(clips, size=(count, clips))])


def means_of_draws(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(D, P) means of values (P, N) over positions (D, N)."""
    return np.stack([point[positions].mean(axis=1) for point in values], axis=1)


def distances_of_draws(
    real: np.ndarray,
    fake: np.ndarray,
    positions: np.ndarray,
    distance: Callable[[np.ndarray, np.ndarray], float],
    tick: Callable[[], object] | None = None,
) -> np.ndarray:
    """(D, P) distances of features (P, N, F) to the real ones (N, F) of the same positions (D, N).

    A draw repeats clips, which raises every Frechet distance: draws tell how far values scatter, and how curves
    compare within one draw, not where a value lies. `tick` is called after each draw.
    """
    found = np.empty((len(positions), len(fake)))
    for draw, drawn in enumerate(positions):
        found[draw] = [distance(real[drawn], point[drawn]) for point in fake]
        if tick is not None:
            tick()
    return found


def spread_of_draws(values: np.ndarray) -> np.ndarray | None:
    """(P,) half the bootstrap interval of values (D, P), draw 0 left out; None without draws."""
    if len(values) < 3:
        return None
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (high - low) / 2


def interval_of_draws(values: np.ndarray) -> dict[str, float | None] | None:
    """The value of all clips, draw 0 of values (D,), and the ends of its bootstrap interval; None where it is NaN.

    Draws that are NaN, in which curves have no budget in common, are left out; without any other, ends are None.
    """
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(drawn) > 1 else (None, None)
    ends = (None if end is None else float(end) for end in (low, high))
    return dict(zip(("value", "low", "high"), (float(values[0]), *ends), strict=True))


PAIRS = (("max_reward", "uniform"), ("max_reward", "threshold"), ("threshold", "uniform"))
"""Rules of which the first should nowhere be worse than the second."""

Savings = dict[str, dict[str, dict[str, float | None]]]
"""rule -> metric -> the fields of a `Saving`."""
Intervals = dict[str, dict[str, dict[str, float | None]]]
"""rule, or pair of rules -> metric -> value, low, high."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Values (D, P) of every point by metric, `tokens` among them, over the same draws of clips; draw 0 is all.

    Attributes:
        names: (P) of the points, `<rule>.<parameter>`.
        reference: index of the point that savings are counted against.
        clips: N.
    """

    names: Sequence[str]
    reference: int
    clips: int
    values: dict[str, np.ndarray]

    def point_metrics(self) -> dict[str, Metric]:
        """`<rule>.<parameter>.<metric>` of every point, with half its bootstrap interval as spread."""
        metrics = {}
        for name, drawn in self.values.items():
            entry, spreads = catalogue.of(name), spread_of_draws(drawn)
            for i, point in enumerate(self.names):
                spread = None if spreads is None else float(spreads[i])
                metrics[f"{point}.{name}"] = entry.measured(float(drawn[0, i]), self.clips, spread)
        return metrics

    def savings(self) -> Savings:
        """What each rule but the uniform one saves of the reference's tokens at the reference's value, by metric."""
        rules = [rule for rule in dict.fromkeys(map(rule_of, self.names)) if rule != "uniform"]
        names = [name for name in self.values if name != "tokens"]
        return {rule: {name: asdict(self.saving(rule, name)) for name in names} for rule in rules}

    def saving(self, rule: str, name: str) -> Saving:
        """What one rule saves by one metric."""
        own = [i for i, point in enumerate(self.names) if rule_of(point) == rule]
        tokens, quality = self.values["tokens"], catalogue.quality(self.values[name], name)
        reference = tokens[:, self.reference], quality[:, self.reference]
        return saving_of_draws(tokens[:, own], quality[:, own], *reference)

    def leads(self) -> Intervals:
        """Of each of PAIRS that was measured, `<first>.<second>`: where the first is least ahead, by metric."""
        rules = set(map(rule_of, self.names))
        pairs = [pair for pair in PAIRS if rules.issuperset(pair)]
        return {".".join(pair): self._by_metric(partial(self._margins, *pair)) for pair in pairs}

    def gaps(self) -> Intervals:
        """Of each kind of router, how far from the max-reward curve it comes at most, as a share, by metric."""
        rules = dict.fromkeys(map(rule_of, self.names))
        if "max_reward" not in rules:
            return {}
        routers = [rule for rule in rules if "router" in rule]
        return {rule: self._by_metric(partial(self._farthest, rule)) for rule in routers}

    def _by_metric(self, drawn: Callable[[str], np.ndarray]) -> dict[str, dict[str, float | None]]:
        found = {name: interval_of_draws(drawn(name)) for name in self.values if name != "tokens"}
        return {name: interval for name, interval in found.items() if interval is not None}

    def _margins(self, first: str, second: str, name: str) -> np.ndarray:
        """(D,) smallest margins of one rule's curve over another's."""
        found = [
            smallest_margin(Curve.through(*one), Curve.through(*other))
            for one, other in zip(self._points(first, name), self._points(second, name), strict=True)
        ]
        return np.array([np.nan if margin is None else margin.difference for margin in found])

    def _farthest(self, rule: str, name: str) -> np.ndarray:
        """(D,) largest gaps of a rule's points to the max-reward curve, without their sign."""
        found = [
            largest_gap(Curve.through(*best), *own)
            for best, own in zip(self._points("max_reward", name), self._points(rule, name), strict=True)
        ]
        return np.array([np.nan if gap is None else abs(gap.difference) for gap in found])

    def _points(self, rule: str, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens and quality of a rule's points in each draw."""
        own = [i for i, point in enumerate(self.names) if rule_of(point) == rule]
        return list(zip(self.values["tokens"][:, own], catalogue.quality(self.values[name], name)[:, own], strict=True))


def saving_metrics(savings: Savings, clips: int) -> dict[str, Metric]:
    """`<rule>.saving.<metric>` of the savings there are, with half their interval as spread where it has both ends."""
    metrics = {}
    for rule, by_name in savings.items():
        for name, found in by_name.items():
            value, low, high = found["value"], found["low"], found["high"]
            spread = None if low is None or high is None else (high - low) / 2
            if value is not None:
                metrics[f"{rule}.saving.{name}"] = Metric(value, "%", clips, "higher", spread)
    return metrics


def rule_of(point: str) -> str:
    """The rule in the name of a point."""
    return point.partition(".")[0]
