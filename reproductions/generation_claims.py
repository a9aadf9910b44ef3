"""Claims about generators as signs of differences between two rows."""

from __future__ import annotations

from collections.abc import Mapping

from reproductions import final_tables
from reproductions.signs import FAILS, HOLDS, UNKNOWN, Sign

GENERATOR_SAVES = 0.26
"""Generated tokens the paper saves: 27.7 % (GPT-B), 26.2 % (larger)."""
TIME_SHARE = 0.9
"""Of the saved tokens, the share that should be saved in sampling time."""
DECIDES = (
    "A gFVD of one sampling has no interval, so its bare sign decides; class consistencies differ where they do by "
    "more than the root of the summed squares of their 95 % half-intervals."
)


def fewer_tokens(
    rows: Mapping[str, final_tables.Row], first: str, second: str, paper: str, least: float = GENERATOR_SAVES
) -> Sign:
    """`first` generates fewer tokens than `second`, by a share of at least `least`, 26 % as in the paper."""
    name = f"{first} generates {f'{100 * least:.0f} % ' if least else ''}fewer tokens than {second}"
    ours, other = rows[first].value("gtokens"), rows[second].value("gtokens")
    if ours is None or other is None:
        return Sign(name, paper, "-", UNKNOWN)
    saved = 1 - ours.value / other.value
    told = f"{ours.value:.1f} against {other.value:.1f} ({less(saved, 'fewer')})"
    return Sign(name, paper, told, HOLDS if saved >= least and saved > 0 else FAILS)


def time_follows_tokens(rows: Mapping[str, final_tables.Row], first: str, second: str) -> Sign:
    """Sampling saves at least 0.9 of the share of time that it saves of the tokens."""
    name = f"{first} saves {TIME_SHARE:g} of its token saving in sampling time"
    values = [rows[row].value(metric) for metric in ("gtokens", "sampling_ms") for row in (first, second)]
    if any(value is None for value in values):
        return Sign(name, "-", "-", UNKNOWN)
    tokens, rival_tokens, time, rival_time = (value.value for value in values if value is not None)
    saved, faster = 1 - tokens / rival_tokens, 1 - time / rival_time
    told = f"{less(faster, 'less')} time for {less(saved, 'fewer')} tokens"
    return Sign(name, "-", told, HOLDS if faster >= TIME_SHARE * saved > 0 else FAILS)


def less(share: float, word: str) -> str:
    """A share saved in words; one that is negative was spent."""
    return f"{100 * abs(share):.1f} % {word if share >= 0 else 'more'}"
