"""What the curves are measured on: clips, proxy, routers, and every rule's points, from a configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale
from evatok.data.clips import ClipSet
from evatok.errors import EvatokError
from evatok.evaluation import operating_points
from evatok.evaluation.operating_points import Pairs, Point
from evatok.evaluation.pairs import Networks, PairRunner
from evatok.experiments import tracking
from evatok.routing.trained_router import Router
from evatok.search import candidate_table
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig


class CurvesError(EvatokError, ValueError):
    """A table, clips, a proxy and routers that do not belong together."""


@dataclass(frozen=True)
class Study:
    """The clips, the proxy, and the points to measure."""

    table: candidate_table.CandidateTable
    clips: ClipSet
    tokenizer: AdaptiveTokenizer
    routers: list[Router]
    scale: Scale
    points: list[Point]

    @classmethod
    def read(cls, config: dict[str, Any]) -> Study:
        """Load everything the configuration names and check that it fits together.

        Raises:
            CheckpointError, CurationError: files that are missing or damaged, clips other than those scored.
            CurvesError, RoutingError: a table scored by another proxy, routers of another reward or tokenizer.
        """
        table = candidate_table.read(Path(config["table"]))
        candidate_table.check_named(Path(config["table"]), table, config["records_folder"])
        tokenizer = AdaptiveTokenizer.load(config["checkpoint"], config["device"])
        checkpoint = tokenizer.checkpoint
        if table.origin["tokenizer"] != checkpoint.sha256:
            raise CurvesError(
                f"{config['table']} was scored by the proxy {table.origin['tokenizer'][:12]}, {config['checkpoint']} "
                f"is {checkpoint.sha256[:12]}: give the proxy that scored it, or run stage2_curation again"
            )
        if table.candidates != tokenizer.config.candidates:
            mine = tokenizer.config.candidates
            raise CurvesError(f"{config['table']} scores {table.candidates}, the proxy of that hash has {mine}")
        clips = measured_clips(table, tokenizer.config, config)
        table = table.take(np.arange(len(clips)))
        routers = [Router.load(path) for path in found_files(config["routers"])]
        for router in routers:
            router.check_fits(tokenizer.config)
            router.check_scored_by(checkpoint.sha256)
        scale = common_scale(routers, table, config["metric"])
        every = all_points(table, clips, routers, scale, config)
        return cls(table, clips, tokenizer, routers, scale, every)

    @property
    def candidates(self) -> CandidateSet:
        return self.table.candidates

    @property
    def reference(self) -> int:
        """Return the point of the fixed-length baseline, the reference for savings."""
        return self.candidates.levels.index(self.candidates.baseline)

    def bench(self, networks: Networks, config: dict[str, Any]) -> PairRunner:
        """Build the runner that measures every pair of the points."""
        return PairRunner(
            self.tokenizer,
            {"system": "adaptive tokenizer", "sha256": self.tokenizer.checkpoint.sha256},
            self.clips.clips,
            Pairs.of(self.points, self.candidates),
            networks,
            batch=config["batch"],
            shard_length=config["shard_length"],
            bf16=config["bf16"],
            device=config["device"],
        )

    def protocol(self, networks: Networks, config: dict[str, Any]) -> dict[str, Any]:
        """Return the record's entry `protocol`."""
        data = self.table.origin["data"]
        return {
            "item": "curves",
            "set": data["name"],
            "split": data["split"],
            "clips": len(self.clips),
            "limit": config["limit"] or None,
            "data": {**data, "clips": len(self.clips), "sha256": self.clips.sha256},
            "table": self.table.sha256,
            "metrics": list(networks.metrics),
            "i3d_precision": networks.i3d_precision,
            "rounding": True,
            "quality": config["metric"],
            "scale": asdict(self.scale),
            "scale_from": "the routers' training clips" if self.routers else "the measured clips",
            "reference": self.points[self.reference].name,
            "draws": config["draws"],
        }

    @property
    def model(self) -> dict[str, Any]:
        return {
            "sha256": self.tokenizer.checkpoint.sha256,
            "parents": self.tokenizer.checkpoint.parents,
            "parameters": sum(p.numel() for p in self.tokenizer.parameters()),
            "levels": list(self.candidates.levels),
            "routers": {operating_points.router_name(router): router.checkpoint.sha256 for router in self.routers},
        }


def measured_clips(table: candidate_table.CandidateTable, shape: TokenizerConfig, config: dict[str, Any]) -> ClipSet:
    """Return the first `limit` clips of those a table scores."""
    clips = candidate_table.scored_clips(table, size=shape.size, frames=shape.frames, fps=config["fps"])
    if not 0 <= config["limit"] <= len(clips):
        raise tracking.ConfigError(
            f"config key limit: {config['limit']} exceeds the {len(clips)} clips of the table; 0 measures all"
        )
    return clips.head(config["limit"] or len(clips))


def found_files(patterns: str) -> list[Path]:
    """List the files of comma-separated paths or patterns. Raises ConfigError for a pattern without a match."""
    files: list[Path] = []
    for pattern in (part.strip() for part in patterns.split(",") if part.strip()):
        path = Path(pattern)
        matching = sorted(path.parent.glob(path.name))
        if not matching:
            raise tracking.ConfigError(
                f"config key routers: no file matches {pattern}; leave it empty to measure no router"
            )
        files += [file for file in matching if file not in files]
    return files


def common_scale(routers: list[Router], table: candidate_table.CandidateTable, metric: str) -> Scale:
    """Return the scale all routers were trained on; without routers, that of the measured clips.

    Raises:
        CurvesError: routers for a quality other than the configured one, or with different scales.
    """
    if not routers:
        return Scale.of(table.quality(metric), table.candidates)
    for router in routers:
        name = operating_points.router_name(router)
        if router.point.metric != metric:
            raise CurvesError(f"{name} was trained for quality {router.point.metric}: set metric={router.point.metric}")
        if router.point.scale != routers[0].point.scale:
            raise CurvesError(f"{name} was trained with another reward scale than the first router: leave it out")
    return routers[0].point.scale


def all_points(
    table: candidate_table.CandidateTable, clips: ClipSet, routers: list[Router], scale: Scale, config: dict[str, Any]
) -> list[Point]:
    """List uniform points first, shortest first; then rewards, routers, thresholds."""
    quality, candidates = table.quality(config["metric"]), table.candidates
    return [
        *operating_points.uniform_points(candidates, len(clips)),
        *operating_points.reward_points(quality, candidates, scale, config["weights"]),
        *operating_points.router_points(routers, clips.clips),
        *operating_points.threshold_points(quality, candidates, config["thresholds"]),
    ]
