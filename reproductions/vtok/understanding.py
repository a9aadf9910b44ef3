"""Train everything in VTok's Tables 3 to 5, one after another, and build the tables.

    python reproductions/vtok/understanding.py                  two to four hours on one core; resumes after a kill
    python reproductions/vtok/understanding.py --only vtok      one row, and what it starts from
    python reproductions/vtok/understanding.py --of freedoom    the rows on Freedoom's clips instead
    python reproductions/vtok/understanding.py --of longer      three rows with four times the clips and steps
    python reproductions/vtok/understanding.py --minutes 20     as far as 20 minutes reach, then again
    python reproductions/vtok/understanding.py --quick          some minutes: proves the path, not the numbers

Runs the recipes `evatok make vtok`, vtok-freedoom or vtok-longer: image encoder, stage A on stills, then each row
(`evatok.reporting.vtok_rows.FAMILIES`) with each seed. Finished trainings are not rerun; a killed one resumes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from evatok import errors
from evatok.experiments import make
from evatok.experiments.recipe import Recipe
from evatok.experiments.vtok_recipes import name_of
from evatok.reporting.vtok_rows import FAMILIES, SEEDS
from evatok.storage.arguments import with_debug
from evatok.storage.environment import REPOSITORY

QUICK: dict[str, dict[str, Any]] = {
    "train_image_encoder": {"steps": 40, "train_clips": 200, "validation_clips": 40, "batch": 16},
    "vtok_stills": {"steps": 20, "train_clips": 200, "test_clips": 40, "batch": 16},
    "vtok_understanding": {"steps": 20, "train_clips": 40, "batch": 16, "limit": 20},
}


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    known = FAMILIES[options.of].specs
    odd = [row for row in options.only or () if row not in known]
    if odd:
        parser.error(f"no row {odd[0]!r}: {', '.join(known)}")
    names = [name_of(row, seed, options.of) for seed in options.seeds for row in options.only or known]
    with errors.one_line("understanding", debug=options.debug):
        make.make_in_time(names, options.minutes, _quick if options.quick else None)
    for name in (options.of,) if options.of else ("table3", "table4", "table5", "figure1"):
        subprocess.run([sys.executable, f"reproductions/vtok/{name}.py"], check=True, cwd=REPOSITORY)
    return 0


def _quick(recipe: Recipe) -> dict[str, Any]:
    """Use a handful of steps and clips; a row measured without training keeps its 0 steps."""
    kept = {"steps"} if "steps" in recipe.settings else set()
    return {name: value for name, value in QUICK[recipe.experiment].items() if name not in kept}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=[name for name in FAMILIES if name], default="", help="other rows, see above")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="only these rows")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="default: 0 1 2")
    parser.add_argument("--minutes", type=float, default=0.0, help="wall-clock budget (0: none)")
    parser.add_argument("--quick", action="store_true", help="a handful of steps and clips")
    return with_debug(parser)


if __name__ == "__main__":
    sys.exit(main())
