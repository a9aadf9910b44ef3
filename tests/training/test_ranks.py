"""Several ranks train what one process does: the same losses, the same weights, resumed on any number."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.experiments import runner, stage1_proxy
from evatok.experiments.tracking import ConfigError
from evatok.models.dropout import Dropout, packed
from evatok.storage import ranks
from evatok.storage.environment import REPOSITORY
from evatok.storage.shards import ShardStore, computed
from evatok.training.loop import read_curve, train
from tests.factories import configured, gratings, places
from tests.training import ranked

CLOSE = 1e-5
WEIGHTS = {"classifier": 1e-4}  # Adam takes whole steps along gradients that are all rounding


def of_ranks(count: int, *command: str) -> list[subprocess.Popen[str]]:
    """One process per rank, with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = []
    for rank in range(count):
        told = {**shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1, "PYTHONPATH": paths}
        environment = {**os.environ, **{name: str(value) for name, value in told.items()}}
        started.append(subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True))
    return started


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The folder of all trainings on two ranks, one half of each kept."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("two")
    running = of_ranks(2, ranked.__file__, str(folder))
    told = [process.communicate(timeout=500)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    for name, make in ranked.TRAININGS.items():
        train(*make(), ranked.RECIPE, folder / name)
    return folder


def gap(one: object, other: object) -> float:
    """The largest difference between two nested states of numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max([gap(one[key], other[key]) for key in one], default=0.0)
    if isinstance(one, list | tuple):
        return max([gap(a, b) for a, b in zip(one, other, strict=True)], default=0.0)
    if isinstance(one, torch.Tensor):
        return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
    return abs(one - other) if isinstance(one, int | float) else float(one != other)


def weights_of(folder: Path) -> dict:
    state = torch.load(folder / "state.pt", weights_only=True)
    return {part: state[part] for part in ("step", "module", "averaged")}


def worst(one: Path, other: Path) -> tuple[str, float]:
    """The term of two curves that differs most, relative to its size, and by how much.

    The gradient's norm counts a hundredth: it is the first to show what rounding becomes.
    """
    first, second = read_curve(one), read_curve(other)
    assert [line.keys() for line in first] == [line.keys() for line in second]
    found = {
        (name, a["step"]): abs(a[name] - b[name]) / max(1.0, abs(a[name])) / (100 if name == "gradient_norm" else 1)
        for a, b in zip(first, second, strict=True)
        for name in a
    }
    return max(found.items(), key=lambda pair: pair[1])


@pytest.mark.slow  # six trainings of 50 steps on two processes
@pytest.mark.parametrize("name", ranked.TRAININGS)
def test_two_ranks_train_what_one_process_does(name, one, two):
    assert len(read_curve(one / name)) == ranked.STEPS
    assert worst(one / name, two / name)[1] < CLOSE, worst(one / name, two / name)
    assert gap(weights_of(one / name), weights_of(two / name)) < WEIGHTS.get(name, 3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ranked.TRAININGS)
def test_a_training_of_two_ranks_resumes_on_one_process(name, one, two):
    folder = two / f"{name}-half"
    assert read_curve(folder)[-1]["step"] == ranked.HALF
    train(*ranked.TRAININGS[name](), ranked.RECIPE, folder)
    assert worst(one / name, folder)[1] < CLOSE, worst(one / name, folder)
    assert gap(weights_of(one / name), weights_of(folder)) < WEIGHTS.get(name, 3e-5)


@pytest.mark.slow
def test_two_ranks_in_two_pieces_each_train_what_one_process_does_at_once(one, two):
    assert worst(one / "generator", two / "generator-pieces")[1] < CLOSE
    assert gap(weights_of(one / "generator"), weights_of(two / "generator-pieces")) < 3e-5


@pytest.mark.slow
def test_a_network_split_over_two_ranks_trains_as_a_whole_one_and_resumes_either_way(one, two):
    """In two pieces each, its layers computed again, resumed halfway: as parts, and as a whole on one process."""
    folder = two / "sharded-half"
    train(*ranked.TRAININGS["generator"](), ranked.RECIPE, folder)
    for other in (two / "sharded", folder):
        assert worst(one / "generator", other)[1] < CLOSE, worst(one / "generator", other)
        assert gap(weights_of(one / "generator"), weights_of(other)) < 3e-5
    shipped = torch.load(two / "sharded-averaged.pt", weights_only=True)
    assert gap(weights_of(two / "sharded")["averaged"], shipped) == 0


def test_one_process_keeps_the_whole_batch():
    values = np.arange(6)
    with ranks.in_step():
        assert ranks.share(values) is values
        assert ranks.whole(6) == 6
        assert ranks.all_true(True)
        assert ranks.from_first(3) == 3


@pytest.fixture
def as_rank(monkeypatch):
    """Pretend to be a rank of several: (rank, count)."""

    def pretend(rank: int, count: int) -> None:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "count", lambda: count)

    return pretend


def test_parts_of_a_batch_are_equal_consecutive_and_all_of_it(as_rank):
    parts = []
    for rank in range(3):
        as_rank(rank, 3)
        with ranks.in_step():
            parts.append(ranks.share(np.arange(12)))
    assert np.array_equal(np.concatenate(parts), np.arange(12))
    assert {len(part) for part in parts} == {4}


def test_a_batch_that_ranks_cannot_share_equally_is_refused(as_rank):
    as_rank(0, 3)
    with ranks.in_step(), pytest.raises(ranks.RankError, match="a batch of 16 clips cannot be shared by 3 ranks"):
        ranks.share(np.arange(16))


def test_a_training_whose_batch_ranks_cannot_share_is_refused_before_its_task_is_made(as_rank):
    as_rank(0, 2)
    config = configured(stage1_proxy.ex, "toy", batch=5, threads=1)
    with pytest.raises(ConfigError, match="batch: 5 clips cannot be shared by 2 ranks equally"):
        runner.train(config, None, lambda config: pytest.fail("it went on"))


def test_what_is_measured_between_steps_is_not_shared(as_rank):
    as_rank(1, 2)
    assert np.array_equal(ranks.share(np.arange(4)), np.arange(4))
    assert ranks.whole(4) == 4


@pytest.mark.parametrize("turned", [False, True])
def test_dropout_of_a_part_is_that_part_of_the_whole_batchs(as_rank, turned):
    layer, x = Dropout(0.5), torch.rand(6, 5, 4)
    x = x.transpose(1, 2) if turned else x  # in memory it lies the other way
    torch.manual_seed(7)
    whole = layer(x)
    for rank in range(2):
        as_rank(rank, 2)
        torch.manual_seed(7)
        with ranks.in_step():
            part = layer(x[3 * rank : 3 * rank + 3])
        assert torch.equal(part, whole[3 * rank : 3 * rank + 3])


def test_dropout_of_packed_sequences_knows_where_its_rows_are(as_rank):
    layer, sizes = Dropout(0.5), np.array([2, 5, 1, 3])
    x = torch.rand(11, 4)
    torch.manual_seed(7)
    whole = layer(x)
    as_rank(1, 2)
    torch.manual_seed(7)
    with ranks.in_step(), packed(sizes):
        assert torch.equal(layer(x[7:]), whole[7:])


def test_ranks_compute_consecutive_shards_each_and_read_them_all(as_rank, tmp_path, monkeypatch):
    pieces, store, made = [[number] * 3 for number in range(5)], ShardStore(tmp_path), []

    def make(piece, tick):
        made.append(piece[0])
        return {"values": np.array(piece)}

    def key(piece):
        return {"piece": piece[0]}

    computed(store, pieces[:1], key, make)  # an earlier run's
    monkeypatch.setenv("WORLD_SIZE", "2")
    as_rank(1, 2)
    monkeypatch.setattr(ranks, "gathered", lambda done: [done])
    made.clear()
    for piece in pieces[:2]:  # what rank 0 computes meanwhile
        store.put(key(piece), {"values": np.array(piece)})
    found = computed(store, pieces, key, make)
    assert made == [2, 3, 4]
    assert found.joined()["values"].tolist() == [number for number in range(5) for _ in range(3)]
    assert found.resumed == 6


def test_ranks_that_see_different_files_are_named(as_rank, monkeypatch):
    as_rank(0, 3)
    monkeypatch.setattr(ranks, "gathered", lambda value: ["abc", "abc", "xyz"])
    with pytest.raises(ranks.RankError, match="differ in what they train on: rank 0 has abc, rank 2 xyz"):
        ranks.check_alike("what they train on", "abc")


@pytest.mark.slow  # two processes, one of which is killed
def test_a_killed_rank_ends_the_others_with_one_line(tmp_path):
    pytest.importorskip("accelerate")
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, signal, sys\n"
        "from evatok.errors import one_line\n"
        "from evatok.storage import ranks\n"
        "with one_line('wait'), ranks.together('cpu'):\n"
        "    ranks.wait()\n"
        "    if ranks.rank() == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    ranks.wait()\n"
    )
    first, second = of_ranks(2, str(script))
    told = first.communicate(timeout=300)[1]
    second.wait(timeout=60)
    assert first.returncode == 2
    assert "wait: another rank ended, see its message; saved work is kept" in told


@pytest.mark.slow  # the toy network on two processes
def test_a_command_on_two_ranks_leaves_one_run_one_record_and_one_checkpoint(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    labels, manifest = pd.DataFrame({"source": ["made"] * 6}), {"name": "gratings", "seed": 0}
    clip_sets.save(tmp_path / "clips", gratings(6), labels, manifest)
    asked = {"data": tmp_path / "clips", "train_clips": 6, "validation_clips": 2, "batch": 4, "steps": 2, "threads": 1}
    asked |= {"log_every": 1, "save_every": 1, "bf16": False, **places(tmp_path / "one")}
    words = [f"{key}={value}" for key, value in asked.items()]
    running = of_ranks(2, "-m", "evatok.experiments.stage1_proxy", "with", "toy", *words)
    told = [process.communicate(timeout=500)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert [line["step"] for line in read_curve(tmp_path / "one/work")] == [1, 2]
    assert len(list((tmp_path / "one/records").rglob("*.json"))) == 1
    assert [run.name for run in (tmp_path / "runs/stage1_proxy").iterdir() if run.name.isdigit()] == ["1"]
    assert (tmp_path / "one/model.safetensors").exists()
