"""Stages 1 to 3 from scratch on a CPU at toy size, ending with their own Table 3.

    python reproductions/toy.py             under 20 minutes on 2 cores
    python reproductions/toy.py --quick     some minutes: proves the path, not the numbers

Runs the recipes `evatok make scratch`; everything lands in results/toy. A rerun after a kill resumes.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
import time
from typing import Any

from evatok import errors
from evatok.experiments import made, make, recipes
from evatok.experiments.scratch_recipes import FOLDER
from evatok.storage.arguments import with_debug
from evatok.storage.environment import REPOSITORY

QUICK: dict[str, dict[str, Any]] = {
    "stage1_proxy": {"steps": 40, "train_clips": 64, "validation_clips": 16},
    "stage2_curation": {"clips": 8, "batch": 8},
    "stage3_router": {"steps": 40, "batch": 8, "save_every": 20},
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a handful of steps and clips")
    options = with_debug(parser).parse_args(argv)
    if importlib.util.find_spec("ale_py") is None:
        print('the unseen clips need ale-py: pip install "evatok[arcade]"', file=sys.stderr)
        return 2
    started = time.monotonic()
    with errors.one_line("toy", debug=options.debug):
        for recipe in recipes.wanted(["scratch"]):
            further = QUICK[recipe.experiment] if options.quick else {}
            print("$", shlex.join(["python", *recipe.command(**further)]), flush=True)
            if not made.is_made(recipe):
                make.run(recipe, **further)
    subprocess.run([sys.executable, "reproductions/table3.py", "--results", FOLDER], check=True, cwd=REPOSITORY)
    print(f"stages 1 to 3 and their table took {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
