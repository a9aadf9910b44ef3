"""Clip sets from the command line: `python -m evatok.data build|check|show NAME`.

NAME is an embedded set (freedoom, arcade), the folder of a built set, a manifest CSV, or a folder of class folders. Any
failure becomes one line on stderr, see `evatok.errors`; so do entries skipped in a manifest.
"""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import NoReturn

import pandas as pd

from evatok import errors
from evatok.data import clips, reels, sets, splits
from evatok.data.clips import ClipSet, ClipSetError
from evatok.pictures.contact_sheet import contact_sheet
from evatok.storage.arguments import positive, rate, whole, with_debug
from evatok.storage.files import cache_folder, ordinary

COUNTED = ("label", "motion", "game", "map")  # columns of labels worth counting
NAMED = 8  # labels or failures listed by name; the rest is a count
CLIPS, SIZE, FRAMES = 64, 64, 16
SHOWN, LINE = 8, 56  # clips on the sheet that a build writes; characters per caption line


def main(argv: list[str] | None = None) -> None:
    """Run one command; exit after one line on stderr with 2 for an error, 130 for Ctrl-C and 143 for SIGTERM."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="evatok.data: %(message)s", stream=sys.stderr)
    logging.getLogger("evatok.data").setLevel(logging.INFO)
    with errors.one_line("evatok.data", debug=options.debug):
        options.command(options)


def build(options: argparse.Namespace) -> None:
    """Render or decode the set, unless cached, and print a summary; sets with captions get a contact sheet."""
    found = _clip_set(options)
    _describe(found)
    if "caption" in found.labels and found.folder is not None:
        _write_sheet(found.head(min(SHOWN, len(found))), found.folder / "sheet.png")


def check(options: argparse.Namespace) -> None:
    """Read every pixel of a built set and compare with its hash; with --remake regenerate its first reel."""
    size, frames = _shape(options)
    folder = sets.built(
        options.name,
        _split(options),
        _count(options),
        size=size,
        frames=frames,
        seed=options.seed,
        fps=options.fps,
    )
    if folder is None:
        raise ClipSetError(f"{options.name} is not in {cache_folder()} yet: build it first")
    found = clips.load(folder)
    print(f"{folder}: {len(found)} clips match sha256 {found.sha256}")
    if options.remake:
        _remake(options, found)


def show(options: argparse.Namespace) -> None:
    """Write a contact sheet of the set."""
    _write_sheet(_clip_set(options), options.output)


class _Parser(argparse.ArgumentParser):
    """Report errors in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def _parser() -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("name", metavar="NAME", help="freedoom, arcade, moving-shapes, a built folder, a CSV, ...")
    shared.add_argument(
        "--split",
        choices=(*clips.SPLITS, splits.ALL),
        help=f"default: validation of an embedded set, {splits.ALL} of your own",
    )
    shared.add_argument(
        "--clips", type=positive, help=f"number of clips (default: {CLIPS} of an embedded set, else all)"
    )
    shared.add_argument("--count", type=positive, dest="clips", help="the same as --clips")
    shared.add_argument("--size", type=positive, help=f"side in pixels (default: {SIZE}, or as built)")
    shared.add_argument("--frames", type=positive, help=f"frames per clip (default: {FRAMES}, or as built)")
    shared.add_argument("--seed", type=whole, default=0, help="seed of an embedded set (default: 0)")
    shared.add_argument("--fps", type=rate, help="frames per second sampled from a video (default: its own)")
    shared.add_argument("--workers", type=positive, default=2, help="number of processes (default: 2)")
    with_debug(shared)
    parser = _Parser("python -m evatok.data", description="Build, check and look at clip sets.")
    commands = parser.add_subparsers(required=True, metavar="build|check|show")
    commands.add_parser("build", parents=[shared], help=build.__doc__).set_defaults(command=build)
    checking = commands.add_parser("check", parents=[shared], help=check.__doc__)
    checking.add_argument("--remake", action="store_true", help="regenerate the first reel and compare")
    checking.set_defaults(command=check)
    showing = commands.add_parser("show", parents=[shared], help=show.__doc__)
    showing.add_argument("--output", type=_png, default=Path("sheet.png"), help="default: sheet.png")
    showing.set_defaults(command=show)
    return parser


