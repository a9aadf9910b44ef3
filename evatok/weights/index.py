"""Read a source archive, downloaded from the package index that pip is configured for, without running its code.

`pip download` would build an archive's metadata, which runs its setup.py. Restricted to wheels, pip only names the
archive that it skips and runs nothing; it still respects the user's mirrors, extra indexes and find-links folders.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from evatok.errors import EvatokError
from evatok.storage.leftovers import temporary_folder
from evatok.weights import DOWNLOAD_TIMEOUT, WeightsError

PIP_TIMEOUT = 180.0  # seconds after which pip counts as stuck; slow mirrors have taken 20


class ArchiveError(EvatokError, RuntimeError):
    """pip is missing, or its index does not respond or does not have the archive."""


@contextmanager
def archive_of(project: str, version: str, place: Path) -> Iterator[Path]:
    """Path of the source archive: `place`, if it is there, else a download that is gone afterwards.

    Raises ArchiveError, naming the cause, if it cannot be downloaded.
    """
    if place.exists():
        yield place
        return
    with temporary_folder(f"evatok-{project}-") as scratch:
        fetched = scratch / place.name
        fetch_archive(project, version, fetched)
        yield fetched


def read_member(archive: Path, name: str, size: int, of: str) -> bytes:
    """Read one file of the archive of `of`: `size` bytes, one more at most. Raises WeightsError for a damaged one."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = tar.extractfile(name)
            if member is None:
                raise tarfile.TarError(f"{name} is not a file")
            return member.read(size + 1)  # never more, whatever the archive claims
    except (tarfile.TarError, zlib.error, EOFError, KeyError, OSError) as error:
        raise WeightsError(f"{archive} is not a complete archive of {of} ({error}): delete it") from error


def fetch_archive(project: str, version: str, path: Path) -> None:
    """Download the source archive of `project` at `version` to `path`. Raises ArchiveError, naming the cause."""
    url = archive_url(project, version)
    try:
        _fetch(url, path)
    except (OSError, ValueError) as error:  # no route, a timeout, a broken connection; an unknown URL scheme
        raise ArchiveError(f"{url}: {error}") from error


def archive_url(project: str, version: str) -> str:
    """Find the URL (https:// or file://) from which pip would take the source archive. Raises ArchiveError."""
    output = _ask_pip(f"{project}=={version}")
    names = re.escape(project).replace(r"\-", "[-_]")
    match = re.search(rf"\b(?:https?|file)://\S+/{names}-{re.escape(version)}\.tar\.gz", output)
    if match is None:
        errors = [line for line in output.splitlines() if line.startswith(("ERROR", "WARNING"))]
        raise ArchiveError(f"pip finds no archive of {project} {version}: {_last(errors or output.splitlines())}")
    return match.group()


def _ask_pip(requirement: str) -> str:
    """Output of pip while it searches for a wheel of `requirement`, which does not exist."""
    options = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
        "--timeout",
        str(DOWNLOAD_TIMEOUT),
        "--retries",
        "1",
    ]
    command = [*_pip(), "download", "-vv", "--disable-pip-version-check", *options, requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ArchiveError(f"pip does not respond: {error}") from error
    return done.stdout + done.stderr


def _pip() -> list[str]:
    """This interpreter's pip, else the one on PATH, because environments made by uv have no pip."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    on_path = shutil.which("pip") or shutil.which("pip3")
    if on_path is None:
        raise ArchiveError(f"pip is missing: neither a module of {sys.executable} nor on PATH")
    return [on_path]


def _fetch(url: str, path: Path) -> None:
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))  # as pip itself trusts its index
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT, context=context) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(response, "read", total=total or None, desc=path.name, disable=None) as body:
            shutil.copyfileobj(body, file, 1 << 20)


def _last(lines: list[str]) -> str:
    return lines[-1].strip() if lines else "no output"
