"""Quality-cost trade-off (main Figs. 4 and 5): the curve through a rule's points, and its savings over another.

A rule (uniform assignments, the best reward, a router, a threshold) gives every clip an assignment for each value of
its parameter (`evatok.evaluation.operating_points`). Each value is one point of mean tokens and quality, and the points
of a rule form a curve.

Legend: N clips, P points, D draws of clips, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from evatok.metrics import catalogue
from evatok.metrics.frechet import frechet_distances_of_draws
from evatok.storage.records import Metric

LEVEL = 0.95  # for the bootstrap intervals


@dataclass(frozen=True, eq=False)
class Curve:
    """Quality (higher is better) over mean tokens, interpolated linearly in the logarithm of the tokens.

    Quality is made monotone: a point never scores below a cheaper one. Build it with `through`.
    """

    tokens: np.ndarray
    quality: np.ndarray

    @classmethod
    def through(cls, tokens: np.ndarray, quality: np.ndarray) -> Curve:
        """Build the curve through points (P,) in any order."""
        order = np.lexsort((-quality, tokens))
        ascending, best = np.unique(tokens[order], return_index=True)
        return cls(ascending, np.maximum.accumulate(quality[order][best]))

    def quality_at(self, budget: float) -> float | None:
        """Quality at a budget of tokens; None outside the range of the points."""
        if not self.tokens[0] <= budget <= self.tokens[-1]:
            return None
        return float(np.interp(np.log(budget), np.log(self.tokens), self.quality))

    def tokens_at(self, quality: float) -> float | None:
        """Fewest tokens that reach this quality; None if all points are better, or all are worse."""
        if not self.quality[0] <= quality <= self.quality[-1]:
            return None
        after = int(np.searchsorted(self.quality, quality))
        if after == 0:
            return float(self.tokens[0])
        low, high = self.quality[after - 1 : after + 1]
        logs = np.log(self.tokens[after - 1 : after + 1])
        return float(np.exp(logs[0] + (quality - low) / (high - low) * (logs[1] - logs[0])))


def saving(curve: Curve, reference_tokens: float, reference_quality: float) -> float | None:
    """Percentage of the reference's tokens that the curve saves at equal quality; None if it does not reach it."""
    needed = curve.tokens_at(reference_quality)
    return None if needed is None else 100 * (1 - needed / reference_tokens)


@dataclass(frozen=True)
class Saving:
    """A saving in percent and its bootstrap interval over clips, None where it lies outside the curve.

    `at_least` is the saving of the cheapest point if even that one is better than the reference.
    """

    value: float | None
    low: float | None
    high: float | None
    at_least: float | None


def saving_of_draws(
    tokens: np.ndarray, quality: np.ndarray, reference_tokens: np.ndarray, reference_quality: np.ndarray
) -> Saving:
    """Saving of a curve's points, tokens and quality (D, P), against a reference (D,); draw 0 is all clips.

    A draw in which all points are better than the reference counts as +infinity, one in which all are worse as
    -infinity; an end of the interval that is infinite is None.
    """
    per_draw = zip(tokens, quality, reference_tokens, reference_quality, strict=True)
    savings = np.array([_unbounded_saving(*draw) for draw in per_draw])
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    # inverted_cdf returns one of the draws, as interpolating towards infinity is not possible.
    low, high = np.quantile(savings[1:], ends, method="inverted_cdf") if len(savings) > 1 else (np.inf, np.inf)
    at_least = 100 * (1 - tokens[0].min() / reference_tokens[0]) if savings[0] == np.inf else None
    value, low, high = (float(x) if np.isfinite(x) else None for x in (savings[0], low, high))
    return Saving(value, low, high, None if at_least is None else float(at_least))


def _unbounded_saving(
    tokens: np.ndarray, quality: np.ndarray, reference_tokens: float, reference_quality: float
) -> float:
    curve = Curve.through(tokens, quality)
    percent = saving(curve, reference_tokens, reference_quality)
    if percent is not None:
        return percent
    return np.inf if reference_quality < curve.quality[0] else -np.inf


