"""A folder of images as one clip: (T, H, W, 3) uint8 RGB, in natural order of the file names."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from evatok.data.decoding import check_sampling, square
from evatok.data.probe import VideoError
from evatok.storage.files import ordinary

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_frames_folder(path: Path | str, *, frames: int = 16, size: int = 128, start: int = 0) -> np.ndarray:
    """Read a folder of images in natural order as one clip (frames, size, size, 3) uint8 RGB.

    `start` is the index of the first image. Raises VideoError for a missing folder, too few images, an image
    that cannot be read, or images of mixed sizes; ValueError for an argument out of range.
    """
    path = Path(path)
    check_sampling(frames=frames, size=size, fps=None)
    if start < 0:
        raise ValueError(f"start is {start}: the index of the first image must be 0 or more")
    if not path.is_dir():
        raise VideoError(path, "is not a folder of images" if path.exists() else "there is no such folder")
    images = images_in(path)
    wanted = images[start : start + frames]
    if len(wanted) < frames:
        held = f"only {len(wanted)} images from index {start}, {frames} needed"
        raise VideoError(path, f"{held}; it holds {len(images)} images ({', '.join(IMAGE_SUFFIXES)})")
    pictures = [_load_image(image) for image in wanted]
    for image, picture in zip(wanted, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise VideoError(
                path, f"{image.name} and {wanted[0].name} differ in size; all images of a clip need the same"
            )
    return np.stack([square(picture, size) for picture in pictures])


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order (frame9 before frame10), hidden files left out."""
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    return sorted((entry for entry in found if not entry.name.startswith(".")), key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which digits count as numbers; the name itself breaks ties such as 1 and 01."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)], path.name


def _load_image(path: Path) -> np.ndarray:
    try:
        with Image.open(ordinary(path)) as image:
            if image.mode[0] in "IF":
                raise VideoError(path, f"pixels of mode {image.mode} are not 8-bit; convert the images to 8-bit first")
            return np.asarray(image.convert("RGB"))
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow calls a broken PNG a SyntaxError
        raise VideoError(path, f"cannot be read as an image ({type(error).__name__})") from error
