"""Train and sample everything that VTok's tables of generation show (1, 2, 4 and 5), and make the tables.

    python reproductions/vtok/generation.py                  about eight hours on one core; resumes after a kill
    python reproductions/vtok/generation.py --only vtok      one row, and what it starts from
    python reproductions/vtok/generation.py --only true      the ceiling: look at it first
    python reproductions/vtok/generation.py --seeds 0 --minutes 60

Runs the recipes `evatok make vtok-generation`: the decoder (1.2 s per step on one core, 5,000 steps), then for each row
and seed a writer (0.25 s per step, 3,000 steps) from the model of stage B, and its samples (0.2 s each, 1,001).
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from evatok import errors
from evatok.experiments import make
from evatok.experiments.vtok_generation_recipes import align_of
from evatok.reporting.vtok_generated import MADE_BY_NAME
from evatok.reporting.vtok_rows import SEEDS
from evatok.storage.arguments import with_debug
from evatok.storage.environment import REPOSITORY

TABLES = ("table1", "table2", "table4_generation", "table5_generation", "figure2")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(MADE_BY_NAME), metavar="ROW", help="only these rows")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS), help="default: 0 1 2")
    parser.add_argument("--minutes", type=float, default=0.0, help="wall-clock budget (0: none)")
    options = with_debug(parser).parse_args(argv)
    names = [align_of(row, seed) for seed in options.seeds for row in options.only or MADE_BY_NAME]
    with errors.one_line("generation", debug=options.debug):
        make.make_in_time(names, options.minutes)
    for name in TABLES:
        subprocess.run([sys.executable, f"reproductions/vtok/{name}.py"], check=True, cwd=REPOSITORY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