@dataclass(frozen=True)
class Comparison:
    """The budget, in tokens, that decides a comparison of two curves, and their difference there."""

    difference: float
    tokens: float


def smallest_margin(curve: Curve, other: Curve) -> Comparison | None:
    """Find the common budget at which `curve` is least ahead of `other` in quality; None without a common budget."""
    low, high = max(curve.tokens[0], other.tokens[0]), min(curve.tokens[-1], other.tokens[-1])
    knots = np.unique([low, high, *curve.tokens, *other.tokens])
    comparisons = []
    for budget in knots[(knots >= low) & (knots <= high)]:  # both curves are linear between these
        first, second = curve.quality_at(budget), other.quality_at(budget)
        if first is not None and second is not None:
            comparisons.append(Comparison(first - second, float(budget)))
    return min(comparisons, key=lambda comparison: comparison.difference, default=None)


def dominates(curve: Curve, other: Curve, tolerance: float = 0.0) -> bool | None:
    """Whether `curve` is never worse than `other` by more than `tolerance`; None without a common budget."""
    margin = smallest_margin(curve, other)
    return None if margin is None else margin.difference >= -tolerance


def largest_gap(curve: Curve, tokens: np.ndarray, quality: np.ndarray) -> Comparison | None:
    """Find the point (of P) farthest from the curve, relative to the curve's quality; None if it covers none."""
    comparisons = []
    for budget, reached in zip(tokens, quality, strict=True):
        expected = curve.quality_at(budget)
        if expected is not None:
            comparisons.append(Comparison(float((reached - expected) / abs(expected)), float(budget)))
    return max(comparisons, key=lambda comparison: abs(comparison.difference), default=None)


def draws(clips: int, count: int, seed: int = 0) -> np.ndarray:
    """(1 + count, N) indices of clips: all of them once, then `count` draws with replacement."""
    random = np.random.default_rng(seed)
    return np.vstack([np.arange(clips), random.integers(clips, size=(count, clips))])


