"""The paper's claims about its quality-cost curves (main Figs. 4 and 5), each with a verdict on ours.

Claims are about the curves through the measured points, linear in the logarithm of the tokens, over the range both of a
pair cover; nothing is extrapolated. Routers of one kind are one rule, their trained weights its points. Leads, gaps and
savings have intervals if the record stores its draws: within one draw all curves use the same clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from evatok.evaluation import tradeoff
from evatok.evaluation.tradeoff import Comparison, Curve
from evatok.metrics import catalogue
from evatok.reporting.claims import FAILS, HOLDS, NO_INTERVAL, RULE, UNKNOWN, UNSURE, Sign, verdict
from evatok.storage.records import Record

NEAR = 0.02  # how far from the max-reward curve a router still counts as on it
DECIDES = (
    "Curves are linear in the logarithm of the tokens between measured points and compared where both have points. "
    f"{RULE}; intervals are over draws of clips, the same for both curves."
)
PAPER_SAVES = {"validation": "56 % (WebVid, rFVD)", "unseen": "42 % (UCF-101, rFVD)"}


def frame_of(record: Record, row: str) -> pd.DataFrame:
    """Return a record's points, a line per point and metric: set, rule, parameter, tokens, metric, value, spread, n."""
    lines = []
    for name, metric in record.metrics.items():
        point, _, measured = name.rpartition(".")
        rule, _, parameter = point.partition(".")
        if measured != "tokens" and parameter != "saving":
            tokens = record.metrics[f"{point}.tokens"].value
            told = (row, rule, parameter, tokens, measured, metric.value, metric.spread, metric.n, record.id)
            lines.append(told)
    columns = ["set", "rule", "parameter", "tokens", "metric", "value", "spread", "n", "record"]
    return pd.DataFrame(lines, columns=columns).sort_values(["metric", "rule", "tokens"], ignore_index=True)


def signs(row: str, frame: pd.DataFrame | None, model: Mapping[str, Any], metric: str) -> list[Sign]:
    """Return the claims about one set by one metric; `model` is a record's, which holds savings, leads and gaps."""
    where = f"{row}, {catalogue.of(metric).label}"
    own = pd.DataFrame() if frame is None else frame[frame["metric"] == metric]
    groups = {} if own.empty else {str(rule): group for rule, group in own.groupby("rule", sort=False)}
    leads, gaps = model.get("leads", {}), model.get("gaps", {})
    above = "max-proxy-reward above uniform at every length (Fig. 4)"
    found = [
        ahead(where, groups, ("max_reward", "uniform"), above, metric, leads),
        near(where, groups, metric, gaps),
        saves(row, where, model.get("savings", {}), metric),
    ]
    if metric != "rfvd":
        return found
    between = "the threshold rule between uniform and max-proxy-reward, by rFVD (Fig. 5)"
    return [
        *found,
        ahead(where, groups, ("max_reward", "threshold"), between, metric, leads),
        ahead(where, groups, ("threshold", "uniform"), between, metric, leads),
    ]


def ahead(
    where: str,
    groups: Mapping[str, pd.DataFrame],
    pair: tuple[str, str],
    paper: str,
    metric: str,
    leads: Mapping[str, Any],
) -> Sign:
    """The curve of one rule is no worse than another's at every budget both cover."""
    first, second = pair
    name = f"{where}: {first} no worse than {second} at any budget"
    if first not in groups or second not in groups:
        return Sign(name, paper, "-", UNKNOWN)
    one, other = (curve_of(groups[rule], metric) for rule in (first, second))
    margin = tradeoff.smallest_margin(one, other)
    if margin is None:
        return Sign(name, paper, "no budget in common", UNKNOWN)
    entry = catalogue.of(metric)
    decimals, unit = entry.decimals, f" {entry.unit}" if entry.unit else ""
    told = f"smallest lead {margin.difference:+.{decimals}f}{unit} at {margin.tokens:.0f} tokens"
    ends = ends_of(leads.get(f"{first}.{second}", {}).get(metric))
    remark = NO_INTERVAL if ends is None else f"{ends[0]:+.{decimals}f} to {ends[1]:+.{decimals}f}"
    return Sign(name, paper, f"{told} ({remark})", verdict(ends, or_equal=True))


