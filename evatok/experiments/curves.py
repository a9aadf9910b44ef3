"""Quality against mean tokens on the proxy (main Figs. 4 and 5): uniform rows, best rewards, routers, thresholds.

The clips are those of a candidate table, which also says what is best for each of them. Every (clip, assignment) that
some point asks for is reconstructed and measured once; a killed run resumes, and points added later cost only what is
new in them.

    python -m evatok.experiments.curves with toy
    python -m evatok.experiments.curves with embedded
    python -m evatok.experiments.curves with embedded table=results/tables/candidates/arcade-seen-validation.parquet
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evatok.assignments.candidates import CandidateSet
from evatok.assignments.reward import Scale
from evatok.data.clips import ClipSet
from evatok.errors import EvatokError
from evatok.evaluation import operating_points, tradeoff
from evatok.evaluation.operating_points import Pairs, Point
from evatok.evaluation.pairs import Networks, PairRunner
from evatok.evaluation.tradeoff import Draws
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import set_threads
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.routing.trained_router import Router
from evatok.search import candidate_table
from evatok.storage import records
from evatok.storage.shards import Arrays, ShardStore
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig

ex = tracking.experiment("curves", __doc__, keys.RUN)

# The table was scored in another precision and without rounding to 8 bits; another proxy differs by far more.
TOLERANCE = 0.02  # dB between mean PSNRs


@ex.config
def config() -> None:
    checkpoint = "results/checkpoints/proxy-toy-motion.safetensors"
    table = "results/tables/candidates/freedoom-validation.parquet"
    routers = "results/checkpoints/router-toy-*-matched.safetensors,results/checkpoints/router-toy-*-wq*.safetensors"
    weights = [0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]  # [Fig. 4]
    thresholds = 10  # their number is not stated
    metric = "l1"  # as in the routers (paper: LPIPS)
    metrics = "psnr,l1,st_lpips_alex,rfvd"  # psnr, ssim, l1, mse, st_lpips_alex, lpips_vgg, rfvd
    limit = 0
    draws = 200
    batch = 16
    shard_length = 64
    bf16 = False
    i3d_bf16 = False
    fps = None  # as in stage 2
    work = "results/work/curves"
    seed = 0  # of the bootstrap


@ex.named_config
def toy() -> None:
    limit = 8
    weights = [0.4, 1.2, 1.616, 2.0]
    thresholds = 3
    metrics = "psnr,l1"


@ex.named_config
def embedded() -> None:
    # A small proxy stops gaining from tokens early: part of what the paper has between 1.2 and 2.0 lies above 1.6 here.
    weights = [0.4, 0.8, 1.2, 1.4, 1.6, 1.8, 1.9, 1.95, 1.98, 2.0]
    thresholds = 6
    metrics = "psnr,l1,rfvd"
    i3d_bf16 = True


class CurvesError(EvatokError, ValueError):
    """A table, clips, a proxy and routers that do not belong together."""


@tracking.main(ex, Outputs(folders=("work", "records_folder")))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    names = [name.strip() for name in config["metrics"].split(",") if name.strip()]
    networks = Networks.load(names, config["device"], config["i3d_bf16"])
    study = Study.read(config)
    if len(study.clips) < 2 and "rfvd" in names:
        raise tracking.ConfigError(
            "config key limit: rfvd compares sets of at least 2 clips; raise limit, or leave rfvd out"
        )
    bench = study.bench(networks, config)
    measured = bench.measure_all(ShardStore(Path(config["work"])))
    difference = check_agreement(study.table, bench.pairs, measured.arrays)
    draws = drawn(study, bench, measured.arrays, config)
    savings = draws.savings()
    record = records.new_record(
        kind="curves",
        status=config["size"],
        protocol=study.protocol(networks, config),
        model={
            **study.model,
            "networks": networks.weights,
            "psnr_minus_table": difference,
            "savings": savings,
            "leads": draws.leads(),
            "gaps": draws.gaps(),
            "run": tracker.run_id,
        },
        metrics={**draws.point_metrics(), **tradeoff.saving_metrics(savings, len(study.clips))},
        config=config,
        environment=tracker.environment(),
    )
    tracker.info({"resumed_pairs": measured.resumed, "damaged_shards": measured.damaged})
    written = tracker.record(record)
    return {
        "record": written,
        "clips": len(study.clips),
        "points": [point.name for point in study.points],
        "pairs": len(bench.pairs),
        "resumed": measured.resumed,
        "savings": savings,
    }


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
        """Load everything the configuration names, and check that it belongs together.

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
        """The point of the fixed-length baseline, which savings are counted against."""
        return self.candidates.levels.index(self.candidates.baseline)

    def bench(self, networks: Networks, config: dict[str, Any]) -> PairRunner:
        """The bench that measures every pair of the points."""
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
        """A record's entry `protocol`."""
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
    """The first `limit` of the clips that a table scores."""
    clips = candidate_table.scored_clips(table, size=shape.size, frames=shape.frames, fps=config["fps"])
    if not 0 <= config["limit"] <= len(clips):
        raise tracking.ConfigError(
            f"config key limit: {config['limit']} exceeds the {len(clips)} clips of the table; 0 measures all"
        )
    return clips.head(config["limit"] or len(clips))


