"""Runs start only from a sound configuration, and what they store can be read back."""
# ruff: noqa: F841  # Sacred reads the local variables of configuration functions

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from evatok import errors
from evatok.experiments import tracking
from evatok.experiments.runs import list_runs
from evatok.storage import environment

SCRIPT = '''
"""An experiment that waits."""
import sys
import time
from evatok.experiments import tracking

ex = tracking.experiment("waiting", __doc__)

@ex.config
def config():
    learning_rate = 1e-3  # peak; the paper uses 1e-4

@tracking.main(ex)
def main(config, tracker):
    tracker.scalar("loss", float("nan"), 1)
    print("ready", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    tracking.command_line(ex)
'''


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """The base folder that runs of this test go to."""
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def training(body=lambda config, tracker: None) -> tracking.Experiment:
    """A small experiment with every kind of configuration value, which runs `body`."""
    ex = tracking.experiment("training", "Train nothing.")

    @ex.config
    def config():
        steps = 100  # optimiser steps
        learning_rate = 1e-3  # peak; the paper uses 1e-4
        manifest = None  # CSV of clips; None is the embedded set
        levels = (8, 16)  # tokens of a block
        model = {"width": 64, "rate": 0.5}

    @ex.named_config
    def toy():
        steps = 3

    @ex.named_config
    def broken():
        steps = "many"

    @tracking.main(ex)
    def main(config, tracker):
        return body(config, tracker)

    return ex


def stored(runs: Path, name: str, run: str = "training/1"):
    """A JSON file of a run; refuses the NaN and Infinity that Python alone would accept."""
    return json.loads((runs / run / name).read_text(), parse_constant=lambda word: pytest.fail(f"{word} in {name}"))


def fails_with_one_line(capsys, ex, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        tracking.command_line(ex, ["training", *arguments])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_config_reaches_main_plain_sorted_and_typed(tmp_path):
    seen = {}
    training(lambda config, tracker: seen.update(config)).run(
        config_updates={"learning_rate": 1, "manifest": "a.csv", "model": {"rate": 2}}, named_configs=["toy"]
    )
    assert seen == {
        "learning_rate": 1.0,
        "levels": [8, 16],
        "manifest": "a.csv",
        "model": {"rate": 2.0, "width": 64},
        "seed": 0,
        "steps": 3,
    }
    assert list(seen) == sorted(seen)
    assert type(seen["learning_rate"]) is type(seen["model"]["rate"]) is float
    assert type(seen["model"]) is dict
    assert type(seen["levels"]) is list
    torch.save(seen, tmp_path / "config.pt")
    assert torch.load(tmp_path / "config.pt", weights_only=True) == seen


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["with", "lrr=3"], ["unknown config key lrr", "known keys: learning_rate, levels", "print_config"]),
        (["with", "stepz=3"], ["unknown config key stepz", "did you mean steps?"]),
        (["with", "model.depth=3"], ["unknown config key model.depth"]),
        (["with", "learning_rate=abc"], ["learning_rate", "expected float", "'abc' (str)", "print_config"]),
        (["with", "steps=1.5"], ["steps", "expected int", "1.5 (float)"]),
        (["with", "steps=None"], ["steps", "expected int", "None"]),
        (["with", "model=3"], ["model", "expected dict", "3 (int)"]),
        (["with", "model.width=wide"], ["model.width", "expected int"]),
        (["with", "seed=None"], ["seed", "expected an int"]),
        (["with", "broken"], ["steps", "expected int", "'many' (str)"]),
        (["with", "tiny"], ["unknown named config 'tiny'", "known ones: broken, toy"]),
        (["--sql", "sqlite:///x.db"], ["use -F or -m"]),
        (["-m", "mongodb:/host"], ["-m mongodb:/host is not [HOST:PORT:]DATABASE"]),
    ],
)
def test_wrong_arguments_end_in_one_line_and_no_run(capsys, runs, arguments, parts):
    line = fails_with_one_line(capsys, training(), *arguments)
    assert line.startswith("training: ")
    assert all(part in line for part in parts), line
    assert not runs.exists()


