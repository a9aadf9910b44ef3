"""Clip sets on disk: one memory-mapped array, a row of labels per clip, and a manifest of what made them.

Legend of shapes: N clips, T frames, H x W pixels; clips are uint8 RGB (N, T, H, W, 3) on disk and float
(B, 3, T, H, W) in [0, 1] for a network.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from einops import rearrange

from evatok.errors import EvatokError
from evatok.storage.arrays import read_array
from evatok.storage.files import ordinary, replacing, sha256_file

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")


_LABELS, _SEAL = "labels.csv", "labels_and_manifest_sha256"
_log = logging.getLogger(__name__)


class ClipSetError(EvatokError, ValueError):
    """A clip set is missing, incomplete or not what its manifest says."""


@dataclass(frozen=True)
class ClipSet:
    """N clips with their labels, the manifest of their origin, and their folder."""

    clips: np.ndarray
    labels: pd.DataFrame
    manifest: dict[str, Any]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def sha256(self) -> str:
        """Hash of all pixels: the set's identity in records."""
        return str(self.manifest["sha256"])

    def head(self, count: int) -> ClipSet:
        """Return the first `count` clips, with their own hash. Raises ClipSetError for none, or more than there are."""
        if not 1 <= count <= len(self):
            raise ClipSetError(f"clip set {self.name}: {count} clips requested, it has {len(self)}")
        if count == len(self):
            return self
        clips = self.clips[:count]
        manifest = {
            **self.manifest,
            "clips": count,
            "shape": list(clips.shape),
            "sha256": pixels_sha256(clips),
        }
        return ClipSet(clips, self.labels.iloc[:count], manifest, self.folder)


def to_network(clips: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B, 3, T, H, W) in [0, 1]."""
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ClipSetError(f"clips must be uint8 (B, T, H, W, 3), got {clips.dtype} {clips.shape}")
    import torch  # imported here: processes that render clips start much faster without it

    from evatok.storage import transfer

    pixels = transfer.moved(torch.from_numpy(np.array(clips)), device)
    return rearrange(pixels, "b t h w c -> b c t h w").float().div_(255)


def from_network(pixels: torch.Tensor) -> np.ndarray:
    """Clips (B, 3, T, H, W) in [0, 1] -> uint8 (B, T, H, W, 3), rounded."""
    eight_bits = pixels.float().clamp(0, 1).mul(255).round().byte()
    return rearrange(eight_bits, "b c t h w -> b t h w c").cpu().numpy()


def network_batches(
    clips: np.ndarray, batch: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield uint8 clips (N, T, H, W, 3) as float32 (B, 3, T, H, W) in [0, 1], with their indices (B,)."""
    for start in range(0, len(clips), batch):
        pixels = to_network(clips[start : start + batch], device)
        yield pixels, np.arange(start, start + len(pixels))


def pixels_sha256(clips: np.ndarray) -> str:
    """sha256 of shape and pixels, read in pieces so that a memory map stays on disk."""
    digest = hashlib.sha256(str(clips.shape).encode())
    for start in range(0, len(clips), 256):
        digest.update(np.ascontiguousarray(clips[start : start + 256]).data)
    return digest.hexdigest()


def range_sha256(clips: Any, start: int, stop: int) -> str:
    """Return the sha256 of clips [start, stop) for a shard's key, without decoding if the set has an identity."""
    identity = getattr(clips, "identity", None)
    if identity is None:
        return pixels_sha256(clips[start:stop])
    return hashlib.sha256(f"{identity} {start} {stop}".encode()).hexdigest()


def save(folder: Path | str, clips: np.ndarray, labels: pd.DataFrame, manifest: dict[str, Any]) -> ClipSet:
    """Write clips from anywhere (decoded videos, say) as a set; the manifest gains shape and hash."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "clips.npy", size=clips.nbytes) as partial, partial.open("wb") as file:
        np.save(file, clips)
    seal(folder, labels, manifest)
    return load(folder)


def load(folder: Path | str) -> ClipSet:
    """Open a set, and compare every pixel with the manifest's hash, once per process, and the labels with theirs.

    Labels are read as written: a number in the column `label` stays a string.

    Raises:
        ClipSetError: no set there, or arrays or labels that do not match the manifest.
    """
    folder = Path(folder)
    try:
        manifest = json.loads(ordinary(folder / "manifest.json").read_text())
        shape, sha256 = manifest["shape"], manifest["sha256"]
        clips = read_array(folder / "clips.npy", mmap_mode="r")
        labels = pd.read_csv(ordinary(folder / _LABELS), index_col="clip", dtype={"label": str}, keep_default_na=False)
        seal = manifest.pop(_SEAL, None)  # records identify sets by their pixels instead
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        told = f"no complete clip set ({type(error).__name__}: {error})"
        raise ClipSetError(f"{folder}: {told}; delete the folder and build it again") from error
    if list(clips.shape) != shape or len(labels) != len(clips):
        raise ClipSetError(f"{folder}: clips {clips.shape}, labels {len(labels)}, manifest says {shape}")
    if _sha256_of_file(folder / "clips.npy", clips) != sha256:
        raise ClipSetError(f"{folder}: pixels do not match the manifest's sha256; delete the folder and build it again")
    if seal is None:
        _log.info("%s was written before sets had a hash of their labels: they cannot be verified", folder)
    elif seal != _seal_of(folder, manifest):
        raise ClipSetError(
            f"{folder}: labels or manifest are not what was written, by the manifest's {_SEAL}; delete the folder and "
            "build it again"
        )
    return ClipSet(clips, labels, manifest, folder)


_hashed: dict[tuple[str, int, int, int], str] = {}


def _sha256_of_file(path: Path, clips: np.ndarray) -> str:
    """Return `pixels_sha256` of the clips in a file, computed once per process and file state."""
    state = path.stat()
    key = (str(path.absolute()), state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _hashed:
        _hashed[key] = pixels_sha256(clips)
    return _hashed[key]


def _seal_of(folder: Path, manifest: dict[str, Any]) -> str:
    """Hash a set's labels and everything else in its manifest."""
    told = json.dumps(json.loads(json.dumps(manifest)), sort_keys=True).encode()  # normalised as on reading
    return hashlib.sha256(sha256_file(folder / _LABELS).encode() + told).hexdigest()


def seal(folder: Path, labels: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Write the labels and, last, the manifest, whose presence marks the set as complete."""
    clips = np.load(folder / "clips.npy", mmap_mode="r")
    whole = {
        **manifest,
        "clips": len(clips),
        "shape": list(clips.shape),
        "sha256": _sha256_of_file(folder / "clips.npy", clips),
    }
    with replacing(folder / _LABELS) as partial:
        labels.rename_axis("clip").to_csv(partial)
    whole[_SEAL] = _seal_of(folder, whole)
    with replacing(folder / "manifest.json") as partial:
        partial.write_text(json.dumps(whole, indent=2) + "\n")
