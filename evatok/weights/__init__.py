"""Where third-party weights come from, and whether they are the published ones.

Torchvision's trunks and torch-fidelity's Inception are downloaded once into `hub/checkpoints` of TORCH_HOME, as their
packages do themselves; ST-LPIPS and the heads of LPIPS come inside their packages; the I3D of FVD (`weights.i3d`) is
converted once into `weights` of EVATOK_CACHE. Of every file all 64 digits of its sha256 are compared before it is
used; what is read is tensors under names, by `tensors`, which runs nothing a file holds. The hashes go into the
records. `python -m evatok.weights` lists, prefetches and verifies all of them.
"""

from __future__ import annotations

import importlib.metadata
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from evatok.errors import EvatokError
from evatok.storage.files import sha256_file

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer after which a download counts as impossible
TRUNKS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""Files of torchvision's ImageNet networks that LPIPS stands on."""

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""File of the Inception-v3 (TF-Slim, 2015) that FID is defined on, as torch-fidelity converted it."""

PUBLISHED = {
    TRUNKS["vgg"]: "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    TRUNKS["alex"]: "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    INCEPTION: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
"""sha256 of the downloaded files; the eight digits in a name are the first of them."""

LPIPS_HEADS = {
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
}
"""sha256 of the files of LPIPS's channel weights, which come in the package lpips."""

REINSTALL_LPIPS = "pip install --no-deps --force-reinstall lpips==0.1.4"

ST_LPIPS = "alex_shift_tolerant.pth"
ST_LPIPS_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"


class WeightsError(EvatokError, RuntimeError):
    """The published weights a metric stands on are missing or are not the published ones."""


def trunk(net: str) -> Path:
    """Bring torchvision's `net` ("vgg" or "alex") to its place if it is not there, and return the file, checked.

    Raises WeightsError where it cannot be downloaded, or the file there is another.
    """
    path = hub_file(TRUNKS[net])
    return _bring(path, f"https://download.pytorch.org/models/{path.name}", "LPIPS")


def inception() -> Path:
    """Bring torch-fidelity's Inception to its place if it is not there, and return the file, checked.

    Raises WeightsError where it cannot be downloaded, or the file there is another.
    """
    path = hub_file(INCEPTION)
    return _bring(path, f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{path.name}", "FID")


def hub_file(name: str) -> Path:
    """Where torch keeps a downloaded file of this name: `hub/checkpoints` of TORCH_HOME. It need not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def lpips_heads(net: str) -> Path:
    """The file of LPIPS's channel weights for `net`. Raises WeightsError where it is not installed or another."""
    path = lpips_heads_file(net)
    if path is None:
        raise WeightsError(f"LPIPS needs {net}.pth of the package lpips, which is not installed: {REINSTALL_LPIPS}")
    check(path, LPIPS_HEADS[net], REINSTALL_LPIPS)
    return path


def lpips_heads_file(net: str) -> Path | None:
    """Where `lpips_heads` lies, unchecked; None without the package."""
    return installed_file("lpips", f"lpips/weights/v0.1/{net}.pth")


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file by their names, on the CPU; nothing the file holds is run.

    Raises WeightsError for a file that holds anything else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything: KeyError, EOFError, UnpicklingError...
        told = str(error).partition("\n")[0]
        raise WeightsError(f"{path} is no PyTorch file of tensors alone, and nothing else is read ({told})") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise WeightsError(f"{path} holds more than tensors under names, and nothing else is read")
    return found


def st_lpips() -> Path:
    """The file of ST-LPIPS, trunk and heads. Raises WeightsError where it is not installed or another."""
    path = _st_lpips_file()
    check(path, ST_LPIPS_SHA256, "pip install --no-deps --force-reinstall stlpips_pytorch==0.0.2")
    return path


def check(path: Path, expected: str, remedy: str = "delete it and download it again") -> str:
    """The file's sha256. Raises WeightsError, with the remedy, unless it is `expected`."""
    sha256 = sha256_file(path)
    if sha256 != expected:
        raise WeightsError(f"{path} is not the published file (sha256 {sha256} instead of {expected}): {remedy}")
    return sha256


def installed_file(distribution: str, ending: str) -> Path | None:
    """The file of an installed package whose path ends so, found without importing the package; None without it."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.as_posix().endswith(ending))
    return next((path for path in paths if path.exists()), None)


def _bring(path: Path, url: str, metric: str) -> Path:
    if not path.exists():
        _download(url, path, metric)
    check(path, PUBLISHED[path.name])
    return path


def _download(url: str, path: Path, metric: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            torch.hub.download_url_to_file(url, str(path), PUBLISHED[path.name], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no route, no such host, a timeout; a file with another hash
        raise WeightsError(
            f"{metric} needs {path.name}, which is not in {path.parent} and could not be downloaded from {url} "
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
    """The weights inside the installed package, which is never imported: its imports are undeclared."""
    path = installed_file("stlpips_pytorch", ST_LPIPS)
    if path is None:
        raise WeightsError(
            f"ST-LPIPS needs {ST_LPIPS} of the package stlpips_pytorch, which is not installed: "
            "pip install --no-deps stlpips_pytorch"
        )
    return path
