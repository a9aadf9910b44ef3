"""Stages 1 and 2 as a user runs them: they record, resume, share work, and refuse to mix two makes."""

import json
import os
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.data.sets import clip_set
from evatok.errors import line_of
from evatok.experiments import stage1_proxy, stage2_curation, tracking
from evatok.experiments.tracking import ConfigError
from evatok.models.precision import bf16_is_native
from evatok.search import candidate_table, table_shards
from evatok.search.tree import brute_force
from evatok.storage import checkpoints
from evatok.storage.locks import LockedError
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig
from evatok.training import loop
from tests.factories import FOUR_STEPS, SMALLER, places, record_of, saved_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runs")]

TWO_LEVELS = replace(SMALLER, levels=(2, 8))
"""16 candidates, which are scored in a quarter of the time of the 81 of three levels."""


@pytest.fixture
def stage1(tmp_path, data):
    """Runs stage 1 in a folder of its own: (name, **changes) -> the run."""

    def run(name: str = "one", **changes):
        given = {"data": data, **places(tmp_path / name, "proxy.safetensors"), **FOUR_STEPS, **changes}
        return stage1_proxy.ex.run(config_updates=given)

    return run


@pytest.fixture
def proxy(smaller, tmp_path) -> str:
    """An untrained proxy's checkpoint: scoring asks for no more."""
    return saved_tokenizer(tmp_path / "proxy.safetensors", TWO_LEVELS)


@pytest.fixture
def stage2(tmp_path, data, proxy):
    """Runs stage 2 in a folder of its own: (name, **changes) -> the run."""

    def run(name: str = "one", **changes):
        files = {"tokenizer": proxy, "table": str(tmp_path / name / "table.parquet")}
        written = {"work": str(tmp_path / name / "work"), "records_folder": str(tmp_path / name / "records")}
        sizes = {"clips": 7, "shard_length": 2, "batch": 2, "threads": 1, "bf16": False}
        return stage2_curation.ex.run(config_updates={"data": data, **files, **written, **sizes, **changes})

    return run


def shards(tmp_path: Path, name: str = "one") -> list[Path]:
    return sorted((tmp_path / name / "work").rglob("*.parquet"))


def info(runs: Path, run: str) -> dict:
    return json.loads((runs / run / "info.json").read_text())


# Stage 1


def test_stage_1_at_toy_size_leaves_a_proxy_a_curve_and_a_record(stage1, tmp_path, runs, data):
    run = stage1(steps=2)
    found = checkpoints.load(Path(run.result["checkpoint"]), "tokenizer")
    assert TokenizerConfig.from_dict(found.config) == TOKENIZER_SIZES["toy"]
    assert found.parents == {"train_clips": clip_set(data, "train", 10, size=64, frames=16).sha256}
    assert found.facts == {
        "stage": 1,
        "assignment": "random",
        "size": "toy",
        "steps": 2,
        "seed": 0,
        "discriminator": "none",
        "alignment": False,
        "perceptual": "none",
    }
    record = record_of(tmp_path, run)
    assert (record.kind, record.status) == ("stage1_proxy", "toy")
    assert record.model["sha256"] == found.sha256
    assert TokenizerConfig.from_dict(record.model["network"]) == TOKENIZER_SIZES["toy"]
    assert record.protocol["held_out"] is False, "the built set of this test has no split"
    measured = ("psnr", "motion_ratio", "motion_correlation")
    assert set(record.metrics) == {f"{name}_uniform_{level}" for name in measured for level in (8, 16, 32, 64, 128)}
    bounds = {"psnr": (0, 60), "motion_ratio": (0, 10), "motion_correlation": (-1, 1)}
    for name, metric in record.metrics.items():
        low, high = bounds[name.partition("_uniform")[0]]
        assert low < metric.value < high
        assert metric.n == 3
    assert run.result["metrics"] == {name: metric.value for name, metric in record.metrics.items()}
    curve = loop.read_curve(tmp_path / "one" / "work")
    assert [line["step"] for line in curve] == [1, 2]
    assert (runs / "stage1_proxy" / "1" / "curve.jsonl").exists()
    metrics = json.loads((runs / "stage1_proxy" / "1" / "metrics.json").read_text())
    assert metrics["l1"]["values"] == [line["l1"] for line in curve]