def found_files(patterns: str) -> list[Path]:
    """The files of comma-separated paths or patterns, in order. Raises ConfigError for a pattern without any."""
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
    """The scale all routers were trained on; without routers, that of the measured clips.

    Raises:
        CurvesError: routers for another quality than the configured one, or of different scales.
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
    """Uniform points first, shortest first; then rewards, routers, thresholds."""
    quality, candidates = table.quality(config["metric"]), table.candidates
    return [
        *operating_points.uniform_points(candidates, len(clips)),
        *operating_points.reward_points(quality, candidates, scale, config["weights"]),
        *operating_points.router_points(routers, clips.clips),
        *operating_points.threshold_points(quality, candidates, config["thresholds"]),
    ]


def check_agreement(table: candidate_table.CandidateTable, pairs: Pairs, measured: Arrays) -> float | None:
    """Difference in dB of the pairs' mean PSNR, if measured, from the table's, which should be close to 0.

    Raises:
        CurvesError: the difference is larger, as the code that reconstructs has changed.
    """
    if "psnr" not in measured or "psnr" not in table.scores:
        return None
    scored = table.scores["psnr"][pairs.clips, pairs.candidates]
    difference = float(measured["psnr"].mean() - scored.mean())
    if not abs(difference) <= TOLERANCE:
        raise CurvesError(
            f"the candidate table differs by {-difference:+.3f} dB from what is measured now, {TOLERANCE} dB are "
            "allowed: "
            "it was scored by another proxy or by other code; run stage2_curation again"
        )
    return difference


def drawn(study: Study, bench: PairRunner, measured: Arrays, config: dict[str, Any]) -> Draws:
    """Means of the per-clip metrics and Frechet distances of every point, all over the same draws of clips."""
    positions, where = tradeoff.draws(len(study.clips), config["draws"], config["seed"]), bench.pairs.where
    tokens = np.stack([point.tokens for point in study.points])
    values = {"tokens": tradeoff.means_of_draws(tokens, positions)}
    for name in bench.networks.per_clip:
        values[name] = tradeoff.means_of_draws(measured[name][where], positions)
    if "features" in measured:
        real, fake = bench.real_features().astype(np.float64), measured["features"].astype(np.float64)[where]
        with tqdm(total=len(positions), desc="rfvd", unit="draw", disable=None) as bar:
            values["rfvd"] = tradeoff.distances_of_draws(
                real, fake, positions, frechet_distance_of_features, bar.update
            )
    return Draws([point.name for point in study.points], study.reference, len(study.clips), values)


if __name__ == "__main__":
    tracking.command_line(ex)
