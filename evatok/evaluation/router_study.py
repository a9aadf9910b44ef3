"""Routers against everything simpler, on sets whose candidate tables are stored: the measurements of Table 3.

Regenerates a set's clips, checks that they are the clips that were scored, runs the shipped routers on them, reads the
stored scores of all candidates, and records how good every choice is (`evatok.evaluation.router_quality`).

Legend: N clips, K temporal blocks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evatok.assignments import reward
from evatok.data.clips import ClipSet
from evatok.evaluation import router_quality
from evatok.routing.trained_router import Router
from evatok.search import candidate_table, tree
from evatok.storage import checkpoints, environment, records
from evatok.storage.records import Metric, Record
from evatok.tokenizers.evatok import AdaptiveTokenizer

SETS = {
    "validation": "freedoom-validation",
    "test": "freedoom-test",
    "unseen": "arcade-validation",
    "seen_games": "arcade-seen-validation",
    "held_out_games": "arcade-held-out-validation",
}
"""Rows and the candidate tables behind them. Of the games the proxy saw all (`unseen`, older tables), those of its own
training set, or none; no router saw any."""
ROUTERS = {"router": "hard", "router_soft": "soft", "pyramid_router": "pyramid", "feature_router": "features"}
"""Rows and the kinds of router behind them."""
# Logits differ in the last bits between processors, which can turn a near tie.
TOLERANCE = 0.5


@dataclass(frozen=True)
class Shelf:
    """Where a Table 3 finds its inputs and leaves its outputs: a folder of results, at one size of the networks."""

    root: Path
    size: str

    def router(self, kind: str, point: str) -> Path:
        return self.root / "checkpoints" / f"router-{self.size}-{kind}-{point}.safetensors"

    @cached_property
    def proxy(self) -> Path:
        """The tokenizer whose scores the routers learned from, found by its hash.

        Raises:
            CheckpointError: none of the proxies there is it.
        """
        wanted = Router.load(self.router("hard", "matched")).checkpoint.parents["tokenizer"]
        found = sorted((self.root / "checkpoints").glob(f"proxy-{self.size}*.safetensors"))
        for path in found:
            if checkpoints.load(path, "tokenizer").sha256 == wanted:
                return path
        raise checkpoints.CheckpointError(
            f"{self.root / 'checkpoints'}: none of {len(found)} proxies is the one the routers learned from "
            f"(sha256 {wanted[:12]}); fetch it, or run stages 1 to 3 again"
        )

    def candidates(self, name: str) -> Path:
        return self.root / "tables" / "candidates" / f"{name}.parquet"

    def trained(self, row: str = "router", point: str = "matched") -> Router:
        """The router behind a row at an operating point."""
        return Router.load(self.router(ROUTERS[row], point))

    @property
    def sets(self) -> dict[str, str]:
        """The sets of SETS that were scored, with their tables; `validation` always, as its table ships."""
        return {row: name for row, name in SETS.items() if self.candidates(name).exists() or row == "validation"}


@dataclass(frozen=True)
class Scored:
    """A set's clips with their candidate table: what every row of one set is computed from.

    `losses` (N, K) are those of the proxy's blocks at full length.
    """

    clips: ClipSet
    table: candidate_table.CandidateTable
    losses: np.ndarray


def scored_sets(shelf: Shelf, workers: int) -> dict[str, Scored | None]:
    """Every set on the shelf, by row; None where its clips cannot be made here."""
    missing = [row for row in SETS if row not in shelf.sets]
    if missing:
        print(f"left out, as never scored (reproductions/embedded.sh does): {', '.join(missing)}", file=sys.stderr)
    return {row: scored_set(shelf, name, workers) for row, name in shelf.sets.items()}


def record_of(shelf: Shelf, row: str, point: str, scored: Scored | None) -> Record | None:
    """The record of one set at one operating point: measured, or the newest stored one where that cannot be done."""
    return stored_record(shelf, row, point) if scored is None else measured_record(shelf, row, point, scored)


def scored_set(shelf: Shelf, name: str, workers: int) -> Scored | None:
    """The clips of a candidate table, made anew and checked; None where they cannot be made here.

    Clips that differ from the scored ones (made by another version of their package) are scored anew.
    Raises CurationError for a table that is not the one the routers were chosen on.
    """
    table = candidate_table.read(shelf.candidates(name))
    known = shelf.trained().checkpoint.parents.get("validation_table")
    if name == SETS["validation"] and known not in (None, table.sha256):
        raise candidate_table.CurationError(
            f"{shelf.candidates(name)}: not the table that the routers name as theirs (sha256 {known[:12]}, this one "
            f"{table.sha256[:12]}); fetch it again, or run stage2_curation and stage3_router again"
        )
    candidate_table.check_named(shelf.candidates(name), table, shelf.root / "records")
    data, shape = table.origin["data"], shelf.trained().config
    try:
        clips = candidate_table.clips_again(table, size=shape.size, frames=shape.frames, workers=workers)
    except ImportError as error:
        print(f"{name}: {error}; its rows are read from the record of an earlier run", file=sys.stderr)
        return None
    if clips.sha256 == data["sha256"]:
        print(f"{name}: {len(clips)} clips made, hash as recorded ({clips.sha256[:12]})", file=sys.stderr)
        return Scored(clips, table, losses_of(shelf, clips))
    print(
        f"{name}: these clips (sha256 {clips.sha256[:12]}, made with {clips.manifest['versions']}) are not the ones "
        f"that were scored ({data['sha256'][:12]}, {data['versions']}); scoring them anew, some seconds per clip",
        file=sys.stderr,
    )
    return Scored(clips, rescored(shelf, clips, table), losses_of(shelf, clips))


def losses_of(shelf: Shelf, clips: ClipSet) -> np.ndarray:
    """(N, K) losses of the proxy's blocks at full length."""
    return router_quality.full_length_losses(AdaptiveTokenizer.load(shelf.proxy)[0], clips.clips)


