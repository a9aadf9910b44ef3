"""Train and sample everything that VTok's tables of generation show (1, 2, 4 and 5), and make the tables.

    python reproductions/vtok/generation.py                  most of a day on one core; resumes after a kill
    python reproductions/vtok/generation.py --only vtok      one row, and what it starts from
    python reproductions/vtok/generation.py --only true      the ceiling alone
    python reproductions/vtok/generation.py --seeds 0 --minutes 60

Runs the recipes `evatok make vtok-generation`: the decoder, then the ceiling, clips decoded from true tokens. If these
do not show what they should, no claim about generation can be made, and it stops there unless --anyway is given. Then,
for each row and seed, a writer from the model of stage B, and its samples. `python -m evatok.experiments.make --dry-run
vtok-generation` tells the hours. Samples keep 380 MB per row and seed in results/work.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from evatok import errors
from evatok.experiments import make
from evatok.experiments.vtok_generation_recipes import align_of
from evatok.reporting.vtok_generated import CEILING, GENERATION, MADE_BY_NAME
from evatok.reporting.vtok_rows import SEEDS, shown
from evatok.storage.arguments import with_debug
from evatok.storage.environment import REPOSITORY
from evatok.vtok.scoring import AVERAGE

TABLES = ("table1", "table2", "table4_generation", "table5_generation", "figure2")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(MADE_BY_NAME), metavar="ROW", help="only these rows")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS), help="default: 0 1 2")
    parser.add_argument("--minutes", type=float, default=0.0, help="wall-clock budget (0: none)")
    parser.add_argument("--anyway", action="store_true", help="go on below the ceiling's threshold")
    options = with_debug(parser).parse_args(argv)
    names = [align_of(row, seed) for seed in options.seeds for row in options.only or MADE_BY_NAME]
    with errors.one_line("generation", debug=options.debug):
        started = time.monotonic()
        make.make_in_time([align_of("true", options.seeds[0])], options.minutes)
        left = options.minutes - (time.monotonic() - started) / 60
        if (not options.minutes or left > 0) and (options.anyway or _reaches_the_ceiling()):
            make.make_in_time(names, max(left, 0.0))
    for name in TABLES:
        subprocess.run([sys.executable, f"reproductions/vtok/{name}.py"], check=True, cwd=REPOSITORY)
    return 0


def _reaches_the_ceiling() -> bool:
    """Whether clips of true tokens show enough to compare rows; if not, say what to do."""
    value = shown(make.RECORDS, ("true",), family=GENERATION)["true"].value(AVERAGE)
    if value is None:
        print("Clips decoded from true tokens are not measured yet: run the same command again to resume.")
    elif value < CEILING:
        print(
            f"Clips decoded from true tokens answer {value:.1f} % of the questions, below {CEILING:g} %: no claim can "
            "be made, so no writer is trained. Train the decoder longer (vtok_decoder with toy steps=...), or pass "
            "--anyway."
        )
    return value is not None and value >= CEILING


if __name__ == "__main__":
    sys.exit(main())
