"""Routers against simpler baselines, on sets with stored candidate tables: the measurements of Table 3.

Regenerates a set's clips, checks that they are the clips that were scored, runs the shipped routers on them, reads the
stored scores of all candidates, and records the quality of every choice (`evatok.evaluation.router_quality`).

Legend: N clips, K temporal blocks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evatok.assignments import reward
from evatok.data.clips import ClipSet
from evatok.evaluation import router_quality
from evatok.evaluation.full_length import full_length_losses
from evatok.metrics.perceptual import scoring_metric
from evatok.routing.rankings import Rankings
from evatok.routing.trained_router import OperatingPoint, Router
from evatok.search import candidate_table, tree
from evatok.storage import checkpoints, environment, records
from evatok.storage.records import Metric, Record
from evatok.storage.shards import ShardStore
from evatok.tokenizers.evatok import AdaptiveTokenizer

SETS = {
    "validation": "freedoom-validation",
    "test": "freedoom-test",
    "unseen": "arcade-seen-validation",
    "unseen_by_proxy": "arcade-held-out-validation",
}
"""Rows and their candidate tables. No router was trained on games; the proxy was trained on those of `unseen`, as the
paper's was on UCF-101, and on none of `unseen_by_proxy`."""
ROUTERS = {"router": "hard", "router_soft": "soft", "pyramid_router": "pyramid", "feature_router": "features"}
"""Rows and their kinds of router."""
# Logits differ in the last bits between processors, which can flip a near tie.
TOLERANCE = 0.5


@dataclass(frozen=True)
class Comparison:
    """Routers trained for one reward, each under its row's name; their reward judges every choice.

    Attributes:
        name: the reward's, in records.
        point: the reward.
        scale_from: whose scores scale the reward, if not those the routers were trained on.
    """

    name: str
    point: OperatingPoint
    routers: Mapping[str, Router]
    scale_from: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """Return what a record's protocol says about the reward."""
        scaled = {"scale_from": self.scale_from} if self.scale_from else {}
        return {"point": self.name, "w_q": self.point.w_q, "metric": self.point.metric, **scaled}

    @property
    def sha256(self) -> dict[str, str]:
        """Return the routers' hashes, by row."""
        return {name: router.checkpoint.sha256 for name, router in self.routers.items()}

    def check_scored_by(self, tokenizer: str) -> None:
        """Raise RoutingError for a router that was trained on the scores of another tokenizer (sha256)."""
        for router in self.routers.values():
            router.check_scored_by(tokenizer)


@dataclass(frozen=True)
class Shelf:
    """Paths of Table 3's inputs and outputs: folders of results and networks, for one network size."""

    root: Path
    size: str
    checkpoints: Path

    def router(self, kind: str, point: str) -> Path:
        return self.checkpoints / f"router-{self.size}-{kind}-{point}.safetensors"

    @cached_property
    def proxy(self) -> Path:
        """Return the tokenizer on whose scores the routers were trained, found by its hash.

        Raises:
            CheckpointError: the folder holds no such proxy.
        """
        sha256 = Router.load(self.router("hard", "matched")).checkpoint.parents["tokenizer"]
        proxies = sorted(self.checkpoints.glob(f"proxy-{self.size}*.safetensors"))
        for path in proxies:
            if checkpoints.load(path, "tokenizer").sha256 == sha256:
                return path
        raise checkpoints.CheckpointError(
            f"{self.checkpoints}: none of {len(proxies)} proxies is the one the routers were trained on "
            f"(sha256 {sha256[:12]}); fetch it, or run stages 1 to 3 again"
        )

    def candidates(self, name: str) -> Path:
        return self.root / "tables" / "candidates" / f"{name}.parquet"

    def trained(self, row: str = "router", point: str = "matched") -> Router:
        """Load the router of a row at an operating point."""
        return Router.load(self.router(ROUTERS[row], point))

    def comparison(self, point: str) -> Comparison:
        """Return the shipped routers of all rows at an operating point."""
        routers = {row: self.trained(row, point) for row in ROUTERS}
        return Comparison(point, routers["router"].point, routers)

    @property
    def sets(self) -> dict[str, str]:
        """Load the scored sets of SETS with their tables; always includes `validation`, whose table ships."""
        return {row: name for row, name in SETS.items() if self.candidates(name).exists() or row == "validation"}


@dataclass(frozen=True)
class Scored:
    """A set's clips with their candidate table, from which every row of the set is computed.

    Attributes:
        proxy: the tokenizer that scored them.
        store: caches network outputs on the clips.
    """

    clips: ClipSet
    table: candidate_table.CandidateTable
    proxy: AdaptiveTokenizer
    store: ShardStore

    @cached_property
    def rankings(self) -> Rankings:
        """Return rankings of the clips by routers, each computed once."""
        return Rankings(self.clips.clips, self.store)

    @cached_property
    def losses(self) -> np.ndarray:
        """(N, K) losses of the proxy's blocks at full length."""
        return full_length_losses(self.proxy, self.clips.clips, self.store)

    def rewards(self, point: OperatingPoint) -> np.ndarray:
        """(N, A) proxy rewards of all candidates."""
        return reward.proxy_reward(self.table.quality(point.metric), self.table.candidates, point.scale, point.w_q)


def scored_sets(shelf: Shelf, workers: int) -> dict[str, Scored | None]:
    """Load every set on the shelf, by row; None if its clips cannot be generated here."""
    missing = [row for row in SETS if row not in shelf.sets]
    if missing:
        print(f"left out, as never scored (reproductions/embedded.sh does): {', '.join(missing)}", file=sys.stderr)
    return {row: scored_set(shelf, name, workers) for row, name in shelf.sets.items()}


