"""Reconstructions from elsewhere: a folder of arrays, of folders of images, or of videos."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from evatok.data.containers import VIDEO_SUFFIXES
from evatok.data.image_folder import images_in, natural_order, read_frames_folder
from evatok.data.probe import opened, probe
from evatok.data.video import ClipReader
from evatok.errors import EvatokError
from evatok.storage.arrays import read_array
from evatok.storage.files import ordinary, sha256_file


class EvaluationError(EvatokError, ValueError):
    """Too few clips, output that is not clips, a metric that the protocol does not define, or the like."""


class FolderClips:
    """Clips (T, H, W, 3) of one shape in files, in natural order, read on access.

    A folder holds one array (N, T, H, W, 3) as .npy, or for each clip an array (T, H, W, 3), a folder of T images, or
    a video. Arrays are uint8, or floats in [0, 1]. Nothing is resized or cropped: another shape is an error.
    Raises EvaluationError for a folder that is missing, empty or of mixed kinds.
    """

    def __init__(self, folder: Path | str, *, frames: int, size: int) -> None:
        self.folder, self.shape = Path(folder), (frames, size, size, 3)
        self.kind, self.files = _clip_files(self.folder)
        self.array = _one_array(self.files) if self.kind == "arrays" else None
        self.reader = ClipReader()
        if self.array is not None:
            self._checked(self.files[0], self.array[0])

    @property
    def names(self) -> list[str] | None:
        """Names of the clips without suffix, in order; None for clips in one array."""
        if self.array is not None:
            return None
        return [path.name if path.is_dir() else path.stem for path in self.files]

    def __len__(self) -> int:
        return len(self.files) if self.array is None else len(self.array)

    def __getitem__(self, where: slice) -> np.ndarray:
        """Read clips (n, T, H, W, 3). Raises EvaluationError or VideoError for a file without a clip of the shape."""
        if self.array is not None:
            return np.array(self.array[where])
        return np.stack([self._checked(path, self._read(path)) for path in self.files[where]])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name, number and hash of the files."""
        total = hashlib.sha256()
        for path in self.files:
            for file in images_in(path) if path.is_dir() else [path]:
                total.update(f"{path.name}/{file.name} {sha256_file(file)};".encode())
        return {"folder": self.folder.name, "kind": self.kind, "files": len(self.files), "sha256": total.hexdigest()}

    def _read(self, path: Path) -> np.ndarray:
        frames, size = self.shape[:2]
        if self.kind == "arrays":
            return _array(path)
        if self.kind == "images":
            images = images_in(path)
            with Image.open(ordinary(images[0])) as first:
                self._fits(path, len(images), first.height, first.width)
            return read_frames_folder(path, frames=frames, size=size)
        with opened(path) as (_, stream):
            height, width = stream.height, stream.width
        self._fits(path, len(probe(path).pts), height, width)
        return self.reader.read(path, frames=frames, size=size)

    def _fits(self, path: Path, frames: int, height: int, width: int) -> None:
        if (frames, height, width) != self.shape[:3]:
            raise EvaluationError(f"{path}: {frames} frames of {height}x{width}, the protocol measures {self.shape}")

    def _checked(self, path: Path, clip: np.ndarray) -> np.ndarray:
        if clip.shape != self.shape or not (clip.dtype == np.uint8 or np.issubdtype(clip.dtype, np.floating)):
            raise EvaluationError(f"{path}: expected a uint8 or float clip {self.shape}, got {clip.dtype} {clip.shape}")
        return clip


def _clip_files(folder: Path) -> tuple[str, list[Path]]:
    """Return the kind of a folder's clips (arrays, images, videos) and their files in natural order."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder of clips")
    entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_order)
    by_kind = {
        "arrays": [entry for entry in entries if entry.suffix == ".npy" and entry.is_file()],
        "images": [entry for entry in entries if entry.is_dir() and images_in(entry)],
        "videos": [entry for entry in entries if entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES],
    }
    kinds = [kind for kind, files in by_kind.items() if files]
    if len(kinds) != 1:
        held = f"{' and '.join(kinds)} together" if kinds else "no clips (.npy, folders of images, videos)"
        raise EvaluationError(f"{folder} holds {held}: expected clips of exactly one kind")
    return kinds[0], by_kind[kinds[0]]


def _array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Read the array of a .npy file. Raises EvaluationError for a file without a complete array of numbers."""
    try:
        return read_array(path, mmap_mode)
    except ValueError as error:
        raise EvaluationError(f"{path}: {error}") from error


def _one_array(files: list[Path]) -> np.ndarray | None:
    """Return the array (N, T, H, W, 3) if one file holds all clips."""
    if len(files) > 1:
        return None
    array = _array(files[0], mmap_mode="r")
    return array if array.ndim == 5 and len(array) else None
