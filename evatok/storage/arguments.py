"""What command lines share: types of their arguments, refused by naming what is wanted, and the option `--debug`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def with_debug(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `--debug`, which `evatok.errors.one_line` is given."""
    parser.add_argument("--debug", action="store_true", help="show an error's traceback")
    return parser


def whole(text: str, least: int = 0) -> int:
    """Return an integer. Raises ArgumentTypeError for other text, and for one below `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Return a count. Raises ArgumentTypeError for what is no integer of at least 1."""
    return whole(text, 1)


def rate(text: str) -> float:
    """Return frames per second. Raises ArgumentTypeError for what is no number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def folder(text: str) -> Path | None:
    """Return a folder, or None for empty text: nothing is written."""
    return Path(text) if text else None
