"""A tree of class folders as a list of clips: one row per clip, as `evatok.data.manifest` reads them.

Clips are videos and folders of images or, if stills are requested, the images themselves.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from evatok.data.containers import VIDEO_SUFFIXES
from evatok.data.image_folder import IMAGE_SUFFIXES, images_in, natural_order
from evatok.data.manifest import ManifestError, few, log_once, readable

LEFT_OUT = 12  # how many files that are not clips are listed

_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Folders of ImageNet's layout, and the splits they hold."""


def scan_class_folders(root: Path | str, *, stills: bool = False) -> pd.DataFrame:
    """List root/<class>/<videos> in natural order, labelled by class; a folder of images there is one clip.

    With `stills` a clip is an image directly in its class, and videos are skipped; the classes may then lie in the
    folders train and val of root, as in ImageNet, which become the splits.

    Raises ManifestError for a missing root, videos outside a class, a class without clips, or a deeper folder
    without images: nothing that looks like a clip is passed over. Hidden entries are; other files, broken links and
    what is no regular file are named once in the log.
    """
    root = Path(root).absolute()
    files = "images" if stills else "videos"
    if not root.is_dir():
        raise ManifestError(f"{root}: there is no such folder; expected one folder of {files} per class")
    if stills and (parts := _split_folders(root)):
        rows = [scan_class_folders(folder, stills=True).assign(split=_SPLITS[folder.name]) for folder in parts]
        return pd.concat(rows, ignore_index=True)
    loose = [entry for entry in _visible(root) if _is_clip(entry, stills)]
    if loose:
        raise ManifestError(f"{root}: {files} outside a class folder: {few([entry.name for entry in loose])}")
    clips = {folder.name: _clips_in(folder, stills) for folder in _visible(root) if folder.is_dir()}
    bare = [label for label, paths in clips.items() if not paths]
    if bare or not clips:
        raise ManifestError(f"{root}: {_why_bare(root, bare, stills)}")
    strangers = [name for label in clips for name in _strangers(root / label, stills)]
    if strangers:
        log_once(f"{root}: {len(strangers)} left out: {few(strangers, LEFT_OUT)}")
    named = [(str(path), readable(label)) for label, paths in clips.items() for path in paths]
    paths, labels = zip(*named, strict=True)
    # As objects: other pandas string types reject names that are not UTF-8.
    return pd.DataFrame({"path": pd.Series(paths, dtype=object), "label": labels, "start": 0.0, "split": ""})


def _split_folders(root: Path) -> list[Path]:
    """Return the folders of ImageNet's layout that contain classes; none if these names are classes themselves."""
    found = [root / name for name in _SPLITS if (root / name).is_dir()]
    holds_classes = [any(entry.is_dir() for entry in _visible(folder)) for folder in found]
    return [folder for folder, holds in zip(found, holds_classes, strict=True) if holds] if len(found) > 1 else []


def _why_bare(root: Path, bare: list[str], stills: bool) -> str:
    """Explain what is missing if a class, or the root, has no clips, and what could read what is there instead."""
    suffixes = IMAGE_SUFFIXES if stills else VIDEO_SUFFIXES
    expected = f"expected <class>/<{'image' if stills else 'video'}> ({', '.join(suffixes)})"
    if not bare:
        return f"it holds no class folder; {expected}"
    told = f"class folders without {'an image' if stills else 'a clip'}: {few(bare)}; {expected}"
    others = sum(_is_clip(entry, not stills) for entry in _visible(root / bare[0]))
    if not others:
        return told
    its, way = ("videos", "video, frames above 1") if stills else ("images", "image, frames 1")
    return f"{told}; {bare[0]} holds {others} {its}, which configurations of modality={way}, read"


def _clips_in(folder: Path, stills: bool) -> list[Path]:
    entries = _visible(folder)
    if stills:
        return [entry for entry in entries if _is_clip(entry, stills)]
    empty = [entry.name for entry in entries if entry.is_dir() and not images_in(entry)]
    if empty:
        raise ManifestError(f"{folder}: folders without images: {few(empty)}; videos lie directly in their class")
    return [entry for entry in entries if entry.is_dir() or _is_clip(entry, stills)]


def _strangers(folder: Path, stills: bool) -> Iterator[str]:
    """List the files in a class folder that are not clips, with reasons."""
    for entry in _visible(folder):
        if entry.is_symlink() and not entry.exists():
            yield f"{folder.name}/{entry.name} (a broken link)"
        elif not entry.is_dir() and not entry.is_file():
            yield f"{folder.name}/{entry.name} (not a regular file)"
        elif entry.is_dir() and stills:
            yield f"{folder.name}/{entry.name} (a folder in a class)"
        elif entry.is_file() and not _is_clip(entry, stills):
            yield f"{folder.name}/{entry.name} (by its name no {'image' if stills else 'video'})"


def _visible(folder: Path) -> list[Path]:
    return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_order)


def _is_clip(path: Path, stills: bool) -> bool:
    """Whether a file is, by its name, a video, or an image if stills are requested."""
    return path.is_file() and path.suffix.lower() in (IMAGE_SUFFIXES if stills else VIDEO_SUFFIXES)
