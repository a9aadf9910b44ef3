"""`evatok.experiments.curves` as a user runs it: what it measures, records, resumes and refuses."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.assignments.reward import Scale
from evatok.data import clips as clip_sets
from evatok.data.clips import to_network
from evatok.evaluation import EvaluationError, tradeoff
from evatok.evaluation.pairs import PairRunner
from evatok.experiments import curves as experiment
from evatok.experiments.curves_study import CurvesError
from evatok.experiments.tracking import ConfigError
from evatok.metrics import pixels
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.routing.networks import RouterConfig, build_router
from evatok.search import candidate_table, tree
from evatok.search.candidate_table import CurationError
from evatok.storage import checkpoints, records
from evatok.tokenizers.codes import expand_assignment
from tests.factories import saved_tokenizer

FRAMES, SIZE, COUNT = 12, 16, 5

pytestmark = pytest.mark.usefixtures("colour_features")


@pytest.fixture
def pixel_values(moving_clips) -> np.ndarray:
    return moving_clips(COUNT, frames=FRAMES, size=SIZE)


@pytest.fixture
def proxy(tmp_path, tokenizer) -> Path:
    return Path(saved_tokenizer(tmp_path / "tiny.safetensors", tokenizer))


@pytest.fixture
def table(tmp_path, tokenizer, proxy, pixel_values) -> Path:
    """A built set of clips, and its scores by the tiny tokenizer under all 27 candidates."""
    folder = tmp_path / "clips"
    facts = {"name": "gratings", "split": "validation", "seed": 0, "versions": {}}
    clip_set = clip_sets.save(folder, pixel_values, pd.DataFrame({"source": ["made"] * COUNT}), facts)
    scores = tree.score_set(tokenizer, pixel_values, bf16=False)
    data = {**facts, "source": str(folder), "clips": COUNT, "sha256": clip_set.sha256}
    origin = {
        "levels": list(tokenizer.config.levels),
        "blocks": 3,
        "tokenizer": checkpoints.load(proxy, "tokenizer").sha256,
        "data": data,
    }
    candidate_table.write(tmp_path / "table.parquet", candidate_table.CandidateTable(np.arange(COUNT), scores, origin))
    return tmp_path / "table.parquet"


@pytest.fixture
def router(tmp_path, tokenizer):
    """Writes an untrained router for a weight: (w_q, **point) -> its path."""

    def write(w_q: float, **changes: Any) -> Path:
        shape = tokenizer.config
        config = RouterConfig(
            levels=shape.levels, frames=FRAMES, size=SIZE, patch=(4, 8, 8), width=16, layers=1, heads=2
        )
        scale = dataclasses.asdict(Scale(-0.3, 0.02, 14.0, 4.3))
        facts = {"point": {"metric": "l1", "w_q": w_q, "scale": scale, **changes}, "target": "hard"}
        path = tmp_path / f"router-{w_q}.safetensors"
        checkpoints.save(path, build_router(config), kind="router", config=config.to_dict(), facts=facts)
        return path

    return write


@pytest.fixture
def run(tmp_path, proxy, table):
    """Runs the experiment: (**changes) -> its result and its record."""

    def measure(**changes: Any) -> tuple[dict[str, Any], records.Record]:
        places = {"work": str(tmp_path / "work"), "records_folder": str(tmp_path / "records")}
        inputs = {"checkpoint": str(proxy), "table": str(table), "routers": ""}
        short = {"weights": [0.4, 1.6], "thresholds": 3, "metrics": "psnr,l1,rfvd", "draws": 20, "threads": 1}
        usual = {**places, **inputs, **short, "batch": 3, "shard_length": 4}
        found = experiment.ex.run(config_updates={**usual, **changes})
        return found.result, records.read(tmp_path / "records" / f"{found.result['record']}.json")

    return measure


def test_points_hold_what_reconstructing_their_assignments_gives(run, tokenizer, pixel_values, colour_features):
    _, record = run()
    real = to_network(pixel_values)
    for level in (2, 4, 8):
        fake = tokenizer(real, expand_assignment((level,) * 3, COUNT)).clips.clamp(0, 1)
        fake = (fake * 255).round() / 255
        expected = {
            "psnr": float(pixels.psnr(real, fake).mean()),
            "l1": float(pixels.l1(real, fake).mean()),
            "rfvd": frechet_distance_of_features(colour_features(real), colour_features(fake)),
            "tokens": 3 * level,
        }
        for name, value in expected.items():
            assert record.metrics[f"uniform.{level}.{name}"].value == pytest.approx(value, rel=1e-4), name


def test_the_record_says_what_was_measured_and_how(run, router, proxy, colour_features):
    result, record = run(routers=str(router(1.2)))
    assert record.kind == "curves"
    assert record.protocol["set"] == "gratings"
    assert record.protocol["reference"] == "uniform.4"
    assert record.protocol["i3d_precision"] == "fp32"
    assert record.protocol["scale"]["quality_mean"] == -0.3
    assert record.model["sha256"] == checkpoints.load(proxy, "tokenizer").sha256
    assert record.model["routers"].keys() == {"router.1.2"}
    assert record.model["networks"] == {"i3d": colour_features.weights_sha256}
    assert {"uniform.2", "max_reward.0.4", "max_reward.1.6", "router.1.2"} <= set(result["points"])
    for point in result["points"]:
        for metric in ("tokens", "psnr", "l1", "rfvd"):
            found = record.metrics[f"{point}.{metric}"]
            assert (found.n, found.direction) == (COUNT, "higher" if metric == "psnr" else "lower")
            assert found.spread is not None
    for rule in ("max_reward", "router", "threshold"):
        assert record.model["savings"][rule].keys() == {"psnr", "l1", "rfvd"}
    lead = record.model["leads"]["max_reward.uniform"]["psnr"]
    assert lead["low"] <= lead["value"] <= lead["high"]


def test_a_saving_is_read_off_the_recorded_points(run):
    _, record = run(metrics="l1")
    values = {name: metric.value for name, metric in record.metrics.items()}
    own = [name.removesuffix(".l1") for name in values if name.startswith("max_reward") and "saving" not in name]
    own = [name for name in own if not name.endswith("tokens")]
    curve = tradeoff.Curve.through(
        np.array([values[f"{name}.tokens"] for name in own]), -np.array([values[f"{name}.l1"] for name in own])
    )
    expected = tradeoff.saving(curve, 12.0, -values["uniform.4.l1"])
    assert record.model["savings"]["max_reward"]["l1"]["value"] == pytest.approx(expected)
    assert ("max_reward.saving.l1" in values) == (expected is not None)


def test_every_pair_is_measured_once(run, monkeypatch):
    measured: Counter[int] = Counter()
    before = PairRunner._measure_batch

    def counted(self: PairRunner, numbers: np.ndarray) -> Any:
        measured.update(numbers.tolist())
        return before(self, numbers)

    monkeypatch.setattr(PairRunner, "_measure_batch", counted)
    result, _ = run()
    assert result["pairs"] == len(measured) < COUNT * len(result["points"])
    assert set(measured.values()) == {1}


def test_a_resumed_run_ends_as_an_unbroken_one(run, tmp_path, monkeypatch):
    unbroken = run()[1]
    before, calls = PairRunner.measure, []

    def killed(self: PairRunner, start: int, stop: int) -> Any:
        calls.append(start)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return before(self, start, stop)

    elsewhere = str(tmp_path / "elsewhere")
    monkeypatch.setattr(PairRunner, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        run(work=elsewhere)
    monkeypatch.setattr(PairRunner, "measure", before)
    result, resumed = run(work=elsewhere)
    assert 3 <= result["resumed"] < result["pairs"]
    assert resumed.metrics == unbroken.metrics


def test_added_points_cost_only_what_is_new(run):
    first = run(thresholds=0)[0]
    more = run()[0]
    assert more["resumed"] == first["pairs"]


def test_another_proxy_than_the_tables_is_refused(run, tmp_path, tokenizer):
    other = tmp_path / "other.safetensors"
    with torch.no_grad():
        tokenizer.decoder.unpatchify.bias.add_(0.1)
    saved_tokenizer(other, tokenizer)
    with pytest.raises(CurvesError, match="was scored by the proxy"):
        run(checkpoint=str(other))


def test_scores_that_are_not_the_measured_ones_are_refused(run, table):
    scored = candidate_table.read(table)
    wrong = {**scored.scores, "psnr": scored.scores["psnr"] + 0.1}
    candidate_table.write(table, dataclasses.replace(scored, scores=wrong))
    with pytest.raises(CurvesError, match=r"\+0\.100 dB from what is measured now"):
        run()


def test_clips_that_are_not_the_scored_ones_are_refused(run, table):
    scored = candidate_table.read(table)
    origin = {**scored.origin, "data": {**scored.origin["data"], "sha256": "0" * 64}}
    candidate_table.write(table, dataclasses.replace(scored, origin=origin))
    with pytest.raises(CurationError, match="run stage2_curation again"):
        run()


def test_routers_of_different_rewards_are_refused(run, router):
    first, second = router(1.2), router(1.6, scale=dataclasses.asdict(Scale(0.0, 1.0, 14.0, 4.3)))
    with pytest.raises(CurvesError, match=r"router\.1\.6 was trained with another reward scale"):
        run(routers=f"{first},{second}")
    with pytest.raises(CurvesError, match="trained for quality l1: set metric=l1"):
        run(routers=str(first), metric="psnr")


def test_what_cannot_be_asked_for_is_named(run):
    with pytest.raises(EvaluationError, match="'fvd' cannot be measured for pairs"):
        run(metrics="fvd")
    with pytest.raises(ConfigError, match="config key routers: no file"):
        run(routers="nowhere/router-*.safetensors")
    with pytest.raises(ConfigError, match="config key limit: 6 exceeds the 5 clips"):
        run(limit=6)
    with pytest.raises(ConfigError, match="rfvd compares sets"):
        run(limit=1)


def test_the_first_clips_alone_can_be_measured(run):
    _, record = run(limit=2, metrics="psnr")
    assert record.protocol["clips"] == 2
    assert record.protocol["limit"] == 2
    assert record.metrics["uniform.2.psnr"].n == 2
