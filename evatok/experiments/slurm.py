"""Submit any command to Slurm through submitit: one GPU per process, shards as an array, requeued on pre-emption.

    python -m evatok.experiments.slurm --gpus 8 --hours 24 stage1_proxy with paper data=webvid.csv workers=8
    python -m evatok.experiments.slurm --gpus 8 --nodes 2 stage5_generator with paper_ucf data=ucf.csv
    python -m evatok.experiments.slurm --array 16 --hours 8 stage2_curation with paper data=webvid.csv

Needs the extra `slurm`. A job that is pre-empted or reaches its time limit is requeued, and the same command resumes
from its saved state. With `--array N` the command runs N times, with shard=0/N to N-1/N.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok import errors
from evatok.errors import EvatokError
from evatok.storage.arguments import with_debug

PORT = 29400
_MARGIN = 300.0  # seconds before the end of a job when it saves and is requeued


class SlurmError(EvatokError, RuntimeError):
    """A command that cannot be submitted, or that failed in its job."""


@dataclass(frozen=True)
class Command:
    """One process of a job: runs `python -m evatok.experiments.<words>` with the rank Slurm assigned.

    Called by submitit in the job; picklable.
    """

    words: tuple[str, ...]
    folder: str

    def __call__(self) -> int:
        import submitit

        where = submitit.JobEnvironment()
        done = subprocess.run(
            [sys.executable, "-m", f"evatok.experiments.{self.words[0]}", *self.words[1:]],
            env={**os.environ, **self.variables(where)},
            cwd=self.folder,
            check=False,
        )
        if done.returncode:
            raise SlurmError(f"{' '.join(self.words)}: exit code {done.returncode}, see its log")
        return done.returncode

    @staticmethod
    def variables(where: Any) -> dict[str, str]:
        """Return what torchrun would set, from submitit's view of the job; nothing for a single process."""
        if where.num_tasks == 1:
            return {}
        told = {"RANK": where.global_rank, "LOCAL_RANK": where.local_rank, "WORLD_SIZE": where.num_tasks}
        told |= {"LOCAL_WORLD_SIZE": where.num_tasks // where.num_nodes}
        told |= {"MASTER_ADDR": where.hostnames[0], "MASTER_PORT": PORT + int(where.job_id.split("_")[0]) % 10_000}
        return {name: str(value) for name, value in told.items()}

    def checkpoint(self) -> Any:
        """Return what to requeue when the job is pre-empted: the same command, which resumes."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def commands(words: list[str], array: int, folder: Path) -> list[Command]:
    """List the commands of a submission: one, or one per shard. Raises SlurmError for invalid words."""
    if not words or words[0].startswith("-"):
        raise SlurmError("no command to submit: give an experiment and its settings, stage1_proxy with paper ...")
    if not (Path(__file__).parent / f"{words[0]}.py").is_file():
        raise SlurmError(f"{words[0]!r} is no experiment; `evatok` lists them")
    if array and any(word.startswith("shard=") for word in words):
        raise SlurmError("--array sets shard itself: leave it out")
    if array and "with" not in words:
        words = [*words, "with"]
    shards = [[f"shard={number}/{array}"] for number in range(array)] or [[]]
    return [Command((*words, *shard), str(folder)) for shard in shards]


def submit(options: argparse.Namespace, make: Callable[..., Any]) -> list[str]:
    """Submit the commands; return their job ids.

    Args:
        make: submitit's AutoExecutor.
    """
    todo = commands(options.command, options.array, Path.cwd())
    executor = make(folder=str(options.log), slurm_max_num_timeout=options.requeues)
    executor.update_parameters(
        name=todo[0].words[0],
        nodes=options.nodes,
        tasks_per_node=max(1, options.gpus),
        gpus_per_node=options.gpus,
        cpus_per_task=options.cpus,
        timeout_min=round(60 * options.hours),
        slurm_signal_delay_s=round(_MARGIN),
        **{f"slurm_{key}": getattr(options, key) for key in ("partition", "account", "qos") if getattr(options, key)},
    )
    with executor.batch():  # an array if there are several
        jobs = [executor.submit(command) for command in todo]
    return [job.job_id for job in jobs]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--nodes", type=int, default=1)
    found.add_argument("--gpus", type=int, default=1, help="GPUs per node, one process each; 0: none")
    found.add_argument("--cpus", type=int, default=8, help="CPUs per process")
    found.add_argument("--hours", type=float, default=24.0, help="time limit of a job, after which it is requeued")
    found.add_argument("--requeues", type=int, default=100, help="maximum requeues per job")
    found.add_argument("--array", type=int, default=0, help="number of jobs, each with a shard of the work")
    for name in ("partition", "account", "qos"):
        found.add_argument(f"--{name}", default="")
    found.add_argument("--log", type=Path, default=Path("results/slurm"), help="folder of the job logs")
    found.add_argument("command", nargs=argparse.REMAINDER, help="experiment and settings")
    return with_debug(found)


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    with errors.one_line("slurm", debug=options.debug):
        commands(options.command, options.array, Path.cwd())
        try:
            from submitit import AutoExecutor
        except ImportError as error:
            raise SlurmError('submitting needs submitit: pip install "evatok[slurm]"') from error
        for job in submit(options, AutoExecutor):
            print(f"submitted {job}; logs in {options.log}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
