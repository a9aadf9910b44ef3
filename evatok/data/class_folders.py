"""A tree of class folders as a list of clips: one row per clip, as `evatok.data.manifest` reads them."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from evatok.data.image_folder import images_in, natural_order
from evatok.data.manifest import ManifestError, few, log_once, readable
from evatok.data.video import VIDEO_SUFFIXES

LEFT_OUT = 12  # how many files that are not clips are listed


def scan_class_folders(root: Path | str) -> pd.DataFrame:
    """List root/<class>/<videos> in natural order, labelled by class; a folder of images there is one clip.

    Raises ManifestError for a missing root, videos outside a class, a class without clips, or a deeper folder
    without images: nothing that looks like a clip is passed over. Hidden entries are; other files, broken links and
    what is no regular file are named once in the log.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise ManifestError(f"{root}: there is no such folder; expected one folder of videos per class")
    loose = [entry for entry in _visible(root) if _is_video(entry)]
    if loose:
        raise ManifestError(f"{root}: videos outside a class folder: {few([entry.name for entry in loose])}")
    clips = {folder.name: _clips_in(folder) for folder in _visible(root) if folder.is_dir()}
    bare = [label for label, paths in clips.items() if not paths]
    if bare or not clips:
        held = f"class folders without a clip: {few(bare)}" if bare else "it holds no class folder"
        raise ManifestError(f"{root}: {held}; expected <class>/<video> ({', '.join(VIDEO_SUFFIXES)})")
    strangers = [name for label in clips for name in _strangers(root / label)]
    if strangers:
        log_once(f"{root}: {len(strangers)} left out: {few(strangers, LEFT_OUT)}")
    named = [(str(path), readable(label)) for label, paths in clips.items() for path in paths]
    paths, labels = zip(*named, strict=True)
    # As objects: other strings of pandas refuse names that are not UTF-8.
    return pd.DataFrame({"path": pd.Series(paths, dtype=object), "label": labels, "start": 0.0, "split": ""})


def _clips_in(folder: Path) -> list[Path]:
    entries = _visible(folder)
    empty = [entry.name for entry in entries if entry.is_dir() and not images_in(entry)]
    if empty:
        raise ManifestError(f"{folder}: folders without images: {few(empty)}; videos lie directly in their class")
    return [entry for entry in entries if entry.is_dir() or _is_video(entry)]


def _strangers(folder: Path) -> Iterator[str]:
    """List what in a class folder is not a clip, and why."""
    for entry in _visible(folder):
        if entry.is_symlink() and not entry.exists():
            yield f"{folder.name}/{entry.name} (a broken link)"
        elif not entry.is_dir() and not entry.is_file():
            yield f"{folder.name}/{entry.name} (not a regular file)"
        elif entry.is_file() and not _is_video(entry):
            yield f"{folder.name}/{entry.name} (by its name no video)"


def _visible(folder: Path) -> list[Path]:
    return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_order)


def _is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