def record_of(shelf: Shelf, row: str, comparison: Comparison, scored: Scored | None) -> Record | None:
    """Return the record of a set by one reward: measured, or if that is impossible the newest stored one."""
    if scored is None:
        return stored_record(shelf, row, comparison)
    return measured_record(shelf, row, comparison, scored)


def scored_set(shelf: Shelf, name: str, workers: int) -> Scored | None:
    """Regenerate and check the clips of a candidate table; None if they cannot be generated here.

    Clips that differ from the scored ones (generated by another version of their package) are scored again.
    Raises CurationError for a table that is not the one on which the routers were chosen.
    """
    table = candidate_table.read(shelf.candidates(name))
    known = shelf.trained().checkpoint.parents.get("validation_table")
    if name == SETS["validation"] and known not in (None, table.sha256):
        raise candidate_table.CurationError(
            f"{shelf.candidates(name)}: not the table that the routers were validated on (sha256 {known[:12]}, "
            "this one "
            f"{table.sha256[:12]}); fetch it again, or run stage2_curation and stage3_router again"
        )
    candidate_table.check_named(shelf.candidates(name), table, shelf.root / "records")
    data, shape = table.origin["data"], shelf.trained().config
    try:
        clips = candidate_table.clips_again(table, size=shape.size, frames=shape.frames, workers=workers)
    except ImportError as error:
        print(f"{name}: {error}; its rows are read from the record of an earlier run", file=sys.stderr)
        return None
    tokenizer, store = AdaptiveTokenizer.load(shelf.proxy), ShardStore(shelf.root / "work" / "table3")
    if clips.sha256 == data["sha256"]:
        print(f"{name}: {len(clips)} clips regenerated, hash as recorded ({clips.sha256[:12]})", file=sys.stderr)
        return Scored(clips, table, tokenizer, store)
    print(
        f"{name}: these clips (sha256 {clips.sha256[:12]}, made with {clips.manifest['versions']}) are not the ones "
        f"that were scored ({data['sha256'][:12]}, {data['versions']}); scoring them again, some seconds per clip",
        file=sys.stderr,
    )
    return Scored(clips, rescored(tokenizer, clips, table), tokenizer, store)


def rescored(
    tokenizer: AdaptiveTokenizer, clips: ClipSet, table: candidate_table.CandidateTable
) -> candidate_table.CandidateTable:
    """Score clips for which no stored table is valid, as the table was scored."""
    name, frames = table.origin["perceptual"], table.origin.get("perceptual_frames", 0)
    bf16 = table.origin.get("precision") == "bf16"
    perceptual = scoring_metric(name, frames, bf16=bf16)
    scores = tree.score_set(tokenizer, clips.clips, bf16=bf16, perceptual=perceptual, name=name)
    data = {**table.origin["data"], "sha256": clips.sha256, "versions": clips.manifest["versions"]}
    origin = {**table.origin, "tokenizer": tokenizer.checkpoint.sha256, "data": data}
    return candidate_table.CandidateTable(np.arange(len(clips)), scores, origin)


def measured_record(shelf: Shelf, row: str, comparison: Comparison, scored: Scored) -> Record:
    """Measure all choices on a set by one reward; return the record of an earlier run if it agrees, else a new one.

    Raises:
        RoutingError: a router was trained on the scores of another tokenizer.
    """
    comparison.check_scored_by(scored.table.origin["tokenizer"])
    metrics, spent = measured(comparison, scored)
    protocol = {
        "item": "table3",
        "set": row,
        **comparison.told,
        "data": scored.table.origin["data"],
        "clips": len(scored.clips),
        "table": scored.table.sha256,
    }
    record = records.new_record(
        kind="table3",
        status=shelf.size,
        protocol=protocol,
        model={"routers": comparison.sha256, **spent},
        metrics=metrics,
        config={},
        environment=environment.environment(),
    )
    for earlier in _stored(shelf, row, comparison):
        if earlier.protocol == record.protocol and agrees(earlier, metrics):
            return earlier
    return records.read(records.write(record, shelf.root / "records"))


def measured(comparison: Comparison, scored: Scored) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Return the quality of routers' and baselines' choices under the routers' reward, and the tokens they spend."""
    rewards, candidates = scored.rewards(comparison.point), scored.table.candidates
    rankings = {name: scored.rankings.by(router) for name, router in comparison.routers.items()}
    simple = router_quality.simple_choices(rewards, candidates, scored.losses)
    choices = {**simple, **{name: ranks[:, 0] for name, ranks in rankings.items()}}
    metrics = router_quality.choice_metrics(rewards, simple, rankings)
    return metrics, router_quality.spending(rewards, candidates, choices)


def agrees(earlier: Record, metrics: dict[str, Metric]) -> bool:
    """Whether a record has the same values, up to near ties."""
    if earlier.metrics.keys() != metrics.keys():
        return False
    return all(abs(earlier.metrics[name].value - metric.value) <= TOLERANCE for name, metric in metrics.items())


def stored_record(shelf: Shelf, row: str, comparison: Comparison) -> Record | None:
    """Return the newest record of a set with these routers, or None."""
    return next(_stored(shelf, row, comparison), None)


def _stored(shelf: Shelf, row: str, comparison: Comparison) -> Iterator[Record]:
    """Return the records of a set with these routers, newest first."""
    of_set: dict[str, Any] = {"kind": "table3", "item": "table3", "set": row, "point": comparison.name}
    found = records.query(shelf.root / "records", **of_set)
    return (record for record in reversed(found) if record.model["routers"] == comparison.sha256)
