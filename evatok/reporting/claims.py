"""The paper's claims about main Table 1 as signs of differences, each with a verdict on our rows.

At toy size absolute values mean little, but rankings should survive. A claim holds if the whole interval of a
difference lies on its side, fails if it lies on the other side, and is otherwise undecided; a difference without an
interval is undecided, and its line says so. If both rows stored their per-clip values (`evatok.evaluation.per_clip`) on
the same clips, the interval comes from paired draws of these clips; with several training seeds on one side, it spans
that of every seed. If both have the same several seeds, it is Student's over the differences seed by seed, since
trainings with one seed share batches and noise. Otherwise the half-interval of a difference is the root of the summed
squares of both rows' own, which treats them as independent and is thus conservative. With one training seed intervals
cover clips only, with several seeds only. What is counted rather than estimated, such as the tokens of a set, is
compared as is, with its n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evatok.evaluation import per_clip
from evatok.metrics import catalogue
from evatok.reporting import tables
from evatok.reporting.final_rows import COLUMNS, Row, Value, half_interval
from evatok.storage.records import Record

HOLDS, FAILS, UNSURE, UNKNOWN = "holds", "does not hold", "undecided", "not measured"
TOKENIZER_SAVES = 0.244
"""Tokens the paper's router saves against the uniform row: 24.4 % (UCF-101) and 29.6 % (WebVid)."""
RULE = (
    "A claim holds if the entire 95 % interval of the difference supports it, does not hold if the entire interval "
    "contradicts it, and is undecided otherwise or without an interval"
)
DECIDES = (
    f"{RULE}. Paired intervals (+ is better) come from draws of the same clips in both rows (the span over every seed "
    "of one row), or from the differences seed by seed if both rows have the same training seeds. A half-interval "
    "after ± is the root of the summed squares of both rows' own, as if they were of different clips. Token counts "
    "over n clips are compared directly."
)
NO_INTERVAL = "no interval measured"


class Gain(NamedTuple):
    """By how many points one row is ahead of another, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def told(self) -> str:
        return f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f})"

    def above(self, least: float = 0.0) -> str:
        """Judge the claim of a gain of more than `least` points: the entire interval lies above."""
        return HOLDS if self.low > least else FAILS if self.high < least else UNSURE

    def within(self, margin: float) -> str:
        """Judge the claim that both differ by at most `margin` points: the entire interval lies inside."""
        if max(-self.low, self.high) <= margin:
            return HOLDS
        return FAILS if self.low > margin or self.high < -margin else UNSURE


Clips = Callable[[np.ndarray], Gain]


@dataclass(frozen=True)
class Sign:
    """A claim: what is compared, the paper's values, ours, and one of the four verdicts."""

    name: str
    paper: str
    ours: str
    verdict: str


def signs(rows: Mapping[str, Row]) -> list[Sign]:
    """Return all claims about the rows of main Table 1, in the paper's order."""
    return [
        better(rows, "A2", "A1", "st_lpips", "final beats proxy, uniform: LPIPS 0.1056 against 0.1178"),
        better(rows, "A2", "A1", "rfvd", "final beats proxy, uniform: rFVD 63 against 73"),
        better(rows, "B2", "B1", "st_lpips", "final beats proxy, router: LPIPS 0.1068 against 0.1182"),
        better(rows, "B2", "B1", "rfvd", "final beats proxy, router: rFVD 33 against 50"),
        fewer_tokens(rows, "B2", "A2"),
        better(rows, "B2", "A2", "st_lpips", "about equal LPIPS: 0.1068 against 0.1056", or_equal=True),
        better(rows, "B2", "A2", "rfvd", "better rFVD: 33 against 63"),
        fewer_tokens(rows, "B2+VideoMAE", "A2+VideoMAE"),
        better(rows, "B2+VideoMAE", "A2+VideoMAE", "st_lpips", "LPIPS 0.1144 against 0.1197", or_equal=True),
        better(rows, "B2+VideoMAE", "A2+VideoMAE", "rfvd", "better rFVD: 9.2 against 13"),
        better(rows, "A2+VideoMAE", "A2", "rfvd", "VideoMAE lowers rFVD, uniform: 13 against 63"),
        better(rows, "B2+VideoMAE", "B2", "rfvd", "VideoMAE lowers rFVD, router: 9.2 against 33"),
        better(rows, "A2", "A2+VideoMAE", "psnr", "VideoMAE worsens PSNR, uniform: 26.68 against 27.77 dB"),
        better(rows, "B2", "B2+VideoMAE", "psnr", "VideoMAE worsens PSNR, router: 26.90 against 27.68 dB"),
        *(first_block_leads(rows, name) for name in ("B1", "B2", "B2+VideoMAE")),
    ]


