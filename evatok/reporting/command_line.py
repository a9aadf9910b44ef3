"""Command line of an item's script: the results folder, and options to measure the item on a user's own clips."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evatok import errors
from evatok.errors import EvatokError
from evatok.storage import records
from evatok.storage.arguments import positive, rate, with_debug
from evatok.storage.filenames import file_name
from evatok.storage.records import Record

SHIPPED = records.REPOSITORY / "results"
SEARCHES = ("tree", "beam")
"""How a user's clips are scored: under every candidate, or under those that a beam visits."""
SIZES = records.STATUSES
"""Sizes of the networks."""


class CommandLineError(EvatokError, ValueError):
    """Options that do not go together, or name what is not there."""


@dataclass(frozen=True)
class OwnClips:
    """A user's clips for a table: the set's name and hash, and the protocol of their records."""

    name: str
    sha256: str
    protocol: str

    def has(self, record: Record) -> bool:
        return bool(record.protocol["manifest"].get("sha256") == self.sha256)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Build a parser that accepts `--results` and `--debug`."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--results", type=Path, default=SHIPPED, help="folder of results")
    return with_debug(found)


@contextmanager
def one_line(name: str, asked: argparse.Namespace) -> Iterator[None]:
    """End a script in one line for whatever goes wrong within (`evatok.errors`), unless `--debug` is given.

    Args:
        name: of the script, with which the line begins.
        asked: the options of `parser`. Without `--data` the folder of results must exist: it is what the script reads.
    """
    with errors.one_line(name, debug=asked.debug):
        if not getattr(asked, "data", ""):
            check_results(asked.results)
        yield


@contextmanager
def results_of(name: str, description: str | None, argv: list[str] | None = None) -> Iterator[Path]:
    """Run a script that has no further options on the folder that `--results` names; see `one_line`."""
    asked = parser(description).parse_args(argv)
    with one_line(name, asked):
        yield asked.results


def check_results(folder: Path) -> None:
    """Raise CommandLineError for a folder of results that does not exist."""
    if not folder.is_dir():
        raise CommandLineError(
            f"--results {folder}: there is no such folder; give the one that holds records (default: {SHIPPED})"
        )


def with_size(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the choice of networks by their size."""
    found.add_argument("--size", choices=SIZES, default="toy", help="size of the networks (default: toy)")
    return found


def with_own(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options for a user's own clips to the parser."""
    with_size(found)
    found.add_argument("--data", default="", help="your own videos: a manifest CSV or a folder of class folders")
    found.add_argument(
        "--fps", type=rate, default=None, help="frames per second sampled from them (default: their own)"
    )
    found.add_argument(
        "--clips", "--limit", type=positive, default=0, dest="clips", help="use the first (default: all)"
    )
    told = "folder of the networks (default: RESULTS/checkpoints; with --data, where there is none, the shipped ones)"
    found.add_argument("--checkpoints", type=Path, help=told)
    return found


def checkpoints_folder(asked: argparse.Namespace) -> Path:
    """Return the folder of the networks: as requested, the results' or, for a user's own clips, the shipped one."""
    folder: Path = asked.checkpoints or asked.results / "checkpoints"
    return folder if folder.exists() or asked.checkpoints or not asked.data else SHIPPED / "checkpoints"


def with_networks(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options for a user's own networks, for their clips."""
    found.add_argument(
        "--proxy", type=Path, help="your proxy tokenizer: its levels and blocks decide the candidates (default: ours)"
    )
    found.add_argument(
        "--router", type=Path, nargs="+", default=[], help="your routers on that proxy, each a row of its own"
    )
    return found


def with_search(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the choice of how many candidates are scored."""
    told = "tree: all candidates, exact; beam: few of them, and so no percentiles (default: tree)"
    found.add_argument("--search", choices=SEARCHES, default=SEARCHES[0], help=told)
    return found


def check_own(asked: argparse.Namespace) -> None:
    """Raise CommandLineError for a user's own networks or search without their own clips."""
    given = {"--proxy": asked.proxy, "--router": asked.router, "--search": getattr(asked, "search", "tree") != "tree"}
    odd = [name for name, value in given.items() if value]
    if odd and not asked.data:
        raise CommandLineError(
            f"{odd[0]} is for clips of your own: give --data FOLDER_OR_CSV; the embedded sets are shown with the "
            "networks that their records are of"
        )


def with_metrics(found: argparse.ArgumentParser, metrics: str) -> argparse.ArgumentParser:
    """Add the choice of metrics for a user's own clips."""
    found.add_argument("--metrics", default=metrics, help=f"metrics of --data, between commas (default: {metrics})")
    return found


def ending(name: str) -> str:
    """Return the suffix of file names for a set of this name."""
    return f"_{file_name(name)}"
