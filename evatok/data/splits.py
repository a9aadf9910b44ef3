"""Which of a user's own videos are for training, and which are held out.

A manifest's column `split` decides. Without one the videos are assigned 80/10/10 by a hash of their path relative to
the manifest or class folders: a file lands in the same split wherever the folder is moved and whatever is added to it,
all clips of one file land together, and no file is in two splits.
"""

import difflib
import hashlib
import os
from pathlib import Path

import pandas as pd

from evatok.data import class_folders, containers, manifest
from evatok.data.clips import SPLITS, ClipSetError

ALL = "all"  # every row of any split
SHARES = {"train": 80, "validation": 10, "test": 10}  # percent
SEED = 0


def rows_of(path: Path | str, split: str, *, missing: bool = False, stills: bool = False) -> tuple[pd.DataFrame, str]:
    """Return the rows of a split, or ("all") every row, of a manifest CSV or class folders; and what made the splits.

    Or of tar shards and tables of videos (`evatok.data.containers`), or of several of these, joined by "+".

    With `missing` a manifest may list files that are not there; with `stills` a folder's clips are its images.

    Raises ManifestError as their readers do, ClipSetError for a split that is unknown or empty, and as `check` does.
    """
    parts = [_labelled(part, split, missing=missing, stills=stills) for part in joined(path)]
    rows, made_by = pd.concat([found for found, _ in parts], ignore_index=True), "; ".join(told for _, told in parts)
    if len(parts) > 1:
        _refuse_shared(Path(path), rows, starts=True)
    found = rows if split == ALL else rows[rows["split"] == split].reset_index(drop=True)
    if found.empty:
        named = ", ".join(sorted(set(rows["split"]) - {""}))
        raise ClipSetError(f"{path}: no row of split {split!r}: its column split names {named}")
    return found, made_by


def joined(path: Path | str) -> list[Path]:
    """Split a name joined by "+" (ucf.csv+k600.csv) into its listings; only itself if it is a file or folder."""
    if Path(path).exists() or "+" not in str(path):
        return [Path(path)]
    return [Path(part.strip()) for part in str(path).split("+")]


def is_listing(path: Path | str) -> bool:
    """Whether a user's own clips exist: at the path, or at every joined one."""
    return all(part.exists() for part in joined(path))


def name_of(path: Path | str) -> str:
    """Return the display name of a user's set."""
    return "+".join(part.absolute().stem for part in joined(path))


def root_of(path: Path | str) -> Path:
    """Return the folder that clip paths are relative to."""
    folders = [part.absolute().parent if part.is_file() else part.absolute() for part in joined(path)]
    return folders[0] if len(folders) == 1 else Path(os.path.commonpath(folders))


def _labelled(path: Path, split: str, *, missing: bool, stills: bool) -> tuple[pd.DataFrame, str]:
    """Return the rows of one listing with their splits, and the origin of these."""
    if containers.files_of(path):
        if stills:
            raise ClipSetError(f"{path}: images within tar shards or tables are not read; unpack them")
        rows, made_by = containers.scan(path), "the names of the shards"
    elif path.is_file():
        rows, made_by = manifest.read_manifest(path, missing=missing), "the manifest's column split"
    else:
        rows = class_folders.scan_class_folders(path, stills=stills)
        made_by = "the folders above the classes"
    check(path, rows)
    if not rows["split"].ne("").any():
        made_by = f"sha256 of seed {SEED} and relative path, {_shares()}"
        root = root_of(path)
        rows = rows.assign(split=[dealt(os.path.relpath(video, root)) for video in rows["path"]])
        _refuse_shared(path, rows, starts=False)
        _refuse_strange(path, rows, split)
    return rows, made_by


def check(path: Path, rows: pd.DataFrame) -> None:
    """Raise ClipSetError if the column `split` would drop clips, or put one in two splits.

    That is: filled in some rows only, two spellings of one name, one clip under two paths in two splits.
    """
    empty = rows["split"].eq("")
    if not empty.any():
        for name in sorted(set(rows["split"]) - set(SPLITS)):
            near = difflib.get_close_matches(name.lower(), sorted(set(rows["split"]) & set(SPLITS)), n=1, cutoff=0.75)
            if near:
                count = int(rows["split"].eq(name).sum())
                raise ClipSetError(f"{path}: {count} rows have split {name!r}, others {near[0]!r}: spell it one way")
        _refuse_shared(path, rows, starts=True)
    elif not empty.all():
        first = manifest.readable(Path(rows["path"][empty].iloc[0]).name)
        raise ClipSetError(
            f"{path}: {int(empty.sum())} of {len(rows)} rows have an empty split, {first} the first: fill it in every "
            f"row, or drop the column to have files split {_shares()}"
        )


def _refuse_shared(path: Path, rows: pd.DataFrame, *, starts: bool) -> None:
    """Raise ClipSetError for one file, by its real path, in two splits; with `starts` for one start of it alone."""
    seen: dict[tuple[str, float], tuple[str, str]] = {}
    for video, start, split in zip(rows["path"], rows["start"], rows["split"], strict=True):
        other, its = seen.setdefault((os.path.realpath(video), start if starts else 0.0), (video, split))
        if its != split:
            names = " and ".join(manifest.readable(Path(name).name) for name in (other, video))
            raise ClipSetError(f"{path}: {names} are the same file, in splits {its} and {split}: list it once")


def dealt(name: str) -> str:
    """Return the split of the file at this path relative to its manifest or class folders."""
    named = os.fsencode(os.path.normpath(name).replace(os.sep, "/"))
    place = int.from_bytes(hashlib.sha256(b"%d %s" % (SEED, named)).digest()[:8], "big") % sum(SHARES.values())
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("shares fill the whole")


def _refuse_strange(path: Path, rows: pd.DataFrame, split: str) -> None:
    if split != ALL and split not in SPLITS:
        raise ClipSetError(f"{path}: unknown split {split!r}; choose one of {', '.join((*SPLITS, ALL))}")
    if split != ALL and split not in set(rows["split"]):
        count = rows["path"].nunique()
        files = "its one file leaves" if count == 1 else f"its {count} files leave"
        told = f"split {_shares()} by name, {files} none for {split}"
        wayout = (
            "add a column split" if path.is_file() else "list them in a manifest CSV with columns path, label, split"
        )
        raise ClipSetError(f"{path}: {told}; {wayout} ({', '.join(SPLITS)})")


def _shares() -> str:
    return f"{'/'.join(map(str, SHARES.values()))} {'/'.join(SHARES)}"
