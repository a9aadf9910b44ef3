"""Where a number was measured: commit, versions, device; and removal of absolute paths from text."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = (
    *("evatok", "torch", "torchvision", "numpy", "scipy", "pandas", "einops", "lpips", "sacred", "safetensors"),
    *("vector-quantize-pytorch", "decord", "av", "pyarrow", "transformers", "accelerate", "vizdoom"),
)
"""Packages whose versions an environment lists."""

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_ABSOLUTE_PATH = re.compile(r"(?<![\w/.:~-])/[^\s'\",\])}=/]+/[^\s'\",\])}=]*")


def environment(wall_seconds: float | None = None) -> dict[str, Any]:
    """Describe where this process runs: argv, commit and dirty flag (None outside a checkout), versions, device, ...

    `wall_seconds` is the duration of the measured work, as timed by the caller. Results are excluded from the dirty
    flag: they are what a run writes. PyTorch is only queried if it is already loaded.
    """
    commit, dirty = _commit()
    torch = sys.modules.get("torch")
    return {
        "argv": portable(sys.argv),
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "wall_seconds": wall_seconds,
    }


def portable(value: Any, root: Path = REPOSITORY) -> Any:
    """Return `value` with absolute paths in its strings relative to `root`, or reduced to names if outside it.

    Covers nested dictionaries and lists, `key=/a/path` and paths within a longer text; user names and
    passwords in URLs are dropped.
    """
    if isinstance(value, Mapping):
        return {key: portable(v, root) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [portable(v, root) for v in value]
    if not isinstance(value, str | Path):
        return value
    text = _CREDENTIALS.sub("", str(value))
    if ",/" in text:  # comma-separated paths
        return ",".join(portable(part, root) for part in text.split(","))
    head, mark, tail = text.rpartition("=") if not text.startswith("/") else ("", "", text)
    if len(tail) > 1 and tail.startswith("/"):
        return f"{head}{mark}{_reduced(tail, root)}"
    return _ABSOLUTE_PATH.sub(lambda found: _reduced(found.group(), root), text)


def _commit() -> tuple[str | None, bool | None]:
    """Return commit and dirty flag of the checkout this package is in; (None, None) if it is in none."""
    found = _git("rev-parse", "--show-toplevel", "HEAD")
    if found is None or Path(found.splitlines()[0]).resolve() != REPOSITORY:
        return None, None
    changes = _git("status", "--porcelain", "--", ".", ":(exclude)results")
    return found.splitlines()[1], None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return None
    return done.stdout.strip()


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the CPU's name, from /proc/cpuinfo if possible, as platform.processor() is often empty on Linux."""
    listing = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", listing.read_text()) if listing.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _reduced(path: str, root: Path) -> str:
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError):  # a link loop
        return Path(path).name
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else Path(path).name