def near(where: str, groups: Mapping[str, pd.DataFrame], metric: str, intervals: Mapping[str, Any]) -> Sign:
    """Every router lies on the max-reward curve within 2 % of its value."""
    name = f"{where}: routers on the max-reward curve within {100 * NEAR:.0f} %"
    paper = "router curves nearly coincide with max-proxy-reward (Fig. 4)"
    gaps = {rule: gap_of(groups, rule, metric) for rule in groups if "router" in rule}
    known = {rule: gap for rule, gap in gaps.items() if gap is not None}
    if not known:
        return Sign(name, paper, "-", UNKNOWN)
    ends = {rule: ends_of(intervals.get(rule, {}).get(metric)) for rule in known}
    told = ", ".join(f"{rule} {_gap_in_words(gap, ends[rule])}" for rule, gap in known.items())
    found = {verdict(None if end is None else (NEAR - end[1], NEAR - end[0]), or_equal=True) for end in ends.values()}
    worst = next(word for word in (FAILS, UNSURE, HOLDS) if word in found)
    return Sign(name, paper, f"largest gap (+ is better): {told}", worst)


def _gap_in_words(gap: Comparison, ends: tuple[float, float] | None) -> str:
    """Format a gap in percent, and the interval of its size."""
    remark = NO_INTERVAL if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} % off"
    return f"{100 * gap.difference:+.1f} % at {gap.tokens:.0f} tokens ({remark})"


def ends_of(found: Mapping[str, float | None] | None) -> tuple[float, float] | None:
    """Return the ends of a recorded interval; None if the record, or the interval, lacks one."""
    low, high = (None, None) if found is None else (found["low"], found["high"])
    return None if low is None or high is None else (low, high)


def gap_of(groups: Mapping[str, pd.DataFrame], rule: str, metric: str) -> Comparison | None:
    """Return the point where a rule is farthest from the max-reward curve; None without such a curve or overlap."""
    if "max_reward" not in groups:
        return None
    tokens, quality = points_of(groups[rule], metric)
    return tradeoff.largest_gap(curve_of(groups["max_reward"], metric), tokens, quality)


def saves(row: str, where: str, savings: Mapping[str, Any], metric: str) -> Sign:
    """A router of the paper's kind reaches the quality of the fixed-length baseline with fewer tokens."""
    name, paper = f"{where}: the router saves tokens at uniform's quality", PAPER_SAVES.get(row, "-")
    found = savings.get("router", {}).get(metric)
    if found is None:
        return Sign(name, paper, "-", UNKNOWN)
    return Sign(name, paper, saving_in_words(found), saving_verdict(found))


def saving_in_words(found: Mapping[str, float | None]) -> str:
    """Format a saving with its interval; a bound if all points are better than the reference."""
    if found["value"] is None:
        least = found["at_least"]
        return "none of its points is as good" if least is None else f"over {least:.1f} %: all its points are better"
    ends = ["beyond its points" if end is None else f"{end:.1f}" for end in (found["low"], found["high"])]
    return f"{found['value']:.1f} % ({ends[0]} to {ends[1]})"


def saving_verdict(found: Mapping[str, float | None]) -> str:
    """Judge whether it saves at all: an end beyond the points may lie on either side, so the other end decides."""
    low, high = found["low"], found["high"]
    if low is not None and low > 0:
        return HOLDS
    return FAILS if high is not None and high < 0 else UNSURE


def curve_of(group: pd.DataFrame, metric: str) -> Curve:
    """Return the curve through the points of one rule and metric."""
    return Curve.through(*points_of(group, metric))


def points_of(group: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and quality (higher is better), (P,) each."""
    return group["tokens"].to_numpy(), catalogue.quality(group["value"].to_numpy(), metric)
