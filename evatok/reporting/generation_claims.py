"""Claims about generators as signs of differences between two rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from evatok.reporting import final_rows
from evatok.reporting.claims import FAILS, HOLDS, NO_INTERVAL, RULE, UNKNOWN, Sign, around, verdict

GENERATOR_SAVES = 0.26
"""Generated tokens the paper saves: 27.7 % (GPT-B), 26.2 % (larger)."""
TIME_SHARE = 0.9
"""Share of the token savings that should carry over to sampling time."""
DECIDES = (
    f"{RULE}, as for the gFVD and the time of one sampling. Paired intervals (+ is better) come from draws of the same "
    "clips in both rows; a half-interval after ± is the root of the summed squares of both rows' own. Token counts "
    "over n samples, or means over n seeds, are compared directly."
)


def fewer_tokens(
    rows: Mapping[str, final_rows.Row], first: str, second: str, paper: str, least: float = GENERATOR_SAVES
) -> Sign:
    """`first` generates fewer tokens than `second`, by a share of at least `least`, 26 % as in the paper."""
    name = f"{first} generates {f'{100 * least:.0f} % ' if least else ''}fewer tokens than {second}"
    ours, other = rows[first].value("gtokens"), rows[second].value("gtokens")
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    saved = 1 - ours.value / other.value
    told = f"{ours.value:.1f} against {other.value:.1f} ({less(saved, 'fewer')}; n = {ours.n})"
    return Sign(name, paper, told, HOLDS if saved >= least and saved > 0 else FAILS)


def time_follows_tokens(rows: Mapping[str, final_rows.Row], first: str, second: str) -> Sign:
    """Sampling saves at least 0.9 times as large a share of time as of tokens; fails if it saves no tokens."""
    name = f"{first} saves {TIME_SHARE:g} of its token saving in sampling time"
    values = [rows[row].value(metric) for metric in ("gtokens", "sampling_ms") for row in (first, second)]
    if any(value is None for value in values):
        return Sign(name, "-", "-", UNKNOWN)
    tokens, rival_tokens, time, rival_time = (value for value in values if value is not None)
    saved, faster = 1 - tokens.value / rival_tokens.value, 1 - time.value / rival_time.value
    half = _of_ratio(time, rival_time)
    remark = NO_INTERVAL if half is None else f"± {100 * half:.1f} %"
    told = f"{less(faster, 'less')} time ({remark}) for {less(saved, 'fewer')} tokens"
    if saved <= 0:
        return Sign(name, "-", told, FAILS)
    return Sign(name, "-", told, verdict(around(faster - TIME_SHARE * saved, half), or_equal=True))


def class_is_followed(rows: Mapping[str, final_rows.Row], row: str) -> Sign:
    """The classifier recognises the requested class more often than chance, averaged over classes.

    On that average, samples of a single class, whatever is requested, score no better than chance.
    """
    name, shown = f"{row} shows its class more often than chance", rows[row].value("class_consistency_balanced")
    if shown is None:
        return Sign(name, "-", "-", UNKNOWN)
    chance = 100 / len(rows[row].records[0].model["consistency"]["classes"])
    remark = NO_INTERVAL if shown.interval is None else f"± {shown.interval:.1f}"
    told = f"{shown.value:.1f} % ({remark}) against {chance:.1f} %"
    return Sign(name, "-", told, verdict(around(shown.value - chance, shown.interval)))


def _of_ratio(one: final_rows.Value, other: final_rows.Value) -> float | None:
    """Return half the interval of a ratio of two values, to first order; None if either has none."""
    if one.interval is None or other.interval is None:
        return None
    return abs(one.value / other.value) * math.hypot(one.interval / one.value, other.interval / other.value)


def less(share: float, word: str) -> str:
    """Put a saved share in words; a negative one was spent."""
    return f"{100 * abs(share):.1f} % {word if share >= 0 else 'more'}"
