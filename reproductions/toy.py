"""Stages 1 to 3 from scratch on a CPU at toy size, ending with a Table 3 of their own.

    python reproductions/toy.py             under 20 minutes on 2 cores
    python reproductions/toy.py --quick     some minutes: proves the path, not the numbers

Everything lands in results/toy. Run again after a kill, each stage goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from evatok.storage import records

FOLDER = Path("results/toy")
TABLES = FOLDER / "tables" / "candidates"
POINTS = {"matched": ("w_q=1.2", "token_share=0.704"), "wq1.2": ("w_q=1.2", "token_share=0.0")}
ROUTERS = {
    "hard": ("target=hard",),
    "soft": ("target=soft",),
    "pyramid": ("router=pyramid", "target=soft", "learning_rate=1e-3", "dropout=0.2"),
    "features": ("router=features", "target=soft", "learning_rate=2e-3"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a handful of steps and clips")
    quick = parser.parse_args(argv).quick
    if importlib.util.find_spec("ale_py") is None:
        print('the unseen clips need ale-py: pip install "evatok[arcade]"', file=sys.stderr)
        return 2
    started = time.monotonic()
    proxy = FOLDER / "checkpoints" / "proxy-toy.safetensors"
    stage1(proxy, quick)
    stage2(proxy, quick)
    stage3(quick)
    run([sys.executable, "reproductions/table3.py", "--results", str(FOLDER)])
    print(f"stages 1 to 3 and their table took {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def stage1(proxy: Path, quick: bool) -> None:
    size = ("steps=40", "train_clips=64", "validation_clips=16") if quick else ()
    experiment("stage1_proxy", f"work={FOLDER}/work/proxy", f"checkpoint={proxy}", *size)


def stage2(proxy: Path, quick: bool) -> None:
    counts = {"train": 16, "validation": 8, "unseen": 8} if quick else {"train": 160, "validation": 32, "unseen": 32}
    sources = {
        "train": ("freedoom", "train"),
        "validation": ("freedoom", "validation"),
        "unseen": ("arcade", "validation"),
    }
    for name, (data, split) in sources.items():
        experiment(
            "stage2_curation",
            f"tokenizer={proxy}",
            f"data={data}",
            f"split={split}",
            f"clips={counts[name]}",
            f"work={FOLDER}/work/curation",
            f"table={TABLES}/{data}-{split}.parquet",
            f"batch={min(32, counts[name])}",
        )


def stage3(quick: bool) -> None:
    size = ("steps=40", "batch=8", "save_every=20") if quick else ()
    for point, weights in POINTS.items():
        for kind, settings in ROUTERS.items():
            experiment(
                "stage3_router",
                *weights,
                *settings,
                f"train_table={TABLES}/freedoom-train.parquet",
                f"validation_table={TABLES}/freedoom-validation.parquet",
                f"work={FOLDER}/work/router-{kind}-{point}",
                f"checkpoint={FOLDER}/checkpoints/router-toy-{kind}-{point}.safetensors",
                *size,
            )


def experiment(name: str, *settings: str) -> None:
    """One experiment at toy size, as a user would start it."""
    common = ("toy", f"records_folder={FOLDER}/records")
    run([sys.executable, "-m", f"evatok.experiments.{name}", "with", *common, *settings])


def run(command: list[str]) -> None:
    print("$", " ".join(["python", *command[1:]]), flush=True)
    subprocess.run(command, check=True, cwd=records.REPOSITORY)


if __name__ == "__main__":
    sys.exit(main())
