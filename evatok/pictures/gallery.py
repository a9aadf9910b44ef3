"""Galleries of clips: every frame as a lossless PNG, a contact sheet, and many clips side by side as one video.

Legend: N clips, T frames, H x W pixels, K temporal blocks; clips are uint8 RGB (N, T, H, W, 3), a moving picture
is (T, H, W, 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from evatok.errors import EvatokError
from evatok.pictures.contact_sheet import contact_sheet
from evatok.storage.filenames import file_name
from evatok.storage.files import replacing

GAP = 4  # pixels between clips
WHITE = 255
MOVING_SUFFIXES = (".mp4", ".webp")
_CRF = "14"  # of H.264: visually almost lossless


class ShowingError(EvatokError, ValueError):
    """Clips that cannot be shown as requested, or an unsupported file type."""


def write_samples(
    folder: Path | str,
    clips: np.ndarray,
    names: Mapping[int, str],
    tokens: np.ndarray,
    *,
    beside: np.ndarray | None = None,
    moving: str = "clips.mp4",
    fps: float = 8.0,
) -> dict[str, Path]:
    """Write clips (N, T, H, W, 3): frames/, sheet.png with the tokens of each block, and, of videos, a moving picture.

    Args:
        names: (N) index of each clip and its class, "" without one.
        tokens: (N, K) tokens per block.
        beside: clips to show left of each in the moving picture, such as the real ones.

    Raises:
        ShowingError: clips or a moving picture that cannot be written.
    """
    folder = Path(folder)
    save_frames(clips, folder / "frames", [f"{number:05d}-{name}".rstrip("-") for number, name in names.items()])
    titles = [name or f"clip {number}" for number, name in names.items()]
    captions = [f"{title}\n{row.sum()} tokens" for title, row in zip(titles, tokens, strict=True)]
    shown = min(2 * tokens.shape[1], clips.shape[1])
    sheet = contact_sheet(clips, captions, frames=shown, columns=2, assignments=tokens)
    sheet.save(folder / "sheet.png")
    if clips.shape[1] == 1:  # images do not move
        return {"sheet": folder / "sheet.png"}
    variants = (clips,) if beside is None else (beside, clips)
    picture = save_moving(side_by_side(*variants), folder / moving, fps=fps)
    return {"sheet": folder / "sheet.png", "moving": picture}


def write_reconstructions(
    folder: Path | str,
    real: np.ndarray,
    made: Mapping[str, np.ndarray],
    titles: Sequence[str],
    notes: Mapping[str, Sequence[str]],
    tokens: Mapping[str, Sequence[np.ndarray] | np.ndarray | None],
    *,
    moving: str = "clips.webp",
    fps: float = 8.0,
) -> dict[str, Path]:
    """Write clips and their reconstructions: sheet.png, a row per clip and tokenizer, and a moving picture.

    Args:
        real: (n, T, H, W, 3) clips.
        made: (n, T, H, W, 3) reconstructions by each tokenizer.
        titles: n, of each clip.
        notes: n of each tokenizer, such as quality and tokens.
        tokens: (n, K) tokens per block of each tokenizer, None for one without.

    Raises:
        ShowingError: clips or a moving picture that cannot be written.
    """
    folder = Path(folder)
    rows, captions = [], []
    counts: list[np.ndarray | None] = []
    for number, clip in enumerate(real):
        rows += [clip, *(clips[number] for clips in made.values())]
        captions += [titles[number], *(f"{name}\n{notes[name][number]}" for name in made)]
        counts += [None, *(None if given is None else given[number] for given in (tokens[name] for name in made))]
    blocks = next((len(row) for row in counts if row is not None), 0)
    frames = min(2 * blocks or 8, real.shape[1])
    folder.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(np.stack(rows), captions, frames=frames, assignments=counts if blocks else None)
    sheet.save(folder / "sheet.png")
    files = {"sheet": folder / "sheet.png"}
    if real.shape[1] > 1:  # images do not move
        files["moving"] = save_moving(side_by_side(real, *made.values()), folder / moving, fps=fps)
    return files


def in_turns(names: Sequence[str], count: int) -> list[int]:
    """Choose `count` indices round-robin over the classes, so that rare ones are shown; in ascending order."""
    seen: Counter[str] = Counter()
    rounds = []
    for name in names:
        rounds.append(seen[name])
        seen[name] += 1
    return sorted(sorted(range(len(names)), key=rounds.__getitem__)[:count])


def save_frames(clips: np.ndarray, folder: Path | str, names: Sequence[str]) -> list[Path]:
    """Write <folder>/<name>/<frame>.png for every frame of clips (N, T, H, W, 3); returns the N folders.

    `file_name` replaces names that are not valid for a folder, or would lead out of this one.

    Raises:
        ShowingError: clips of another layout, or not N different names.
    """
    _check(clips)
    names = [file_name(name) for name in names]
    if len(names) != len(clips) or len(set(names)) != len(names):
        raise ShowingError(f"{len(clips)} clips need as many different names, got {len(set(names))}")
    folders = [Path(folder) / name for name in names]
    for clip, clip_folder in zip(clips, folders, strict=True):
        clip_folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(clip):
            Image.fromarray(np.ascontiguousarray(frame)).save(clip_folder / f"{number:02d}.png")
    return folders


def side_by_side(*variants: np.ndarray, columns: int = 0, enlarge: int = 2) -> np.ndarray:
    """Arrange clips in a grid, as one moving picture (T, H', W', 3) on white.

    Args:
        variants: one or more arrays (N, T, H, W, 3); a cell of the grid holds clip n of each, from left to right
            (such as the real clip and its reconstruction).
        columns: cells per row; 0 makes the picture about square.
        enlarge: integer factor by which pixels are enlarged.

    Raises:
        ShowingError: no clips, or variants of different shapes.
    """
    if not variants or any(clips.shape != variants[0].shape for clips in variants):
        raise ShowingError(f"clips side by side must have one shape, got {[clips.shape for clips in variants]}")
    for clips in variants:
        _check(clips)
    count, frames, height, width, _ = variants[0].shape
    columns = columns or max(1, round((count / len(variants)) ** 0.5))
    high, wide = enlarge * height, enlarge * width * len(variants) + GAP * (len(variants) - 1)
    rows = -(-count // columns)
    shape = (frames, rows * (high + GAP) - GAP, columns * (wide + 2 * GAP) - 2 * GAP, 3)
    sheet = np.full(shape, WHITE, dtype=np.uint8)
    for number in range(count):
        row, column = divmod(number, columns)
        top, left = row * (high + GAP), column * (wide + 2 * GAP)
        for position, clips in enumerate(variants):
            start = left + position * (enlarge * width + GAP)
            enlarged = clips[number].repeat(enlarge, axis=1).repeat(enlarge, axis=2)
            sheet[:, top : top + high, start : start + enlarge * width] = enlarged
    return sheet


def save_moving(picture: np.ndarray, path: Path | str, *, fps: float = 8.0, seconds: float = 6.0) -> Path:
    """Write a moving picture (T, H, W, 3) as H.264 (.mp4), repeated up to `seconds`, or as a lossless loop (.webp).

    Raises:
        ShowingError: another suffix or layout, or a rate that is not positive.
    """
    path = Path(path)
    if path.suffix not in MOVING_SUFFIXES:
        raise ShowingError(f"{path.name}: moving pictures are written as {' or '.join(MOVING_SUFFIXES)}")
    if fps <= 0:
        raise ShowingError(f"{path.name}: {fps} frames per second cannot be shown")
    _check(picture[None])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".webp":
        _save_webp(picture, path, fps)
    else:
        _save_mp4(np.tile(picture, (max(1, round(seconds * fps / len(picture))), 1, 1, 1)), path, fps)
    return path


def _save_webp(picture: np.ndarray, path: Path, fps: float) -> None:
    first, *others = [Image.fromarray(frame) for frame in picture]
    options = {"duration": round(1000 / fps), "loop": 0, "lossless": True}
    with replacing(path) as partial:
        first.save(partial, "WEBP", save_all=True, append_images=others, **options)


def _save_mp4(picture: np.ndarray, path: Path, fps: float) -> None:
    padding = [(0, 0), (0, picture.shape[1] % 2), (0, picture.shape[2] % 2), (0, 0)]
    even = np.pad(picture, padding, constant_values=WHITE)  # 4:2:0 halves both sides
    rate = Fraction(fps).limit_denominator(1000)
    # The same frames are the same bytes: nothing is left to the number of cores, the clock, or the library's version,
    # and nothing to what lay in memory before, which x264's macroblock tree reads in its assembly.
    with replacing(path) as partial, av.open(str(partial), "w", "mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.thread_count = 1
        stream.options = {"crf": _CRF, "preset": "medium", "flags": "+bitexact", "x264-params": "threads=1:mbtree=0"}
        for number, picture in enumerate(even):
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            shown = shown.reformat(format="yuv420p", interpolation="BICUBIC")
            shown.pts, shown.time_base = number, 1 / rate
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


def _check(clips: np.ndarray) -> None:
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or 0 in clips.shape:
        raise ShowingError(f"clips must be uint8 (N, T, H, W, 3) and not empty, got {clips.dtype} {clips.shape}")
