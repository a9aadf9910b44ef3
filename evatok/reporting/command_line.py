"""The command line of an item's script: the folder of results, and a user's own clips to measure it on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from evatok.storage import records
from evatok.storage.filenames import file_name
from evatok.storage.records import Record


@dataclass(frozen=True)
class OwnClips:
    """A user's clips on which a table is measured: the set's name and hash, and the protocol of their records."""

    name: str
    sha256: str
    protocol: str

    def has(self, record: Record) -> bool:
        return bool(record.protocol["manifest"].get("sha256") == self.sha256)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--results`."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--results", type=Path, default=records.REPOSITORY / "results", help="folder of results")
    return found


def with_own(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with the options of clips of the user's own."""
    found.add_argument("--size", default="toy", help="size of the networks: toy, small or paper")
    found.add_argument("--data", default="", help="your own videos: a manifest CSV or a folder of class folders")
    found.add_argument(
        "--fps", type=float, default=None, help="frames per second sampled from them (default: their own)"
    )
    found.add_argument("--clips", "--limit", type=int, default=0, dest="clips", help="use the first (default: all)")
    return found


def with_metrics(found: argparse.ArgumentParser, metrics: str) -> argparse.ArgumentParser:
    """The parser with a choice of what to measure on them."""
    found.add_argument("--metrics", default=metrics, help=f"metrics of --data, between commas (default: {metrics})")
    return found


def ending(name: str) -> str:
    """What the names of files end in that are of a set of this name."""
    return f"_{file_name(name)}"
