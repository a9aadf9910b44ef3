"""Train everything that VTok's Tables 3 to 5 show, one after another, and make the tables.

    python reproductions/vtok/understanding.py                  two to four hours on one core; again after a kill
    python reproductions/vtok/understanding.py --only vtok      one row, and what it starts from
    python reproductions/vtok/understanding.py --minutes 20     as far as that reaches, then again
    python reproductions/vtok/understanding.py --quick          some minutes: proves the path, not the numbers

Image encoder, stage A on stills, then each row (`evatok.reporting.vtok_rows.ROWS`) with each seed. What is finished is
not trained again; a training that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok.reporting.vtok_rows import BY_NAME, ROWS, SEEDS, RowSpec
from evatok.storage.environment import REPOSITORY

QUICK: dict[str, dict[str, Any]] = {
    "train_image_encoder": {"steps": 40, "train_clips": 200, "validation_clips": 40, "batch": 16},
    "vtok_stills": {"steps": 20, "train_clips": 200, "test_clips": 40, "batch": 16},
    "vtok_understanding": {"steps": 20, "train_clips": 40, "batch": 16, "limit": 20},
}


@dataclass(frozen=True)
class Job:
    """One experiment with its settings, and the file that says that it is finished."""

    experiment: str
    settings: dict[str, Any]
    checkpoint: Path


def jobs(results: Path, rows: tuple[RowSpec, ...], seeds: tuple[int, ...]) -> list[Job]:
    """All trainings in order; a row that starts from another comes after it."""
    checkpoints, work = results / "checkpoints", results / "work" / "vtok"
    encoder, stills = checkpoints / "vtok-image-encoder-toy.safetensors", checkpoints / "vtok-stills-toy.safetensors"
    places = {"records_folder": results / "records"}
    kept = {**places, "encoder": encoder, "per_clip": results / "per_clip"}
    found = [
        Job("train_image_encoder", {**places, "work": work / "image_encoder", "checkpoint": encoder}, encoder),
        Job("vtok_stills", {**kept, "work": work / "stills", "checkpoint": stills}, stills),
    ]
    for seed in seeds:
        made = {row.name: work / "models" / f"{row.name}-{seed}.safetensors" for row in ROWS}
        for row in rows:
            start = made[row.swap_of] if row.swap_of else stills
            folder = work / "understanding" / f"{row.name}-{seed}"
            settings = {**kept, **row.settings(), "seed": seed, "start": start, "work": folder}
            found.append(Job("vtok_understanding", {**settings, "checkpoint": made[row.name]}, made[row.name]))
    return found


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    rows = tuple(row for row in ROWS if not options.only or row.name in options.only)
    needed = {row.swap_of for row in rows if row.swap_of} - {row.name for row in rows}
    rows = (*(BY_NAME[name] for name in sorted(needed)), *rows)
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    for job in jobs(options.results, rows, tuple(options.seeds)):
        if job.checkpoint.exists():
            continue
        left = (deadline - time.monotonic()) / 60 if deadline else 0.0
        if deadline and left <= 0:
            break
        _run(job, left, options.quick)
        if not job.checkpoint.exists():
            break  # its time was up
    for name in ("table3", "table4", "table5", "figure1"):
        command = [sys.executable, f"reproductions/vtok/{name}.py", "--results", str(options.results)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
    return 0


def _run(job: Job, minutes: float, quick: bool) -> None:
    settings = {**job.settings, **({"minutes": f"{minutes:.2f}"} if minutes else {})}
    if quick:
        settings = {**QUICK[job.experiment], **settings}  # a row that is measured without training keeps steps=0
    given = [f"{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", f"evatok.experiments.{job.experiment}", "with", "toy", *given]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    subprocess.run(command, check=True, cwd=REPOSITORY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(BY_NAME), metavar="ROW", help="these rows alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="default: 0 1")
    parser.add_argument("--minutes", type=float, default=0.0, help="wall-clock budget (0: none)")
    parser.add_argument("--quick", action="store_true", help="a handful of steps and clips")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
