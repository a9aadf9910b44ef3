"""Commands as Slurm's jobs: what is submitted, what a process of a job sees, and what is queued again."""

from __future__ import annotations

import pickle
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from evatok.experiments import slurm
from evatok.experiments.slurm import Command, SlurmError


class Executor:
    """Stands in for submitit's: keeps what it is given."""

    def __init__(self, **made: object) -> None:
        self.made, self.parameters, self.jobs, self.batched = made, {}, [], False

    def update_parameters(self, **parameters: object) -> None:
        self.parameters = parameters

    @contextmanager
    def batch(self):
        self.batched = True
        yield

    def submit(self, command: Command) -> SimpleNamespace:
        self.jobs.append(command)
        return SimpleNamespace(job_id=f"7_{len(self.jobs) - 1}")


def submitted(*words: str) -> Executor:
    made: list[Executor] = []

    def make(**how: object) -> Executor:
        made.append(Executor(**how))
        return made[0]

    slurm.submit(slurm.parser().parse_args(words), make)
    return made[0]


def test_a_training_is_one_job_with_a_process_per_gpu():
    found = submitted(
        "--gpus", "8", "--nodes", "2", "--hours", "12", "--partition", "long", "stage1_proxy", "with", "paper"
    )
    (command,) = found.jobs
    assert command.words == ("stage1_proxy", "with", "paper")
    asked = {"nodes": 2, "tasks_per_node": 8, "gpus_per_node": 8, "timeout_min": 720, "slurm_partition": "long"}
    assert asked.items() <= found.parameters.items()
    assert "slurm_qos" not in found.parameters
    assert pickle.loads(pickle.dumps(command)) == command


def test_an_array_has_a_shard_per_job():
    jobs = submitted("--array", "3", "stage2_curation").jobs
    assert [job.words for job in jobs] == [("stage2_curation", "with", f"shard={number}/3") for number in range(3)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no command to submit"),
        (["stage9"], "'stage9' is no experiment"),
        (["--array", "2", "stage2_curation", "with", "shard=0/2"], "--array sets shard itself"),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_anything_is(words, complaint):
    with pytest.raises(SlurmError, match=complaint):
        submitted(*words)


def test_a_process_of_a_job_is_the_rank_that_slurm_made_it():
    where = SimpleNamespace(
        num_tasks=4, num_nodes=2, global_rank=3, local_rank=1, hostnames=["n1", "n2"], job_id="123_4"
    )
    told = Command.variables(where)
    assert told | {"MASTER_PORT": ""} == {
        **{"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "n1", "MASTER_PORT": ""},
    }
    assert Command.variables(SimpleNamespace(num_tasks=1)) == {}


def test_a_job_runs_its_command_and_is_queued_again_as_it_was(monkeypatch, tmp_path):
    ran: list[list[str]] = []

    def run(words: list[str], **how: object) -> SimpleNamespace:
        ran.append(words)
        return SimpleNamespace(returncode=len(ran) - 1)

    fake = SimpleNamespace(
        JobEnvironment=lambda: SimpleNamespace(num_tasks=1), helpers=SimpleNamespace(DelayedSubmission=lambda job: job)
    )
    monkeypatch.setitem(sys.modules, "submitit", fake)
    monkeypatch.setattr(subprocess, "run", run)
    command = Command(("runs", "--help"), str(tmp_path))
    assert command() == 0
    assert ran == [[sys.executable, "-m", "evatok.experiments.runs", "--help"]]
    assert command.checkpoint() == command
    with pytest.raises(SlurmError, match="runs --help: exit code 1"):
        command()


def test_without_submitit_the_way_out_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit, match="2"):
        slurm.main(["stage1_proxy", "with", "toy"])
    assert 'pip install "evatok[slurm]"' in capsys.readouterr().err
