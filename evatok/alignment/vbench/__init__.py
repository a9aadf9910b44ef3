"""VBench results as in VTok's Table 2, from the files that VBench (Huang et al., CVPR 2024) itself writes.

Its prompts and networks are not included. Its files hold a score in [0, 1] for each of sixteen dimensions. Each is
normalised to its published range; quality is the weighted mean of seven of them, semantic that of nine, and total
weights quality four times. With a dimension missing there is no such mean: VBench itself counts it as zero, which no
reader can see. In VTok's Table 2 only the cited HunyuanVideo has the total these weights give for its quality and
semantic scores; the printed totals of frame sampling and VTok are 0.40 and 0.75 points higher than they would be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evatok.errors import EvatokError
from evatok.storage.files import ordinary


class VBenchError(EvatokError, ValueError):
    """Files that are not VBench results."""


class Range(NamedTuple):
    """The scores of a dimension that count as 0 and as 1, and its weight."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


QUALITY: dict[str, Range] = {
    "subject_consistency": Range(0.1462),
    "background_consistency": Range(0.2615),
    "temporal_flickering": Range(0.6293),
    "motion_smoothness": Range(0.706, 0.9975),
    "aesthetic_quality": Range(),
    "imaging_quality": Range(),
    "dynamic_degree": Range(weight=0.5),
}
SEMANTIC: dict[str, Range] = {
    "object_class": Range(),
    "multiple_objects": Range(),
    "human_action": Range(),
    "color": Range(),
    "spatial_relationship": Range(),
    "scene": Range(high=0.8222),
    "appearance_style": Range(0.0009, 0.2855),
    "temporal_style": Range(high=0.364),
    "overall_consistency": Range(high=0.364),
}
QUALITY_WEIGHT = 4  # of quality in the total, beside 1 of semantic


def read(paths: Sequence[Path]) -> dict[str, float]:
    """Read the score of each dimension, in [0, 1].

    Raises:
        VBenchError: no JSON, none of VBench's dimensions, one of them twice, or a score out of range.
    """
    found: dict[str, float] = {}
    for path in paths:
        for name, score in _scores(path).items():
            if name in found:
                raise VBenchError(f"{path}: {name} is in another file too")
            found[name] = score
    if not found:
        raise VBenchError(f"{', '.join(map(str, paths))}: none of VBench's sixteen dimensions")
    return found


def summary(scores: Mapping[str, float]) -> dict[str, float]:
    """Compute quality, semantic and total in percent, where their dimensions are complete."""
    parts = {"quality": QUALITY, "semantic": SEMANTIC}
    found = {name: _mean(scores, ranges) for name, ranges in parts.items() if ranges.keys() <= scores.keys()}
    if len(found) == len(parts):
        weighed = QUALITY_WEIGHT * found["quality"] + found["semantic"]
        found = {"total": weighed / (QUALITY_WEIGHT + 1), **found}
    return {name: 100 * value for name, value in found.items()}


def _scores(path: Path) -> dict[str, float]:
    try:
        held = json.loads(ordinary(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VBenchError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(held, dict):
        raise VBenchError(f"{path}: VBench's results are an object with a list per dimension")
    named = {str(name).replace(" ", "_"): value for name, value in held.items()}
    return {name: _score(path, name, value) for name, value in named.items() if name in QUALITY or name in SEMANTIC}


def _score(path: Path, name: str, value: Any) -> float:
    """Return the first entry of a dimension's list, before those of the videos."""
    score = value[0] if isinstance(value, list) and value else value
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise VBenchError(f"{path}: {name} is {score!r}, which is no score from 0 to 1")
    return float(score)


def _mean(scores: Mapping[str, float], ranges: Mapping[str, Range]) -> float:
    weighed = [of.weight * (scores[name] - of.low) / (of.high - of.low) for name, of in ranges.items()]
    return sum(weighed) / sum(of.weight for of in ranges.values())