def better(
    rows: Mapping[str, Row], first: str, second: str, metric: str, paper: str, *, or_equal: bool = False
) -> Sign:
    """`first` has the better value of `metric`; with `or_equal` an interval starting at a tie suffices."""
    name = f"{first} {'no worse than' if or_equal else 'better than'} {second}, {_named(metric)}"
    ours, other = rows[first].value(metric), rows[second].value(metric)
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    decimals = catalogue.of(metric).decimals
    ends = _paired(rows[first], rows[second], ours, other)
    if ends is not None:
        remark = f"paired {ends[0]:+.{decimals}f} to {ends[1]:+.{decimals}f}"
    else:
        half = joint(ours.interval, other.interval)
        remark = NO_INTERVAL if half is None else f"± {half:.{decimals}f}"
        ends = around((ours.value - other.value) * (1 if ours.higher else -1), half)
    told = f"{ours.value:.{decimals}f} against {other.value:.{decimals}f} ({remark})"
    return Sign(name, paper, told, verdict(ends, or_equal=or_equal))


def _named(column: str) -> str:
    """Return the metric of a reconstruction's column; generator columns use their own names, as in their tables."""
    return catalogue.of(column).label if column in COLUMNS else column


def fewer_tokens(rows: Mapping[str, Row], first: str, second: str) -> Sign:
    """`first` takes at least 24.4 % fewer tokens than `second`."""
    name, paper = f"{first} takes 24.4 % fewer tokens than {second}", "721 against 1,024 (WebVid), 774 (UCF-101)"
    ours, other = rows[first].value("rtokens"), rows[second].value("rtokens")
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    saved = 1 - ours.value / other.value
    told = f"{ours.value:.1f} against {other.value:.1f} ({100 * saved:.1f} % fewer; n = {ours.n})"
    return Sign(name, paper, told, HOLDS if saved >= TOKENIZER_SAVES else FAILS)


def first_block_leads(rows: Mapping[str, Row], name: str) -> Sign:
    """The router gives the first block the most tokens, averaged over clips (supplement Sec. D.1)."""
    sign = f"{name}: the first block gets the most tokens"
    paper = "the first block typically gets more"
    held = [record.model["tokens_per_block"] for record in rows[name].records]
    if not held:
        return Sign(sign, paper, "-", UNKNOWN)
    blocks = np.mean(held, axis=0)
    counted = rows[name].value("rtokens")
    told = " / ".join(f"{tokens:.1f}" for tokens in blocks) + (f" (n = {counted.n})" if counted else "")
    return Sign(sign, paper, told, HOLDS if blocks[0] > blocks[1:].max() else FAILS)


def publish(found: list[Sign], results: Path, name: str, item: str, decides: str) -> None:
    """Write <results>/tables/<name>.csv and .md, and print the text: an item's claims, with counts and verdicts."""
    frame = pd.DataFrame([asdict(sign) for sign in found])
    counts = ", ".join(f"{(frame.verdict == word).sum()} {word}" for word in (HOLDS, FAILS, UNSURE, UNKNOWN))
    text = f"Claims about {item}: {counts}. {decides}\n\n{tables.markdown(frame)}\n"
    tables.write(results / "tables", name, frame, text)
    print(text)