def test_a_clean_checkout_can_be_demanded(capsys, runs, monkeypatch):
    for dirty, commit in ((True, "abc"), (None, None)):
        monkeypatch.setattr(environment, "_commit", lambda found=(commit, dirty): found)
        assert "commit it first" in fails_with_one_line(capsys, training(), "-e")
    monkeypatch.setattr(environment, "_commit", lambda: ("abc", False))
    tracking.command_line(training(), ["training", "-e"])
    assert stored(runs, "info.json")["environment"]["commit"] == "abc"


def test_run_from_python_raises():
    with pytest.raises(tracking.ConfigError, match="steps"):
        training().run(config_updates={"steps": 1.5})
    with pytest.raises(tracking.ConfigAddedError):
        training().run(config_updates={"stepz": 1})


def test_an_error_is_one_line_and_a_bug_says_where_and_how_to_see_its_traceback(capsys, runs):
    def misused(config, tracker):
        tracker.resumes("12")

    def buggy(config, tracker):
        raise ValueError("shapes differ")

    assert "a run is named <experiment>/<number>" in fails_with_one_line(capsys, training(misused))
    line = fails_with_one_line(capsys, training(buggy))
    assert "unexpected ValueError: shapes differ" in line
    assert "--debug shows the traceback" in line
    assert "shapes differ" in "".join(stored(runs, "run.json", "training/2")["fail_trace"])
    with pytest.raises(ValueError, match="shapes differ"):
        tracking.command_line(training(buggy), ["training", "--debug"])
    assert {stored(runs, "run.json", f"training/{number}")["status"] for number in (1, 2, 3)} == {"FAILED"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "w/state.pt"), "w/state.pt: No space left on device; free some space"),
        (MemoryError("Unable to allocate 9 TiB"), "out of memory (Unable to allocate 9 TiB): take a smaller batch"),
        (RuntimeError("Found no NVIDIA driver on your system."), "give device=cpu"),
    ],
)
def test_a_failure_of_the_machine_is_one_line(capsys, runs, error, told):
    def work(config, tracker):
        raise error

    assert told in fails_with_one_line(capsys, training(work))


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(capsys, runs):
    def work(config, tracker):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as caught:
        tracking.command_line(training(work), ["training"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == (
        "training: stopped by Ctrl-C; saved work is kept, and the same command resumes from it\n"
    )
    assert stored(runs, "run.json")["status"] == "INTERRUPTED"


def test_sigterm_says_how_to_go_on_and_exits_with_143(capsys, runs):
    def work(config, tracker):
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        tracking.command_line(training(work), ["training"])
    assert caught.value.code == 143
    assert "stopped by SIGTERM; saved work is kept" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_device_that_is_not_there_stops_a_run_before_it_is_stored(capsys, runs, monkeypatch):
    def with_device(body=lambda config, tracker: None):
        ex = training(body)
        ex.add_config(device="cpu")
        return ex

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device: cuda is not available, PyTorch sees no GPU" in fails_with_one_line(
        capsys, with_device(), "with", "device=cuda"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "PyTorch sees 1 GPUs" in fails_with_one_line(capsys, with_device(), "with", "device=cuda:1")
    assert "not supported" in fails_with_one_line(capsys, with_device(), "with", "device=meta")
    assert not runs.exists()
    tracking.command_line(with_device(), ["training", "print_config", "with", "device=cuda:1"])


@pytest.mark.parametrize("arguments", [["nonsense"], ["toy=3", "x"], ["with", "steps=3", "steps.x=4"]])
def test_what_is_no_command_is_one_line(capsys, runs, arguments):
    assert "unexpected" not in fails_with_one_line(capsys, training(), *arguments)
    assert not runs.exists()


def test_runs_that_cannot_be_stored_are_one_line_before_any_work(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "file"))
    work = lambda config, tracker: pytest.fail("it has begun")  # noqa: E731
    assert "give -F FOLDER or EVATOK_RUNS" in fails_with_one_line(capsys, training(work))


def test_print_config_shows_the_comments(capsys, runs):
    tracking.command_line(training(), ["training", "print_config", "with", "toy"])
    told = capsys.readouterr().out
    assert "steps = 3" in told
    assert "# peak; the paper uses 1e-4" in told
    assert not runs.exists()


def test_scalars_and_results_are_always_valid_json(runs):
    def log(config, tracker):
        values = [1.5, torch.tensor(2.0, requires_grad=True), np.float32(3.0), np.array([4.0]), 5]
        for step, value in enumerate([*values, float("nan"), torch.tensor(float("inf"))]):
            tracker.scalar("loss", value, step)
        with pytest.raises(ValueError, match=r"loss at step 9 has shape \(2,\)"):
            tracker.scalar("loss", torch.zeros(2), 9)
        return {"psnr": np.float64(20.5), "fvd": float("inf"), "lengths": torch.tensor([1, 2])}

    run = training(log).run()
    loss = stored(runs, "metrics.json")["loss"]
    assert loss["values"] == [1.5, 2.0, 3.0, 4.0, 5.0, None, None]
    assert loss["steps"] == list(range(7))
    assert stored(runs, "info.json")["nonfinite"] == {"loss": 2}
    assert run.result == {"psnr": 20.5, "fvd": None, "lengths": [1, 2]}
    assert stored(runs, "run.json")["result"] == run.result


def test_the_run_holds_its_facts_files_and_environment(runs, tmp_path):
    (tmp_path / "clips.csv").write_text("path\n")

    def work(config, tracker):
        (tracker.folder / "weights.bin").write_bytes(b"abc")
        tracker.artifact(tracker.folder / "weights.bin")
        tracker.artifact(tmp_path / "clips.csv", name="list.csv")
        tracker.resource(tmp_path / "clips.csv")
        tracker.resumes("training/7")
        tracker.info({"parameters": np.int64(12)})
        with pytest.raises(FileNotFoundError, match=r"absent\.png is not a file"):
            tracker.artifact(tmp_path / "absent.png")
        with pytest.raises(ValueError, match="choose another name"):
            tracker.artifact(tmp_path / "clips.csv", name="run.json")
        return {"id": tracker.run_id, "folder": str(tracker.folder)}

    run = training(work).run()
    assert run.result == {"id": "training/1", "folder": str(runs / "training" / "1")}
    assert stored(runs, "run.json")["artifacts"] == ["weights.bin", "list.csv"]
    info = stored(runs, "info.json")
    assert (info["resumes"], info["parameters"]) == ("training/7", 12)
    assert info["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert info["environment"]["argv"][0] == Path(sys.argv[0]).name or not info["environment"]["argv"][0].startswith(
        "/"
    )


def test_a_tracker_works_without_a_store(runs):
    def work(config, tracker):
        tracker.scalar("loss", 1.0, 0)
        (tracker.folder / "weights.bin").write_bytes(b"abc")
        tracker.artifact(tracker.folder / "weights.bin")
        return {"id": tracker.run_id, "seed": tracker.seed}

    run = training(work).run(config_updates={"seed": 4}, options={"--unobserved": True})
    assert run.result == {"id": None, "seed": 4}
    assert not runs.exists()


def test_only_the_first_process_of_a_distributed_run_is_stored(runs, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    training().run()
    assert not runs.exists()


def test_the_stores_named_replace_the_default(runs, tmp_path):
    training().run(options={"--file_storage": str(tmp_path / "mine")})
    assert (tmp_path / "mine" / "1" / "run.json").exists()
    assert not runs.exists()


def test_runs_with_one_seed_draw_the_same_numbers():
    def draw(config, tracker):
        return {"torch": torch.rand(3), "numpy": np.random.rand(), "seed": config["seed"]}  # noqa: NPY002

    default, zero, one = (training(draw).run(config_updates=seed).result for seed in ({}, {"seed": 0}, {"seed": 1}))
    assert default == zero
    assert default["torch"] != one["torch"]
    assert default["seed"] == 0


def test_overwritten_bars_stay_out_of_the_log():
    assert tracking._without_bars("start\n 1%\r 50%\r100%\nend\r\n") == "start\n100%\nend\r\n"


def test_sigterm_is_handled_only_inside_main():
    before = signal.getsignal(signal.SIGTERM)
    inside = []
    training(lambda config, tracker: inside.append(signal.getsignal(signal.SIGTERM))).run()
    assert inside != [before]
    assert signal.getsignal(signal.SIGTERM) is before
    ex = training(lambda config, tracker: inside.append(signal.getsignal(signal.SIGTERM)))
    thread = threading.Thread(target=ex.run, kwargs={"options": {"--capture": "no"}})
    thread.start()
    thread.join()
    assert inside[1] is before


def test_sigterm_ends_a_run_as_preempted(runs):
    with pytest.raises(errors.Terminated):
        training(lambda config, tracker: (signal.raise_signal(signal.SIGTERM), time.sleep(5))).run()
    assert stored(runs, "run.json")["status"] == "PREEMPTED"


def started(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The waiting experiment in a process of its own, as far as its main."""
    script = tmp_path / "waiting.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_terminated_process_leaves_a_preempted_run(runs, tmp_path):
    process = started(tmp_path)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert stored(runs, "run.json", "waiting/1")["status"] == "PREEMPTED"
    assert stored(runs, "metrics.json", "waiting/1")["loss"]["values"] == [None]


@pytest.mark.slow
def test_a_killed_process_shows_as_died(runs, tmp_path):
    process = started(tmp_path, "-b", "0.2")
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=30)
    assert stored(runs, "run.json", "waiting/1")["status"] == "RUNNING"
    assert list(list_runs(runs, died_after=3600).status) == ["RUNNING"]
    time.sleep(0.6)
    table = list_runs(runs)
    assert table.loc[0, ["id", "experiment", "status"]].tolist() == ["waiting/1", "waiting", "DIED"]
    assert table.heartbeat[0] > table.started[0]


def test_listing_reads_every_run_and_survives_a_broken_one(runs):
    for _ in range(2):
        training().run()
    (runs / "training" / "2" / "run.json").write_text('{"status": ')
    table = list_runs(runs)
    assert dict(zip(table.id, table.status, strict=True)) == {
        "training/1": "COMPLETED",
        "training/2": "UNREADABLE",
    }
    assert list_runs(runs / "absent").empty


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_absent_mongo_is_one_line_within_seconds(capsys, runs):
    begun = time.monotonic()
    line = fails_with_one_line(capsys, training(), "-m", f"mongodb://user:secret@127.0.0.1:{free_port()}/runs")
    assert "no MongoDB answers at mongodb://127.0.0.1" in line
    assert "secret" not in line
    assert time.monotonic() - begun < 10
    assert not runs.exists()


def test_without_pymongo_the_line_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymongo", None)
    assert "pip install evatok[mongo]" in fails_with_one_line(capsys, training(), "-m", "localhost:27017:runs")


@pytest.mark.slow
def test_runs_can_be_stored_in_mongo(runs, tmp_path):
    pymongo = pytest.importorskip("pymongo")
    port = free_port()
    command = [Path(sys.executable).with_name("nx-27017"), "--db", "memory", "-p", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = pymongo.MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=30000)
        client.admin.command("ping")

        def work(config, tracker):
            tracker.scalar("loss", float("nan"), 0)
            tracker.scalar("loss", 0.5, 1)
            (tracker.folder / "weights.bin").write_bytes(b"abc")
            tracker.artifact(tracker.folder / "weights.bin")
            return {"id": tracker.run_id, "psnr": 20.0}

        training(work).run(options={"--mongo_db": f"127.0.0.1:{port}:tracked"})
        entry = client.tracked.runs.find_one()
        assert entry["status"] == "COMPLETED"
        assert entry["result"] == {"id": "training/1", "psnr": 20.0}
        assert [a["name"] for a in entry["artifacts"]] == ["weights.bin"]
        assert [m["name"] for m in entry["info"]["metrics"]] == ["loss"]
        assert client.tracked.metrics.find_one()["values"] == [None, 0.5]
        assert [folder.name for folder in (runs / "training").iterdir()] == ["mongo-1"]
        client.close()
    finally:
        server.terminate()
        server.wait(timeout=10)


def test_ctrl_c_before_a_run_has_begun_is_an_interruption(runs, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.Run, "_emit_started", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training(lambda config, tracker: None).run()


class Board:
    """Stands in for TensorBoard's writer."""

    made: ClassVar[list["Board"]] = []

    def __init__(self, log_dir: str, purge_step: int) -> None:
        self.log_dir, self.purge_step, self.scalars, self.closed = log_dir, purge_step, [], False
        Board.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def reporting(tmp_path: Path, body, to: str = "tensorboard") -> tracking.Experiment:
    ex = tracking.experiment("reporting", "Report.")
    ex.add_config(work=str(tmp_path / "work"), report_to=to)
    tracking.main(ex)(body)
    return ex


def test_scalars_go_to_tensorboard_too_and_a_resumed_run_drops_what_was_lost(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Board))
    Board.made.clear()

    def body(config, tracker):
        tracker.scalar("loss", 0.5, 20)
        tracker.scalar("loss", 0.25, 40)

    reporting(tmp_path, body).run()
    (board,) = Board.made
    assert board.log_dir == str(tmp_path / "work" / "tensorboard")
    assert board.purge_step == 20
    assert board.scalars == [("loss", 0.5, 20), ("loss", 0.25, 40)]
    assert board.closed


@pytest.mark.parametrize(("to", "module"), [("tensorboard", "torch.utils.tensorboard"), ("trackio", "trackio")])
def test_a_report_whose_package_is_not_installed_is_told_before_any_work(to, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(tracking.ConfigError, match=rf"pip install \"evatok\[{to}\]\""):
        reporting(tmp_path, lambda config, tracker: pytest.fail("it worked"), to).run()


class Trackio:
    """Stands in for the module trackio, with the parameters of its release 0.43: anything else is a TypeError."""

    def __init__(self) -> None:
        self.runs: list[Trackio] = []

    def init(
        self,
        project: str,
        name: str | None = None,
        group: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        resume: str = "never",
        embed: bool = True,
    ) -> "Trackio":
        run = Trackio()
        run.told = {"project": project, "name": name, "group": group, "resume": resume, "embed": embed}
        run.config, run.logged, run.finished = config, [], False
        self.runs.append(run)
        return run

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        assert not self.finished
        self.logged.append((metrics, step))

    def finish(self) -> None:
        self.finished = True


def test_scalars_go_to_trackio_too_a_run_per_start_and_a_group_per_training(tmp_path, monkeypatch):
    module = Trackio()
    monkeypatch.setitem(sys.modules, "trackio", module)

    def body(config, tracker):
        tracker.scalar("loss", 0.5, 20)
        tracker.scalar("loss", float("nan"), 40)

    for _ in range(2):
        reporting(tmp_path, body, "trackio").run()
    first, second = module.runs
    assert first.told["project"] == "evatok-reporting"
    assert first.told["name"] != second.told["name"]
    assert first.told["group"] == second.told["group"] == str(tmp_path / "work")
    assert not first.told["embed"], "no dashboard is opened"
    assert first.config["report_to"] == "trackio"
    assert first.logged[0] == ({"loss": 0.5}, 20)
    assert first.logged[1][1] == 40
    assert first.finished
    assert second.finished
