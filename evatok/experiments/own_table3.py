"""Table 3 on a user's own clips: by exact tree search with percentiles, or by beam search with rewards and regrets."""

from __future__ import annotations

import argparse
import sys

from evatok.assignments import reward
from evatok.data.clips import ClipSet
from evatok.evaluation import beam_study, router_study
from evatok.evaluation.router_study import Comparison
from evatok.experiments.own_study import OwnStudy
from evatok.experiments.scored_videos import row_of, scored_videos, searched_videos
from evatok.reporting import beam_tables, command_line, router_tables

FEW = 20
"""With fewer clips than this, a table is printed with a warning."""


def show(asked: argparse.Namespace) -> None:
    """Print a table and its claims per reward, and draw clips with their assignments.

    Args:
        asked: the options of `evatok.reporting.command_line.with_own`, `with_networks` and `with_search`.
    """
    study = OwnStudy.read(asked)
    if asked.search == "beam":
        _by_beam(asked, study)
    else:
        _by_tree(asked, study)


def _by_tree(asked: argparse.Namespace, study: OwnStudy) -> None:
    shelf, scored = study.shelf, scored_videos(asked, study)
    _warn_of_few(scored.clips)
    row, ending = row_of(scored.clips.name), command_line.ending(scored.clips.name)
    comparisons = study.judged(scored.table)
    for comparison in comparisons:
        record = router_study.measured_record(shelf, row, comparison, scored)
        router_tables.publish(f"{_name(study, comparison)}{ending}", {row: record}, shelf, comparison, _what(study))
    router = study.pictured
    if router is None:
        best = scored.table.candidates.row(reward.best(scored.rewards(comparisons[0].point)))
    else:
        best = scored.rankings.assignments(router)
    print(f"picture: {router_tables.picture(shelf, scored.clips.clips, best, f'table3_clips{ending}')}")


def _by_beam(asked: argparse.Namespace, study: OwnStudy) -> None:
    shelf, searched = study.shelf, searched_videos(asked, study)
    _warn_of_few(searched.clips)
    row, ending = row_of(searched.clips.name), command_line.ending(searched.clips.name)
    for comparison in study.comparisons:
        record = beam_study.record_of(searched, row, comparison, shelf.size, shelf.root / "records")
        beam_tables.publish(f"{_name(study, comparison)}_beam{ending}", row, record, shelf.root, comparison)
    if study.pictured is not None:
        rows = searched.rankings.assignments(study.pictured)
        print(f"picture: {router_tables.picture(shelf, searched.clips.clips, rows, f'table3_clips{ending}')}")


def _name(study: OwnStudy, comparison: Comparison) -> str:
    return router_tables.NAMES[comparison.name] if study.shipped else f"table3_{comparison.name}"


def _what(study: OwnStudy) -> str:
    """Describe the reward of a user's own networks, for a table's caption."""
    if study.shipped:
        return ""
    return "that of your routers" if study.comparisons else "the paper's weight, scaled by the scores of these clips"


def _warn_of_few(clips: ClipSet) -> None:
    if len(clips) < FEW:
        print(
            f"table3: {len(clips)} clips only: standard errors of so few say little, and no claim on them should be "
            "believed",
            file=sys.stderr,
        )