def rescored(shelf: Shelf, clips: ClipSet, table: candidate_table.CandidateTable) -> candidate_table.CandidateTable:
    """A candidate table of clips that no stored table fits, by the shipped proxy."""
    tokenizer, checkpoint = AdaptiveTokenizer.load(shelf.proxy)
    scores = tree.score_set(tokenizer, clips.clips)
    data = {**table.origin["data"], "sha256": clips.sha256, "versions": clips.manifest["versions"]}
    origin = {**table.origin, "tokenizer": checkpoint.sha256, "data": data}
    return candidate_table.CandidateTable(np.arange(len(clips)), scores, origin)


def measured_record(shelf: Shelf, row: str, point: str, scored: Scored) -> Record:
    """All choices on one set at one point; the record of an earlier run where it says the same, else a new one.

    Raises:
        RoutingError: a router learned from the scores of another tokenizer.
    """
    routers = {name: shelf.trained(name, point) for name in ROUTERS}
    for router in routers.values():
        router.check_scored_by(scored.table.origin["tokenizer"])
    metrics, spent = measured(routers, scored)
    at = routers["router"].point
    protocol = {
        "item": "table3",
        "set": row,
        "point": point,
        "w_q": at.w_q,
        "metric": at.metric,
        "data": scored.table.origin["data"],
        "clips": len(scored.clips),
        "table": scored.table.sha256,
    }
    model = {"routers": {name: router.checkpoint.sha256 for name, router in routers.items()}, **spent}
    for earlier in reversed(records.query(shelf.root / "records", kind="table3", item="table3", set=row, point=point)):
        same_routers = earlier.model["routers"] == model["routers"]
        if earlier.protocol == protocol and same_routers and agrees(earlier, metrics):
            return earlier
    record = records.new_record(
        kind="table3",
        status=shelf.size,
        protocol=protocol,
        model=model,
        metrics=metrics,
        config={},
        environment=environment.environment(),
    )
    return records.read(records.write(record, shelf.root / "records"))


def measured(routers: dict[str, Router], scored: Scored) -> tuple[dict[str, Metric], dict[str, Any]]:
    """How good the choices of routers and of everything simpler are under the routers' reward, and what they spend."""
    point, candidates = routers["router"].point, scored.table.candidates
    rewards = reward.proxy_reward(scored.table.quality(point.metric), candidates, point.scale, point.w_q)
    rankings = {name: router.ranking(scored.clips.clips) for name, router in routers.items()}
    simple = router_quality.simple_choices(rewards, candidates, scored.losses)
    choices = {**simple, **{name: ranks[:, 0] for name, ranks in rankings.items()}}
    metrics = router_quality.choice_metrics(rewards, simple, rankings)
    return metrics, router_quality.spending(rewards, candidates, choices)


def agrees(earlier: Record, metrics: dict[str, Metric]) -> bool:
    """Whether a record holds the same values, up to near ties."""
    if earlier.metrics.keys() != metrics.keys():
        return False
    return all(abs(earlier.metrics[name].value - metric.value) <= TOLERANCE for name, metric in metrics.items())


def stored_record(shelf: Shelf, row: str, point: str) -> Record | None:
    """The newest record of a set under the routers on the shelf; None: there is none."""
    routers = {name: shelf.trained(name, point).checkpoint.sha256 for name in ROUTERS}
    found = records.query(shelf.root / "records", kind="table3", item="table3", set=row, point=point)
    return next((record for record in reversed(found) if record.model["routers"] == routers), None)