def means_of_draws(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(D, P) means of values (P, N) over positions (D, N)."""
    return np.stack([point[positions].mean(axis=1) for point in values], axis=1)


def distances_of_draws(
    real: np.ndarray,
    fake: np.ndarray,
    positions: np.ndarray,
    ddof: int = 0,
    tick: Callable[[], object] | None = None,
) -> np.ndarray:
    """(D, P) Frechet distances of features (P, N, F) to the real ones (N, F) of the same positions (D, N).

    A draw repeats clips, which raises every Frechet distance: draws show how far values scatter, and how curves compare
    within one draw, but not the level of a value. `tick` is called after each point.
    """
    distances = np.empty((len(positions), len(fake)))
    for number, point in enumerate(fake):
        distances[:, number] = frechet_distances_of_draws(real, point, positions, ddof)
        if tick is not None:
            tick()
    return distances


def spread_of_draws(values: np.ndarray) -> np.ndarray | None:
    """(P,) half the bootstrap interval of values (D, P) without draw 0; None without draws."""
    if len(values) < 3:
        return None
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (high - low) / 2


def interval_of_draws(values: np.ndarray) -> dict[str, float | None] | None:
    """The value of all clips, draw 0 of values (D,), and the ends of its bootstrap interval; None if it is NaN.

    NaN draws, in which curves have no common budget, are ignored; if no other is left, the ends are None.
    """
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(drawn) > 1 else (None, None)
    ends = (None if end is None else float(end) for end in (low, high))
    return dict(zip(("value", "low", "high"), (float(values[0]), *ends), strict=True))


PAIRS = (("max_reward", "uniform"), ("max_reward", "threshold"), ("threshold", "uniform"))
"""Pairs of rules of which the first should never be worse than the second."""

Savings = dict[str, dict[str, dict[str, float | None]]]
"""rule -> metric -> the fields of a `Saving`."""
Intervals = dict[str, dict[str, dict[str, float | None]]]
"""rule, or pair of rules -> metric -> value, low, high."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Values (D, P) of every point by metric, including `tokens`, over the same draws of clips; draw 0 is all clips.

    Attributes:
        names: (P) names of the points, `<rule>.<parameter>`.
        reference: index of the point that savings are relative to.
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
        """Savings of each rule but the uniform one over the reference at equal quality, by metric."""
        rules = [rule for rule in dict.fromkeys(map(rule_of, self.names)) if rule != "uniform"]
        names = [name for name in self.values if name != "tokens"]
        return {rule: {name: asdict(self.saving(rule, name)) for name in names} for rule in rules}

    def saving(self, rule: str, name: str) -> Saving:
        """Saving of one rule by one metric."""
        columns = [i for i, point in enumerate(self.names) if rule_of(point) == rule]
        tokens, quality = self.values["tokens"], catalogue.quality(self.values[name], name)
        reference = tokens[:, self.reference], quality[:, self.reference]
        return saving_of_draws(tokens[:, columns], quality[:, columns], *reference)

    def leads(self) -> Intervals:
        """Smallest lead of the first rule for each measured one of PAIRS, as `<first>.<second>`, by metric."""
        rules = set(map(rule_of, self.names))
        pairs = [pair for pair in PAIRS if rules.issuperset(pair)]
        return {".".join(pair): self._by_metric(partial(self._margins, *pair)) for pair in pairs}

    def gaps(self) -> Intervals:
        """Largest relative distance of each kind of router from the max-reward curve, by metric."""
        rules = dict.fromkeys(map(rule_of, self.names))
        if "max_reward" not in rules:
            return {}
        routers = [rule for rule in rules if "router" in rule]
        return {rule: self._by_metric(partial(self._farthest, rule)) for rule in routers}

    def _by_metric(self, drawn: Callable[[str], np.ndarray]) -> dict[str, dict[str, float | None]]:
        intervals = {name: interval_of_draws(drawn(name)) for name in self.values if name != "tokens"}
        return {name: interval for name, interval in intervals.items() if interval is not None}

    def _margins(self, first: str, second: str, name: str) -> np.ndarray:
        """(D,) smallest margins of one rule's curve over another's."""
        margins = [
            smallest_margin(Curve.through(*one), Curve.through(*other))
            for one, other in zip(self._points(first, name), self._points(second, name), strict=True)
        ]
        return np.array([np.nan if margin is None else margin.difference for margin in margins])

    def _farthest(self, rule: str, name: str) -> np.ndarray:
        """(D,) absolute largest gaps of a rule's points to the max-reward curve."""
        gaps = [
            largest_gap(Curve.through(*best), *own)
            for best, own in zip(self._points("max_reward", name), self._points(rule, name), strict=True)
        ]
        return np.array([np.nan if gap is None else abs(gap.difference) for gap in gaps])

    def _points(self, rule: str, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens and quality of a rule's points in each draw."""
        columns = [i for i, point in enumerate(self.names) if rule_of(point) == rule]
        return list(
            zip(self.values["tokens"][:, columns], catalogue.quality(self.values[name], name)[:, columns], strict=True)
        )


def saving_metrics(savings: Savings, clips: int) -> dict[str, Metric]:
    """`<rule>.saving.<metric>` of all savings with a value, with half their interval as spread if it has both ends."""
    metrics = {}
    for rule, by_name in savings.items():
        for name, fields in by_name.items():
            value, low, high = fields["value"], fields["low"], fields["high"]
            spread = None if low is None or high is None else (high - low) / 2
            if value is not None:
                metrics[f"{rule}.saving.{name}"] = catalogue.of("saving").measured(value, clips, spread)
    return metrics


def rule_of(point: str) -> str:
    """Return the rule in the name of a point."""
    return point.partition(".")[0]