def test_stage_1_trains_on_from_a_checkpoint_which_its_own_names(smaller, stage1, tmp_path):
    proxy = saved_tokenizer(tmp_path / "proxy.safetensors", smaller)
    still = {"learning_rate": 1e-12, "final_learning_rate": 1e-12, "weight_decay": 0.0, "steps": 1}
    run = stage1(start_from=proxy, **still)
    start, end = (checkpoints.load(Path(path), "tokenizer") for path in (proxy, run.result["checkpoint"]))
    assert end.parents["start"] == start.sha256
    for name, weight in start.weights.items():
        torch.testing.assert_close(end.weights[name].float(), weight, rtol=1e-3, atol=1e-6, msg=name)


def test_a_start_from_another_network_is_refused(smaller, stage1, tmp_path):
    other = replace(smaller, decoder_layers=smaller.decoder_layers + 1)
    with pytest.raises(ConfigError, match=r"key start_from: .* has decoder_layers"):
        stage1(start_from=saved_tokenizer(tmp_path / "other.safetensors", other))


def test_stage_1_killed_goes_on_where_it_stopped(smaller, stage1, tmp_path, runs, monkeypatch):
    whole = stage1("whole")
    one_step = loop._one_step

    def mortal(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return one_step(*arguments)

    monkeypatch.setattr(loop, "_one_step", mortal)
    with pytest.raises(KeyboardInterrupt):
        stage1("broken")
    assert not (tmp_path / "broken" / "proxy.safetensors").exists()
    monkeypatch.setattr(loop, "_one_step", one_step)
    again = stage1("broken")
    assert info(runs, "stage1_proxy/3")["resumes"] == "stage1_proxy/2"
    assert again.result["metrics"] == whole.result["metrics"]
    curves, hashes = [], []
    for name in ("whole", "broken"):
        curves.append((tmp_path / name / "work" / "curve.jsonl").read_text())
        hashes.append(checkpoints.load(tmp_path / name / "proxy.safetensors", "tokenizer").sha256)
    assert curves[0] == curves[1]
    assert hashes[0] == hashes[1]


def test_stage_1_refuses_to_go_on_with_another_configuration(smaller, stage1, tmp_path):
    stage1()
    before = (tmp_path / "one" / "work" / "state.pt").read_bytes()
    with pytest.raises(
        ConfigError, match=r"holds another training \(learning_rate was 0\.001\): delete it, or set work"
    ):
        stage1(learning_rate=2e-3)
    with pytest.raises(ConfigError, match=r"it was trained on other clips|train_clips was 10"):
        stage1(train_clips=9)
    assert (tmp_path / "one" / "work" / "state.pt").read_bytes() == before


def test_stage_1_refuses_other_clips_under_the_same_name(smaller, stage1, data, moving_clips):
    stage1()
    labels = pd.DataFrame({"source": ["made"] * 12})
    clip_sets.save(Path(data), moving_clips(12, seed=1), labels, {"name": "gratings", "seed": 1})
    with pytest.raises(ConfigError, match="it was trained on other clips"):
        stage1()


def test_where_and_how_often_to_save_may_change_between_runs(smaller, stage1, tmp_path):
    stage1()
    again = stage1(save_every=4, records_folder=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / f"{again.result['record']}.json").exists()


# Stage 2


def test_stage_2_scores_as_brute_force_by_hand_does(stage2, smaller, tmp_path, proxy, data):
    run = stage2()
    table = candidate_table.read(tmp_path / "one" / "table.parquet")
    tokenizer = AdaptiveTokenizer.load(proxy)
    real = clip_sets.to_network(clip_set(data, "validation", 7, size=64, frames=16).clips[5:7])
    expected = brute_force(tokenizer, real)
    assert table.clips.tolist() == list(range(7))
    assert set(table.scores) == {"l1", "mse", "psnr"}
    for metric, values in expected.items():
        assert table.scores[metric].shape == (7, 16)
        assert np.allclose(table.scores[metric][5:7], values, atol=1e-4), metric
    assert run.result["scored"] == 7
    assert run.result["complete"] is True


def test_stage_2_records_what_it_measured(stage2, tmp_path, proxy):
    record = record_of(tmp_path, stage2())
    table = candidate_table.read(tmp_path / "one" / "table.parquet")
    assert (record.kind, record.status) == ("stage2_curation", "toy")
    assert record.model["tokenizer"] == checkpoints.load(Path(proxy), "tokenizer").sha256
    assert record.model["table"] == table.sha256
    assert record.protocol["candidates"] == 16
    for name in ("l1", "mse", "psnr"):
        assert record.metrics[name].value == pytest.approx(float(table.scores[name].mean()), rel=1e-5)
    assert {name: record.metrics[name].direction for name in ("l1", "psnr")} == {"l1": "lower", "psnr": "higher"}


def test_parts_merged_are_the_whole(stage2, tmp_path):
    stage2("whole")
    first = stage2("parts", shard="0/2")
    assert first.result["complete"] is False
    assert not (tmp_path / "parts" / "table.parquet").exists()
    second = stage2("parts", shard="1/2")
    assert second.result["complete"] is True
    assert first.result["scored"] + second.result["scored"] == 7
    whole, parts = (candidate_table.read(tmp_path / name / "table.parquet") for name in ("whole", "parts"))
    assert whole.sha256 == parts.sha256
    # What scoring took counts both processes, though the second alone writes the record.
    spent = [candidate_table.read(path).seconds for path in shards(tmp_path, "parts")]
    assert min(spent) > 0
    assert parts.seconds == pytest.approx(sum(spent))
    pace = record_of(tmp_path, second, "parts").metrics["seconds_per_clip"]
    assert (pace.value, pace.n) == (pytest.approx(parts.seconds / 7), 7)


def test_shares_of_a_set_leave_one_record_whichever_is_asked_for_again(stage2, tmp_path):
    first = stage2("parts", shard="1/2")
    second = stage2("parts", shard="0/2")
    again = stage2("parts", shard="1/2")
    assert [run.result["complete"] for run in (first, second, again)] == [False, True, True]
    assert again.result["record"] == second.result["record"]
    assert len(list((tmp_path / "parts" / "records").iterdir())) == 1


def test_a_scoring_whose_time_is_up_ends_after_a_shard_and_is_resumed(stage2, tmp_path):
    assert stage2(minutes=1e-9).result == {"scored": 2, "shards": 4, "complete": False}
    again = stage2()
    assert (again.result["scored"], again.result["complete"]) == (5, True)


def test_a_killed_scoring_loses_its_unfinished_shard_alone(stage2, tmp_path):
    stage2()
    whole = candidate_table.read(tmp_path / "one" / "table.parquet")
    lost, *kept = shards(tmp_path)
    times = [path.stat().st_mtime_ns for path in kept]
    # What a kill amid writing leaves: half a file under the partial name of a process that lives no more.
    host, dead = socket.gethostname().replace(".", "-"), subprocess.Popen(["true"])
    dead.wait()
    lost.with_name(f".{lost.name}.{host}-{dead.pid}.x.partial").write_bytes(lost.read_bytes()[:500])
    lost.unlink()
    again = stage2()
    assert again.result["scored"] == 2
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert candidate_table.read(tmp_path / "one" / "table.parquet").sha256 == whole.sha256
    assert not list((tmp_path / "one" / "work").rglob(".*.partial"))


def test_a_damaged_shard_stops_the_run_and_says_what_to_do(stage2, tmp_path):
    stage2()
    damaged = shards(tmp_path)[1]
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(candidate_table.CurationError, match=f"{damaged.name}: .*delete it and score again"):
        stage2()
    damaged.unlink()
    assert stage2().result["scored"] == 2


def test_shards_of_another_make_are_refused_before_any_scoring(stage2, tmp_path):
    stage2()
    before = shards(tmp_path)
    with pytest.raises(candidate_table.CurationError, match=r"scored with another precision \("):
        stage2(bf16=True)
    assert shards(tmp_path) == before


def test_a_set_may_be_scored_further_or_in_part(stage2, tmp_path):
    stage2(clips=4)
    assert stage2(clips=8).result["scored"] == 4
    grown = candidate_table.read(tmp_path / "one" / "table.parquet")
    stage2("fresh", clips=8)
    assert grown.sha256 == candidate_table.read(tmp_path / "fresh" / "table.parquet").sha256
    assert stage2(clips=6).result["scored"] == 0
    assert len(candidate_table.read(tmp_path / "one" / "table.parquet").clips) == 6


def test_another_proxy_scores_into_a_folder_of_its_own(stage2, smaller, tmp_path):
    stage2()
    other = saved_tokenizer(tmp_path / "other.safetensors", TWO_LEVELS, seed=1)
    assert stage2(tokenizer=other).result["scored"] == 7
    assert len({shard.parent for shard in shards(tmp_path)}) == 2


def test_an_empty_part_scores_nothing(stage2, tmp_path):
    run = stage2(shard="7/8")
    assert run.result == {"scored": 0, "shards": 0, "complete": False}
    assert not shards(tmp_path)


def test_stage_2_asks_for_a_tokenizer(stage2, tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="no such checkpoint"):
        stage2(tokenizer=str(tmp_path / "nothing.safetensors"))


def test_both_stages_at_toy_size_agree_on_the_proxy(stage1, tmp_path, data):
    """The real toy: 625 candidates of one clip, with the proxy that stage 1 has just made."""
    made = stage1(steps=1, batch=2, validation_clips=2)
    written = {key: str(tmp_path / "two" / key) for key in ("work", "records_folder")}
    run = stage2_curation.ex.run(
        config_updates={"tokenizer": made.result["checkpoint"], "data": data, "clips": 1, "threads": 1, **written}
    )
    assert run.result["complete"] is True
    table = table_shards.merge(shards(tmp_path, "two")[0].parent, 1, 64)
    assert table.scores["psnr"].shape == (1, 625)
    assert table.origin["precision"] == ("bf16" if bf16_is_native("cpu") else "fp32")
    # The uniform candidates are those whose PSNR stage 1 recorded, on other clips and another batch.
    uniform = table.scores["psnr"][0, table.candidates.uniform]
    recorded = [value for name, value in made.result["metrics"].items() if name.startswith("psnr_")]
    assert np.allclose(uniform, recorded, atol=6)
    shutil.rmtree(tmp_path / "two")


# Given again


def test_a_finished_training_given_again_names_its_record_and_writes_none(smaller, stage1, tmp_path, caplog):
    first, again = stage1(), stage1(threads=2, save_every=4)
    assert again.result["record"] == first.result["record"]
    assert again.result["metrics"] == first.result["metrics"]
    assert len(list((tmp_path / "one" / "records").iterdir())) == 1
    assert f"nothing new: {tmp_path / 'one' / 'records' / first.result['record']}.json" in caplog.text


def test_a_kill_after_the_record_makes_no_second_one(smaller, stage1, stage2, tmp_path, monkeypatch):
    def mortal(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tracking.Tracker, "artifact", mortal)
        with pytest.raises(KeyboardInterrupt):
            stage1()
    (held,) = (tmp_path / "one" / "records").iterdir()
    assert stage1().result["record"] == held.stem
    first = stage2()
    assert first.result["record"] == stage2().result["record"]
    assert len(list((tmp_path / "one" / "records").iterdir())) == 2


# Two runs in one folder


def test_a_second_training_in_a_folder_is_refused_and_the_first_goes_on(smaller, stage1, tmp_path, monkeypatch):
    one_step, told = loop._one_step, []

    def meeting(*arguments):
        if arguments[-1] == 2:
            with pytest.raises(LockedError) as found:
                stage1()
            told.append(line_of(found.value))
        return one_step(*arguments)

    monkeypatch.setattr(loop, "_one_step", meeting)
    stage1()
    (line,) = told
    assert f"work={tmp_path / 'one' / 'work'} is being written by process {os.getpid()}" in line
    assert [entry["step"] for entry in loop.read_curve(tmp_path / "one" / "work")] == [1, 2, 3, 4]
    assert len(list((tmp_path / "one" / "records").iterdir())) == 1
    assert not list((tmp_path / "one" / "work").glob(".*"))


def test_parts_are_scored_side_by_side_and_no_shard_twice(stage2, tmp_path, monkeypatch):
    score_set, told, others = stage2_curation.score_set, [], []

    def meeting(*arguments, **keywords):
        if not told:
            for shard, may in (("0/2", False), ("1/2", True), ("0/1", False)):
                told.append((shard, may))
                if may:
                    others.append(stage2(shard=shard).result["scored"])
                    continue
                with pytest.raises(LockedError, match=r"this command asks for|the shard of clips 0\.\.1"):
                    stage2(shard=shard)
        return score_set(*arguments, **keywords)

    monkeypatch.setattr(stage2_curation, "score_set", meeting)
    mine = stage2(shard="0/2").result["scored"]
    assert (mine, others) == (4, [3])
    assert stage2(shard="0/1").result["scored"] == 0
