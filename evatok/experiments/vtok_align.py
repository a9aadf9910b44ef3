"""Generate clips from captions with VTok's writer and decoder, let a judge answer questions about them, and score.

Each caption of the protocol becomes tokens (written, those of the real clip, or none), which the frozen decoder turns
into a clip. The ruler, or a learned judge, answers the questions; besides accuracy the record holds how many samples
move, how smoothly and, on request, gFVD and the agreement with a second judge. A killed run resumes.

    python -m evatok.experiments.vtok_align with toy                        the tokens of vtok_generation's default
    python -m evatok.experiments.vtok_align with toy writer= tokens=none    no visual tokens: captions alone
    python -m evatok.experiments.vtok_align with toy writer= tokens=true said=False    the ceiling: true tokens
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evatok.alignment import triples
from evatok.alignment.judge import Judge, judge_of
from evatok.alignment.triples import Triples
from evatok.data.clips import ClipSet
from evatok.evaluation import per_clip, protocols
from evatok.evaluation.networks import load_networks
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import optional_artifact, set_threads
from evatok.experiments.vtok_samples import Sampler
from evatok.experiments.vtok_understanding import question_protocol
from evatok.metrics import catalogue, dynamics
from evatok.metrics.features import clip_features
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.storage import records
from evatok.storage.files import replacing
from evatok.storage.records import Metric
from evatok.storage.shards import Arrays, ShardStore
from evatok.vtok.scoring import AVERAGE, Outcomes

ex = tracking.experiment("vtok_align", __doc__, keys.RUN)

FAST, SMOOTH = "fast", "smooth"
"""Extra arrays in a file of outcomes: (N,) samples faster than the median real clip, and (N,) their smoothness."""


@ex.config
def config() -> None:
    encoder = "results/checkpoints/vtok-image-encoder-toy.safetensors"
    decoder = "results/work/vtok/decoder/decoder.safetensors"
    writer = "results/work/vtok/generation/writer.safetensors"
    tokens = "none"
    strategy = "vtok"  # for true tokens
    key = 16
    fps = 6
    frames_sampled = 4
    said = True
    protocol = "moving-shapes-align"
    limit = 0
    judge = "ruler"  # paper: Qwen2.5-VL
    second_judge = ""
    fvd = False
    temperature = 1.0  # not stated
    flow_steps = 20  # not stated
    flow_guidance = 1.0  # not stated
    batch = 50
    seed = 0
    show = 6
    shown = ""
    per_clip = "results/per_clip"
    work = "results/work/vtok/align"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, Outputs(folders=("work", "per_clip", "records_folder"), files=("shown",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    protocol = question_protocol(config["protocol"])
    sampler = Sampler.of(config)
    asked = triples.triples_of(protocol, config["limit"] or None)
    real = protocols.clips_of(protocol, limit=config["limit"] or None)
    clips, resumed = sampler.clips(asked, real)
    tracker.info({"resumed_samples": resumed})
    found = judged(config, asked, clips, real)
    if config["shown"]:
        _show(Path(config["shown"]), clips[: config["show"]], asked)
    count = config["limit"] or protocol.clips
    record = records.new_record(
        kind="vtok_align",
        status=config["size"],
        protocol=protocol.to_record(asked.manifest, len(asked), config["limit"] or None),
        model={**sampler.told(), "judge": found.judge, "run": tracker.run_id},
        metrics={**found.metrics, "tokens": catalogue.of("mean_tokens").measured(sampler.length, len(asked))},
        config=config,
        environment=tracker.environment(),
        artifacts=found.kept(config),
    )
    told = {name: round(metric.value, 2) for name, metric in found.metrics.items()}
    return {"record": tracker.record(record), "samples": count, "resumed": resumed, **told}


@dataclass(frozen=True)
class Judged:
    """Answers about samples, scored."""

    outcomes: Outcomes
    metrics: dict[str, Metric]
    judge: dict[str, str]
    arrays: Arrays

    def kept(self, config: dict[str, Any]) -> dict[str, records.Artifact]:
        """Return the file of every question's outcome, unless the configuration wants none."""
        if not config["per_clip"]:
            return {}
        arrays = {**self.outcomes.arrays(), **self.arrays}
        kept = per_clip.write(arrays, Path(config["per_clip"]), per_clip.MEASURED)
        return optional_artifact(per_clip.MEASURED, kept)


def judged(config: dict[str, Any], asked: Triples, clips: np.ndarray, real: ClipSet) -> Judged:
    """Score samples: the judge's answers, how they move, and what else the configuration asks for."""
    judge = judge_of(config["judge"], Path(config["encoder"]), config["device"])
    given = judge.answers(clips, asked.texts)
    outcomes = Outcomes(*triples.right(asked, given))
    true = np.asarray(real.clips)
    arrays = {FAST: dynamics.dynamic_degree(clips, true), SMOOTH: dynamics.smoothness(clips)}
    metrics = {
        **outcomes.metrics(),
        "dynamic_degree": _percent("dynamic_degree", arrays[FAST]),
        "smoothness": _percent("smoothness", arrays[SMOOTH]),
    }
    told = {"name": judge.name, "version": judge.version}
    if config["second_judge"]:
        second = judge_of(config["second_judge"], Path(config["encoder"]), config["device"])
        metrics |= _agreement(second, asked, clips, given)
        real_right = Outcomes(*triples.right(asked, second.answers(true, asked.texts))).metrics()[AVERAGE]
        metrics["second_accuracy"] = catalogue.of("second_accuracy").measured(real_right.value, real_right.n)
        told["second"] = second.version
    if config["fvd"]:
        metrics["gfvd"] = _gfvd(clips, true, config["device"])
    return Judged(outcomes, metrics, told, arrays)


def _percent(name: str, values: np.ndarray) -> Metric:
    return catalogue.of(name).measured(100 * float(values.mean()), len(values))


def _agreement(second: Judge, asked: Triples, clips: np.ndarray, given: list[list[str]]) -> dict[str, Metric]:
    """Return how often a second judge agrees with the first, over the questions the first one answers, if any."""
    theirs = second.answers(clips, asked.texts)
    pairs = [
        (one, other)
        for ours, them in zip(given, theirs, strict=True)
        for one, other in zip(ours, them, strict=True)
        if one
    ]
    same = sum(one == other for one, other in pairs)
    return {"agreement": catalogue.of("agreement").measured(100 * same / len(pairs), len(pairs))} if pairs else {}


def _gfvd(clips: np.ndarray, real: np.ndarray, device: str) -> Metric:
    network = load_networks(("gfvd",), device, {})["i3d"]
    store = ShardStore.of_features()
    true, ours = (clip_features(network, some, store, device=device) for some in (real, clips))
    return catalogue.of("gfvd").measured(frechet_distance_of_features(true, ours), len(clips))


def _show(path: Path, clips: np.ndarray, asked: Triples) -> None:
    """Write samples with their prompts and questions, for Figure 2."""
    told = [asked.prompts[: len(clips)], asked.texts[: len(clips)]]
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, clips=clips, told=np.array(json.dumps(told)))


if __name__ == "__main__":
    tracking.command_line(ex)
