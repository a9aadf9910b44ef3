"""Where third-party weights come from, and whether they are the published ones.

Torchvision's trunks are downloaded once into `hub/checkpoints` of TORCH_HOME, as torchvision itself does; ST-LPIPS
comes inside its package. Every file is hashed before it is used, and its hash goes into the records.
"""

from __future__ import annotations

import importlib.metadata
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from evatok.records import sha256_file

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer after which a download counts as impossible
TRUNKS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""Files of torchvision's ImageNet networks that LPIPS stands on; a name ends in the beginning of the sha256."""

ST_LPIPS = "alex_shift_tolerant.pth"
ST_LPIPS_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"


class WeightsError(RuntimeError):
    """The published weights a metric stands on are missing or are not the published ones."""


def trunk(net: str) -> str:
    """Bring torchvision's `net` ("vgg" or "alex") to its place if it is not there, and return its sha256.

    Raises WeightsError where it cannot be downloaded, or the file there is another.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]
    if not path.exists():
        _download(f"https://download.pytorch.org/models/{path.name}", path)
    sha256 = sha256_file(path)
    if not sha256.startswith(path.stem.rpartition("-")[2]):
        raise WeightsError(f"{path} is not the published file (sha256 {sha256}): delete it and download it again")
    return sha256


def st_lpips() -> Path:
    """The file of ST-LPIPS, trunk and heads. Raises WeightsError where it is not installed or another."""
    path = _st_lpips_file()
    sha256 = sha256_file(path)
    if sha256 != ST_LPIPS_SHA256:
        raise WeightsError(
            f"{path} is not the published file (sha256 {sha256} instead of {ST_LPIPS_SHA256}): "
            "pip install --no-deps --force-reinstall stlpips_pytorch==0.0.2"
        )
    return path


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = path.stem.rpartition("-")[2]
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no route, no such host, a timeout; a file with another hash
        raise WeightsError(
            f"LPIPS needs {path.name}, which is not in {path.parent} and could not be downloaded from {url} "
            f"({error}): bring the file there from a machine with network, or point TORCH_HOME at a folder "
            f"that has it as hub/checkpoints/{path.name}"
        ) from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torch.hub opens its connection without one: a firewall that drops packets would hang it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _st_lpips_file() -> Path:
    """The weights inside the installed package, found without importing it: its imports are undeclared."""
    try:
        files = importlib.metadata.distribution("stlpips_pytorch").files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.name == ST_LPIPS and path.exists():
            return path
    raise WeightsError(
        f"ST-LPIPS needs {ST_LPIPS} of the package stlpips_pytorch, which is not installed: "
        "pip install --no-deps stlpips_pytorch"
    )