def _paired(first: Row, second: Row, one: Value, other: Value) -> tuple[float, float] | None:
    """Return the interval of the gain over the same clips or seeds; None if the rows' records do not allow it."""
    if one.metric != other.metric or not one.metric:
        return None
    ours, theirs = ([r for r in row.records if r.id in v.ids] for row, v in ((first, one), (second, other)))
    if min(len(ours), len(theirs)) > 1:
        return _over_seeds(ours, theirs, one.metric, higher=one.higher)
    found = [per_clip.paired(left, right, one.metric) for left in ours for right in theirs]
    pairs = [interval for interval in found if interval is not None]
    if len(pairs) < len(found):
        return None
    low, high = min(pair.low for pair in pairs), max(pair.high for pair in pairs)
    return (low, high) if one.higher else (-high, -low)


def _over_seeds(
    ours: Sequence[Record], theirs: Sequence[Record], metric: str, *, higher: bool
) -> tuple[float, float] | None:
    """Return the interval of the mean gain seed by seed; None unless both have the same seeds, one record each."""
    gains = seed_by_seed(ours, theirs, metric)
    return None if gains is None else around(float(gains.mean()) * (1 if higher else -1), half_interval(gains))


def seed_by_seed(ours: Sequence[Record], theirs: Sequence[Record], metric: str) -> np.ndarray | None:
    """Return our values less theirs of each training seed (n,); None unless both have the same several, once each."""
    values = [
        {record.model.get("facts", {}).get("seed"): record.metrics[metric].value for record in records}
        for records in (ours, theirs)
    ]
    if values[0].keys() != values[1].keys() or not len(values[0]) == len(ours) == len(theirs) or None in values[0]:
        return None
    return np.array([value - values[1][seed] for seed, value in values[0].items()]) if len(ours) > 1 else None


def gain_of(ours: Mapping[int, np.ndarray], theirs: Mapping[int, np.ndarray], clips: Clips) -> Gain:
    """Return the mean gain of measurements by seed, with its 95 % interval over seeds and over clips.

    Over the seeds that both sides have, if these are several: Student's interval of the differences seed by seed,
    widened where the interval of their mean over clips reaches further, as few seeds may agree by chance. Otherwise
    over all pairs: what the intervals of all of them span.

    Args:
        ours, theirs: (N, ...) values of the same N clips or captions by seed.
        clips: the mean of differences (N, ...) with its interval over clips.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < 2:
        found = [clips(one - other) for one in ours.values() for other in theirs.values()]
        mean = float(np.mean([gain.value for gain in found]))
        return Gain(mean, min(gain.low for gain in found), max(gain.high for gain in found))
    differences = [ours[seed] - theirs[seed] for seed in shared]
    over_clips = clips(np.mean(differences, axis=0))
    half = half_interval(np.array([clips(difference).value for difference in differences]))
    low, high = over_clips.value - half, over_clips.value + half
    return Gain(over_clips.value, min(low, over_clips.low), max(high, over_clips.high))


def joint(one: float | None, other: float | None) -> float | None:
    """Return half the 95 % interval of a difference, from those of both sides; None if either has none."""
    return None if one is None or other is None else float(np.hypot(one, other))


def around(gain: float, half: float | None) -> tuple[float, float] | None:
    """Return the ends of a gain's interval; None without one."""
    return None if half is None else (gain - half, gain + half)


def verdict(ends: tuple[float, float] | None, *, or_equal: bool = False) -> str:
    """Judge the claim of a gain by its interval; with `or_equal`, the claim of no loss."""
    if ends is None:
        return UNSURE
    low, high = ends
    if low > 0 or (or_equal and low >= 0):
        return HOLDS
    return FAILS if high < 0 else UNSURE
