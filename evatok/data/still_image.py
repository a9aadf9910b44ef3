"""One image file as a clip of one frame: (1, S, S, 3) uint8 RGB.

Grey, palette and CMYK images become RGB, transparent ones are put on white, and images are rotated upright by their
EXIF orientation. Anything but a single 8-bit picture is rejected.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from evatok.data.decoding import check_sampling, square
from evatok.data.probe import VideoError
from evatok.storage.files import ordinary

LEAST, MOST = 8, 2**27
"""Minimum side and maximum size of an image in pixels: beyond that, it is a mistake or an attack on memory."""

_UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow's name for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_image(path: Path | str, *, size: int = 256) -> np.ndarray:
    """Read an image as a clip (1, size, size, 3) uint8 RGB: the shorter side resized, the centre kept.

    Raises VideoError for a file that is missing, empty, damaged, no image, animated, not 8-bit, smaller than 8 pixels
    or larger than 2^27; ValueError for an argument out of range.
    """
    check_sampling(frames=1, size=size, fps=None)
    return square(picture_of(path), size)[None]


def picture_of(path: Path | str) -> np.ndarray:
    """Read the picture (H, W, 3) uint8 RGB of an image file, upright. Raises VideoError, see `read_image`."""
    path = Path(path)
    if not path.is_file():
        raise VideoError(path, "is not a regular file" if path.exists() else "there is no such file")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `MOST` is the limit here
            with Image.open(ordinary(path)) as image:
                _refuse(path, image)
                return np.array(_on_white(ImageOps.exif_transpose(image)))
    except _UNREADABLE as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(path, f"cannot be read as an image ({type(error).__name__})") from error


def _refuse(path: Path, image: Image.Image) -> None:
    """Raise VideoError for an image that is not a single 8-bit picture of a reasonable size."""
    width, height = image.size
    if min(width, height) < LEAST:
        raise VideoError(path, f"an image of {width} x {height} pixels; {LEAST} x {LEAST} are needed")
    if width * height > MOST:
        raise VideoError(path, f"an image of {width} x {height} pixels; at most {MOST:,} are read")
    if image.mode[0] in "IF":
        raise VideoError(path, f"pixels of mode {image.mode} are not 8-bit; convert the image to 8-bit first")
    if (pictures := getattr(image, "n_frames", 1)) > 1:
        raise VideoError(path, f"an animation of {pictures} pictures, not an image; save one of them")


def _on_white(image: Image.Image) -> Image.Image:
    """Convert to RGB, with transparency on white."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    opaque = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
