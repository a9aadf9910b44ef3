"""Catalogue of the third-party weight files that metrics and encoders need: where, and whether the published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from evatok import weights
from evatok.weights import WeightsError, efficientnet, i3d


@dataclass(frozen=True)
class WeightsFile:
    """A weight file.

    Attributes:
        name: name on the command line.
        metrics: the metrics, or the encoder, that need it.
        find: returns its path, whether or not it exists; None if the package that contains it is not installed.
        check: returns a file's sha256 (for the I3D, of its arrays); WeightsError unless it is the published one.
        bring: downloads the file; raises WeightsError if that fails.
    """

    name: str
    metrics: str
    find: Callable[[], Path | None]
    check: Callable[[Path], str]
    bring: Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """State of a weight file: `size` is None if it is absent, `problem` says why it is not the published one."""

    file: WeightsFile
    path: Path | None
    size: int | None = None
    sha256: str | None = None
    problem: str | None = None

    @property
    def state(self) -> str:
        """ "ok", "absent" or "wrong"."""
        if self.problem is not None:
            return "wrong"
        return "absent" if self.size is None else "ok"


def inspect(file: WeightsFile) -> Finding:
    """Find and hash a file, without downloading it; raises nothing."""
    path = file.find()
    if path is None or not path.exists():
        return Finding(file, path)
    size = path.stat().st_size
    try:
        return Finding(file, path, size, file.check(path))
    except (WeightsError, OSError) as error:
        return Finding(file, path, size, problem=str(error))


def named(names: Iterable[str]) -> list[WeightsFile]:
    """Look up files by name, all without names. Raises ValueError for an unknown name."""
    known = {file.name: file for file in FILES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown weights {', '.join(unknown)}; choose among {', '.join(known)}")
    return [known[name] for name in names] or list(FILES)


def _trunk(net: str) -> WeightsFile:
    def find() -> Path:
        return weights.hub_file(weights.TRUNKS[net])

    return WeightsFile(f"lpips-{net}", f"lpips-{net}", find, _check_by_name, lambda: weights.trunk(net))


def _check_by_name(path: Path) -> str:
    return weights.check(path, weights.PUBLISHED[path.name])


def _lpips_heads(net: str) -> WeightsFile:
    return WeightsFile(
        f"lpips-{net}-heads",
        f"lpips-{net}",
        lambda: weights.lpips_heads_file(net),
        lambda path: weights.check(path, weights.LPIPS_HEADS[net], weights.REINSTALL_LPIPS),
        lambda: weights.lpips_heads(net),
    )


FILES = (
    _trunk("vgg"),
    _trunk("alex"),
    _lpips_heads("vgg"),
    _lpips_heads("alex"),
    WeightsFile(
        "st-lpips",
        "st-lpips",
        lambda: weights.installed_file("stlpips_pytorch", weights.ST_LPIPS),
        lambda path: weights.check(path, weights.ST_LPIPS_SHA256),
        weights.st_lpips,
    ),
    WeightsFile("i3d", "fvd, kvd", lambda: i3d.folder() / i3d.CONVERTED, i3d.check, i3d.load),
    WeightsFile(
        "inception", "fid, kid", lambda: weights.hub_file(weights.INCEPTION), _check_by_name, weights.inception
    ),
    WeightsFile("efficientnet-lite0", "semantic_encoder", efficientnet.path, efficientnet.check, efficientnet.bring),
)
