"""Hashes of a folder's files, stored beside them, so that files changed since are not used."""

from __future__ import annotations

import json
import os
from pathlib import Path

from evatok.errors import EvatokError
from evatok.storage.files import ordinary, sha256_file, write_json

NAME = "checksums.json"


class ChecksumError(EvatokError, ValueError):
    """A file that is missing, or has changed since it was written."""


def write(folder: Path) -> None:
    """Write the sha256 of every file directly in `folder`, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != NAME)
    write_json(folder / NAME, {path.name: sha256_file(path) for path in files})


def check(folder: Path) -> None:
    """Compare files with their recorded hashes: in `checksums.json`, or, in the hub's cache, in their names.

    Files without a recorded hash pass. Raises ChecksumError.
    """
    named: dict[str, str] = {}
    if (folder / NAME).exists():
        try:
            named = dict(json.loads(ordinary(folder / NAME).read_text()).items())
        except (ValueError, AttributeError) as error:
            raise ChecksumError(f"{folder / NAME} does not map names to their sha256") from error
    for path in (path for path in folder.iterdir() if path.is_symlink()):
        target = Path(os.path.realpath(path)).name  # resolves links, and leaves a link loop as is
        if _is_sha256(target):  # the hub's cache calls large files by their content
            named[path.name] = target
    for name, sha256 in sorted(named.items()):
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ChecksumError(f"{path} is missing, though {NAME} lists it; fetch or make {folder} again")
        if sha256_file(path) != sha256:
            raise ChecksumError(f"{path} has changed since it was written (its sha256 differs); fetch or make it again")


def _is_sha256(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")
