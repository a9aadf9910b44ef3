"""Third-party weights: where they come from, and verification that they are the published ones.

Torchvision's trunks and torch-fidelity's Inception are downloaded once into `hub/checkpoints` of TORCH_HOME, as by
their own packages; ST-LPIPS and the heads of LPIPS come inside their packages; EfficientNet-Lite0
(`weights.efficientnet`) is put once into `weights` of EVATOK_CACHE, and the I3D of FVD (`weights.i3d`) is converted
into it. The full sha256 of every file is compared before it is used; `tensors` reads only named tensors and runs no
code from a file. The hashes go into records. `python -m evatok.weights` lists, prefetches and verifies all files.
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

DOWNLOAD_TIMEOUT = 10.0  # seconds without a response after which a download fails
TRUNKS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""Files of torchvision's ImageNet networks that LPIPS is built on."""

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""File of the Inception-v3 (TF-Slim, 2015) that defines FID, as converted by torch-fidelity."""

PUBLISHED = {
    TRUNKS["vgg"]: "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    TRUNKS["alex"]: "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    INCEPTION: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
"""sha256 of the downloaded files; it starts with the eight digits in a file's name."""

LPIPS_HEADS = {
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
}
"""sha256 of the files of LPIPS's channel weights, which are part of the package lpips."""

REINSTALL_LPIPS = "pip install --no-deps --force-reinstall lpips==0.1.4"

ST_LPIPS = "alex_shift_tolerant.pth"
ST_LPIPS_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"


class WeightsError(EvatokError, RuntimeError):
    """The weights of a metric are missing or not the published ones."""


def trunk(net: str) -> Path:
    """Return the verified file of torchvision's `net` ("vgg" or "alex"), downloaded if necessary.

    Raises WeightsError if it cannot be downloaded, or is not the published file.
    """
    path = hub_file(TRUNKS[net])
    return _bring(path, f"https://download.pytorch.org/models/{path.name}", "LPIPS")


def inception() -> Path:
    """Return the verified file of torch-fidelity's Inception, downloaded if necessary.

    Raises WeightsError if it cannot be downloaded, or is not the published file.
    """
    path = hub_file(INCEPTION)
    return _bring(path, f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{path.name}", "FID")


def hub_file(name: str) -> Path:
    """Path at which torch stores a downloaded file: `hub/checkpoints` of TORCH_HOME. It need not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def lpips_heads(net: str) -> Path:
    """Return the verified file of LPIPS's channel weights. Raises WeightsError if it is missing or differs."""
    path = lpips_heads_file(net)
    if path is None:
        raise WeightsError(f"LPIPS needs {net}.pth of the package lpips, which is not installed: {REINSTALL_LPIPS}")
    check(path, LPIPS_HEADS[net], REINSTALL_LPIPS)
    return path


def lpips_heads_file(net: str) -> Path | None:
    """Path of `lpips_heads`, not verified; None without the package."""
    return installed_file("lpips", f"lpips/weights/v0.1/{net}.pth")


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a PyTorch file by name, on the CPU; no code from the file is run.

    Raises WeightsError for a file that contains anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything: KeyError, EOFError, UnpicklingError...
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} is not a PyTorch file of tensors only, and nothing else is read ({reason})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} contains more than named tensors, and nothing else is read")
    return state


def st_lpips() -> Path:
    """Return the verified file of ST-LPIPS, trunk and heads. Raises WeightsError if it is missing or differs."""
    path = _st_lpips_file()
    check(path, ST_LPIPS_SHA256, "pip install --no-deps --force-reinstall stlpips_pytorch==0.0.2")
    return path


def check(path: Path, expected: str, remedy: str = "delete it and download it again") -> str:
    """Return a file's sha256. Raises WeightsError, with the remedy, unless it is `expected`."""
    sha256 = sha256_file(path)
    if sha256 != expected:
        raise WeightsError(f"{path} is not the published file (sha256 {sha256} instead of {expected}): {remedy}")
    return sha256


def installed_file(distribution: str, ending: str) -> Path | None:
    """Find a file of an installed package by the end of its path, without importing the package; None if missing."""
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
            f"({error}): copy the file there from a machine with network, or point TORCH_HOME at a folder "
            f"that has it as hub/checkpoints/{path.name}"
        ) from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout, which torch.hub does not: a firewall that drops packets would block it forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _st_lpips_file() -> Path:
    """The weights inside the installed package, which is never imported, as its dependencies are undeclared."""
    path = installed_file("stlpips_pytorch", ST_LPIPS)
    if path is None:
        raise WeightsError(
            f"ST-LPIPS needs {ST_LPIPS} of the package stlpips_pytorch, which is not installed: "
            "pip install --no-deps stlpips_pytorch"
        )
    return path
