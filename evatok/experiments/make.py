"""Regenerate shipped artefacts: run the recipes they need, in order, resuming where a killed run stopped.

    python -m evatok.experiments.make --list
    python -m evatok.experiments.make --dry-run table3
    python -m evatok.experiments.make router-toy-pyramid-wq1.2
    python -m evatok.experiments.make --unrecorded finals

Existing files are not regenerated, nor are their prerequisites; delete a file, or pass --again, to do so. Files under
`results/work` are not shipped, so a fresh clone trains what they need anew; with --unrecorded it makes only what no
record tells yet.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evatok import errors
from evatok.errors import EvatokError
from evatok.experiments import recipes
from evatok.experiments.made import is_made, is_recorded, state_of
from evatok.experiments.recipes import Recipe
from evatok.storage import records
from evatok.storage.arguments import with_debug
from evatok.storage.environment import REPOSITORY
from evatok.storage.records import Record

RECORDS = REPOSITORY / "results" / "records"


class MakeError(EvatokError, RuntimeError):
    """A recipe whose command failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m evatok.experiments.make",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes or groups of them")
    parser.add_argument("--list", action="store_true", help="show all recipes and groups")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and their hours")
    parser.add_argument("--again", action="store_true", help="regenerate the named ones even if they exist")
    parser.add_argument(
        "--unrecorded", action="store_true", help="leave out what a record of the same configuration and inputs tells"
    )
    options = with_debug(parser).parse_args(argv)
    if options.again and options.unrecorded:
        parser.error("--again makes what is there and --unrecorded leaves it out: pass one of them")
    if options.list or not options.names:
        print(listing())
        return 0
    todo, known = _todo(options), len(recipes.wanted(options.names))
    print(f"{len(todo)} of {known} to make, about {sum(recipe.hours for recipe in todo):.1f} hours")
    for number, recipe in enumerate(todo, 1):
        for command in commands(recipe):
            print(f"[{number}/{len(todo)}] {recipe.name}: {shlex.join(['python', *command])}", flush=True)
        if not options.dry_run:
            run(recipe)
    return 0


def _todo(options: argparse.Namespace) -> list[Recipe]:
    told = records.query(RECORDS) if options.unrecorded else ()
    return to_make(options.names, again=options.again, recorded=told)


def members(name: str) -> list[Recipe]:
    """Return the recipe of this name, or a group's, without dependencies."""
    known = recipes.every_recipe()
    return [known[member] for member in recipes.groups().get(name, (name,)) if member in known]


def to_make(names: Sequence[str], *, again: bool = False, recorded: Sequence[Record] = ()) -> list[Recipe]:
    """List what to run for these recipes and groups, in order: whatever is missing or outdated.

    A missing file is not needed if everything made from it exists and is up to date: a shipped checkpoint does not
    require its training clips. Nor is a recipe that one of `recorded` tells of, unless a further one needs its file.
    """
    asked = {recipe.name for name in names for recipe in members(name)}
    wanted = recipes.wanted(names)
    states = {recipe.name: state_of(recipe) for recipe in wanted}
    stale = {name for name, state in states.items() if state == "outdated" or (again and name in asked)}
    for recipe in wanted:  # whatever depends on something outdated is outdated
        if states[recipe.name] and stale.intersection(recipe.needs):
            stale.add(recipe.name)
    told = {r.name for r in wanted if r.name in asked and not stale.intersection(r.needs) and is_recorded(r, recorded)}
    required, todo = asked - told, []
    for recipe in reversed(wanted):
        if recipe.name in stale or (not states[recipe.name] and recipe.name in required):
            required.update(recipe.needs)
            todo.append(recipe)
    return todo[::-1]


def commands(recipe: Recipe, **further: Any) -> list[list[str]]:
    """List the commands to run side by side: one, or one per shard share; `further` overrides settings."""
    if recipe.processes == 1:
        return [recipe.command(**further)]
    shares = range(recipe.processes)
    return [recipe.command(**further, threads=1, shard=f"{i}/{recipe.processes}") for i in shares]


def run(recipe: Recipe, **further: Any) -> None:
    """Run a recipe to completion; `further` overrides its settings.

    Raises:
        MakeError: a command failed; its own line says why.
    """
    together = [subprocess.Popen([sys.executable, *command], cwd=REPOSITORY) for command in commands(recipe, **further)]
    try:
        codes = [process.wait() for process in together]
    except BaseException:
        for process in together:
            process.terminate()
        for process in together:
            process.wait()
        raise
    if recipe.processes > 1 and not any(codes) and not is_made(recipe):
        # Each share saw the others unfinished: nothing is left to score, so one more run merges them.
        codes = [subprocess.run([sys.executable, *recipe.command(**further)], cwd=REPOSITORY, check=False).returncode]
    if any(codes):
        raise MakeError(f"{recipe.name} exited with code {max(codes)}; see its error above. {_RESUME}")


def make_in_time(
    names: Iterable[str], minutes: float, further: Callable[[Recipe], Mapping[str, Any]] | None = None
) -> None:
    """Make what is missing of these and their prerequisites, in order, until `minutes` (0: no limit) have passed.

    Unlike `main`, it does not measure anew what a record tells of today's files. `further` overrides settings of a
    recipe. Raises MakeError as `run` does.
    """
    deadline = time.monotonic() + 60 * minutes if minutes else None
    for recipe in to_make(list(names)):
        if not (recipe.outcome or further) and is_recorded(recipe, records.query(RECORDS, recipe.experiment)):
            continue
        left = (deadline - time.monotonic()) / 60 if deadline else 0.0
        if deadline and left <= 0:
            return
        budget = {"minutes": round(left, 2)} if deadline and recipe.outcome else {}
        run(recipe, **(further(recipe) if further else {}), **budget)
        if recipe.outcome and not is_made(recipe):
            return  # out of time


_RESUME = "Run the same command again to resume."


def listing() -> str:
    """List every recipe with its hours and state, and the groups."""
    known = recipes.every_recipe()
    lines = ["recipes:"]
    for recipe in known.values():
        lines.append(f"  {recipe.name:56} {recipe.experiment:18} {recipe.hours:5.1f} h  {state_of(recipe)}".rstrip())
    lines += ["", "groups:", *(f"  {name:12} {len(held)} recipes" for name, held in recipes.groups().items())]
    return "\n".join(lines)


if __name__ == "__main__":
    with errors.one_line("evatok.experiments.make", debug="--debug" in sys.argv):
        sys.exit(main())
