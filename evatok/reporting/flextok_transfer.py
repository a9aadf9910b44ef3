"""Tokens with a borrowed first frame: cells and claims from a record of `evatok.experiments.videoflextok_transfer`."""

from __future__ import annotations

import re

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.tables import Cell
from evatok.storage.records import Metric, Record

_NAME = re.compile(r"(l1|motion_correlation)_k(\d+)_(borrowed|own)_(tokens|frame)")


def claims_of(record: Record) -> list[Sign]:
    """Claim that samples change as the tokens' clip does, and look like the first frame's."""
    levels = sorted({int(found[2]) for name in record.metrics if (found := _NAME.fullmatch(name))})
    signs = []
    for tokens in levels:
        where = f"{flextok.counted(tokens)} per latent frame"
        pairs = (
            (f"{where}: changes follow the tokens' clip", "motion_correlation", "tokens", "frame", "higher"),
            (f"{where}: pixels follow the first frame's clip", "l1", "frame", "tokens", "lower"),
        )
        for name, metric, nearer, other, direction in pairs:
            near, far = (record.metrics.get(f"{metric}_k{tokens}_borrowed_{which}") for which in (nearer, other))
            if near is not None and far is not None:
                signs.append(_sign(name, near, far, direction))
    return signs


def _sign(name: str, ours: Metric, other: Metric, direction: str) -> Sign:
    gain = ours.value - other.value if direction == "higher" else other.value - ours.value
    half = claims.joint(ours.spread, other.spread)
    told = f"{ours.value:.3f} against {other.value:.3f} ({'no interval' if half is None else f'± {half:.3f}'})"
    return Sign(name, "consistent (pictures)", told, claims.verdict(claims.around(gain, half)))


def cells_of(record: Record) -> list[Cell]:
    """Return a row per length, first frame, and clip that samples are compared with."""
    cells = []
    for name, metric in record.metrics.items():
        if found := _NAME.fullmatch(name):
            row = f"{flextok.counted(int(found[2]))}, {found[3]} first frame, to the clip of the {found[4]}"
            cells.append(Cell.of_record(row, found[1], metric, record))
    return cells