def _png(text: str) -> Path:
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png")
    return Path(text)


def _clip_set(options: argparse.Namespace) -> ClipSet:
    size, frames = _shape(options)
    return sets.clip_set(
        options.name,
        _split(options),
        _count(options),
        size=size,
        frames=frames,
        seed=options.seed,
        fps=options.fps,
        workers=options.workers,
    )


def _count(options: argparse.Namespace) -> int:
    return options.clips or (CLIPS if sets.is_embedded(options.name) else 0)


def _split(options: argparse.Namespace) -> str:
    return options.split or ("validation" if sets.is_embedded(options.name) else splits.ALL)


def _shape(options: argparse.Namespace) -> tuple[int, int]:
    """Return the requested size and frames; by default those of a built folder, which has a single shape."""
    size, frames = SIZE, 1 if options.name.partition("@")[0] in sets.STILLS else FRAMES
    if not sets.is_embedded(options.name) and (Path(options.name) / "manifest.json").exists():
        _, frames, size, _, _ = clips.load(Path(options.name)).clips.shape
    return options.size or size, options.frames or frames


def _describe(found: ClipSet) -> None:
    count, frames, height, width, _ = found.clips.shape
    print(f"set       {found.name}")
    print(f"folder    {found.folder}")
    if "split" in found.manifest:
        print(f"split     {found.manifest['split']}")
    print(f"clips     {count} of {frames} frames, {width} x {height} pixels")
    print(f"sha256    {found.sha256}")
    for column in COUNTED:
        if column in found.labels:
            print(f"{column:<10}{_counts(found.labels[column])}")
    if "failures" in found.manifest:
        _print_failures(found)


def _counts(values: pd.Series) -> str:
    counts = values.value_counts()
    named = ", ".join(f"{value or '(none)'} {count}" for value, count in counts.head(NAMED).items())
    return named + (f", and {len(counts) - NAMED} more" if len(counts) > NAMED else "")


def _print_failures(found: ClipSet) -> None:
    print(f"failures  {found.manifest['failures']}")
    if not found.manifest["failures"] or found.folder is None:
        return
    listing = found.folder / "failures.csv"
    failures = pd.read_csv(ordinary(listing), dtype=str, keep_default_na=False)
    for path, reason in failures.head(NAMED).itertuples(index=False):
        print(f"  {path}: {reason}")
    if len(failures) > NAMED:
        print(f"  and {len(failures) - NAMED} more in {listing}")


def _remake(options: argparse.Namespace, found: ClipSet) -> None:
    if not sets.is_embedded(options.name):
        raise ClipSetError(f"--remake: {options.name} is not made from numbers, only {', '.join(sets.EMBEDDED)} are")
    source, (_, frames, size, _, _) = sets.source(options.name), found.clips.shape
    made, _ = source.reel(reels.stream(_split(options), options.seed), 0, size, frames)
    made = made[: len(found)]
    same = (made == found.clips[: len(made)]).all(axis=(1, 2, 3, 4))
    if not same.all():
        told = f"{(~same).sum()} of the first {len(made)} clips come out differently now"
        raise ClipSetError(f"{found.folder}: {told}; delete the folder and build it again")
    print(f"the first {len(made)} clips come out bit for bit the same when made again")


def _write_sheet(found: ClipSet, path: Path) -> None:
    captions = [_caption(number, row) for number, row in enumerate(found.labels.to_dict("records"))]
    sheet = contact_sheet(found.clips, captions, columns=2 if len(found) > CLIPS // 8 else 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    print(f"{path}: {len(found)} clips of {found.name}, {sheet.width} x {sheet.height} pixels")


def _caption(number: int, labels: Mapping[Hashable, object]) -> str:
    if labels.get("caption"):
        return "\n".join([str(number), *textwrap.wrap(str(labels["caption"]), LINE)])
    words = [str(labels[column]) for column in COUNTED if labels.get(column)]
    return "\n".join([str(number), *words])


if __name__ == "__main__":
    main()
