"""Measure every stage's speed as ratios within one run; write a record and results/tables/speed.csv.

python -m benchmarks.speed                         toy size on a CPU, minutes
python -m benchmarks.speed --device cuda --size paper    what `python -m benchmarks.gpu` does
python -m benchmarks.speed --only encode decode    only these measurements
python -m benchmarks.speed --list
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks import registry, writing
from benchmarks.registry import Measured
from benchmarks.setting import Setting
from evatok.storage import records


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        print("\n".join(registry.MEASUREMENTS))
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks: no CUDA GPU here; --device cpu measures the toy size", file=sys.stderr)
        return 2
    try:
        setting = Setting.of(
            arguments.device,
            arguments.size,
            bf16=not arguments.fp32,
            compiled=arguments.compile,
            repeats=arguments.repeats,
        )
        run(setting, arguments.results, arguments.only)
    except (ValueError, records.RecordError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--size", choices=("toy", "small", "paper"), default="toy", help="size of the networks")
    options.add_argument("--fp32", action="store_true", help="disable bfloat16 autocast")
    options.add_argument(
        "--compile", action="store_true", help="also measure torch.compile, which takes a few minutes more"
    )
    options.add_argument("--repeats", type=int, default=3, help="repetitions per measurement")
    options.add_argument("--only", nargs="+", metavar="NAME", help="only these measurements")
    options.add_argument("--list", action="store_true", help="list the measurements")
    options.add_argument("--results", type=Path, default=records.REPOSITORY / "results", help="folder of results")
    return options


def run(setting: Setting, results: Path, only: list[str] | None = None) -> Measured:
    """Measure, write and print."""
    started = time.monotonic()
    measured = registry.measure(setting, only)
    if not measured.ratios:
        told = "; ".join(f"{failure.row}: {failure.reason}" for failure in measured.failures)
        raise ValueError(f"nothing was measured ({told or 'there is nothing to measure of it here'})")
    record = writing.write(
        measured, setting, results, seconds=time.monotonic() - started, complete=writing.is_complete(only, setting)
    )
    print(summary(measured))
    print(f"\n{record.id}, {record.environment['wall_seconds']:.0f} s; {results / 'tables' / 'speed.csv'}")
    return measured


def summary(measured: Measured) -> str:
    """One line per ratio, with its note, and one per failure."""
    lines = [
        f"{r.row:32} {r.metric:34} {r.baseline:12.5g} {r.ours:12.5g} {r.ratio:8.2f}x  {r.note}" for r in measured.ratios
    ]
    return "\n".join(lines + [f"{f.row:32} failed: {f.reason}" for f in measured.failures])


if __name__ == "__main__":
    sys.exit(main())
