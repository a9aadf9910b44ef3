"""Load frozen vision encoders from folders in transformers' format, from the hub, or from the package index.

The final tokenizer uses two of them (EVATok Sec. 3.4): its decoder's features are aligned to one, and another, under
trainable heads, is its discriminator.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from evatok.models.efficientnet import WIDTHS, EfficientNet, EfficientNetLite0
from evatok.models.encoder_families import (
    CLIP,
    FAMILIES,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    VJEPA2,
    DINOv2,
    DINOv3,
    EncoderError,
    FrozenEncoder,
    VideoMAE,
)
from evatok.storage import checksums
from evatok.storage.files import ordinary
from evatok.weights import WeightsError, efficientnet

__all__ = [
    "CLIP",
    "FAMILIES",
    "IMAGENET_DEVIATION",
    "IMAGENET_MEAN",
    "NAMED",
    "VJEPA2",
    "DINOv2",
    "DINOv3",
    "EfficientNet",
    "EncoderError",
    "FrozenEncoder",
    "VideoMAE",
    "depth_of",
    "load_encoder",
    "quiet",
]

NAMED = {"efficientnet-lite0": True, "efficientnet-lite0:frames": False}
"""Encoders that are not folders, by name, and whether they also read frame differences."""

Found = TypeVar("Found")

_CONFIG = "config.json"
_PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
_WEIGHTS = "model*.safetensors"
_TOY = "python -m evatok.experiments.pretrain_videomae with toy"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_encoder(source: str | Path, *, resize: int | None = None) -> FrozenEncoder:
    """Load an encoder in float32: one of `NAMED`, a local folder in transformers' format, or from the hub by name.

    Args:
        source: one of `NAMED`, whose weights are fetched once into EVATOK_CACHE; a folder with config.json and
            safetensors weights; or "owner/name" (from the hub's cache if there).
        resize: side in pixels to resize clips to first (bilinear); None leaves them as they are.

    Raises:
        EncoderError: weights that are missing, damaged, incomplete or of an unknown family.
    """
    source = str(source)
    if source in NAMED:
        return _efficientnet(source, resize)
    folder = _folder(source)
    family = FAMILIES[_model_type(folder, source)]
    files = sorted(folder.glob(_WEIGHTS))
    if not files:
        raise EncoderError(f"{source}: no {_WEIGHTS} beside {_CONFIG}; put the weights there ({_TOY} makes toy ones)")
    try:
        checksums.check(folder)
    except checksums.ChecksumError as error:
        raise EncoderError(str(error)) from error
    model = _network(family, folder, source)
    return family(model, source=source, weights_sha256=_sha256(files), resize=resize, **_pixels(folder, source, family))


def depth_of(source: str | Path) -> int:
    """Return the layers of an encoder, from its configuration alone. Raises EncoderError as `load_encoder`."""
    import transformers

    source = str(source)
    if source in NAMED:
        _published(source, efficientnet.bring)
        return len(WIDTHS) - 1
    folder = _folder(source)
    _model_type(folder, source)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return int(getattr(config, "vision_config", config).num_hidden_layers)
    except Exception as error:  # as in `_network`
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(f"{source}: cannot read its {_CONFIG} ({reason}); download it again") from error


def _efficientnet(source: str, resize: int | None) -> EfficientNet:
    network = EfficientNetLite0()
    network.load_published(_published(source, efficientnet.load))
    options = {"source": source, "weights_sha256": efficientnet.SHA256, "resize": resize}
    return EfficientNet(network, differences=NAMED[source], **options)


def _published(source: str, find: Callable[[], Found]) -> Found:
    try:
        return find()
    except WeightsError as error:
        raise EncoderError(f"{source}: {error}") from error


def _folder(source: str) -> Path:
    """Return the folder of the encoder's files, downloaded from the hub if necessary."""
    if Path(source).is_dir():
        return Path(source)
    missing = (
        f"{source}: no such encoder; put a folder with {_CONFIG} and safetensors there, make the toy one ({_TOY}), or "
        f"name one of {', '.join(NAMED)}"
    )
    if not HUB_NAME.fullmatch(source):
        raise EncoderError(missing)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [_CONFIG, *_PREPROCESSORS, _WEIGHTS]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(f"{missing} (not available from the hub: {type(error).__name__})") from error


def _model_type(folder: Path, source: str) -> str:
    kind = _json(folder / _CONFIG, source).get("model_type")
    if kind not in FAMILIES:
        raise EncoderError(f"{source}: {_CONFIG} has model_type {kind!r}, known ones are {', '.join(FAMILIES)}")
    return str(kind)


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(ordinary(path).read_text())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{source}: {path.name} is missing or not JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{source}: {path.name} is not a JSON object")
    return content


def _pixels(folder: Path, source: str, family: type[FrozenEncoder]) -> dict[str, Sequence[float]]:
    """Read mean and deviation of the training pixels from the folder, or take those of the family."""
    settings: dict[str, Any] = {}
    for name in _PREPROCESSORS:
        if (folder / name).exists():
            settings |= _json(folder / name, source)
    return {
        "mean": settings.get("image_mean", family.pixels[0]),
        "deviation": settings.get("image_std", family.pixels[1]),
    }


def _network(family: type[FrozenEncoder], folder: Path, source: str) -> Any:
    """Load transformers' model, with every weight that features need."""
    import transformers

    network = getattr(transformers, family.network)
    try:
        with quiet():
            model, info = network.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # readers of the format raise nearly anything for a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(f"{source}: cannot read its weights ({reason}); download or train them again") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(family.unused))
    if missing:
        # transformers would continue with random weights in their place.
        raise EncoderError(f"{source}: {len(missing)} weights are missing, {missing[0]} first; download it again")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and its reports of unused weights, such as a pre-training's decoder."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _sha256(files: Sequence[Path]) -> str:
    """Hash the content of the weight files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with ordinary(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
