"""Contact sheets: a row of frames per clip, with its caption and, optionally, its tokens per block.

Legend: N clips, T frames, H x W pixels, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 12  # pixels around the sheet
ROW_GAP = 12  # between one clip and the one below
COLUMN_GAP = 28  # between clips side by side
FRAME_GAP = 1  # between frames of one block
BLOCK_GAP = 5  # between temporal blocks
CAPTION_GAP = 10  # between a caption and its frames
TOKENS_HEIGHT = 22  # above the frames, for the number and the bar
TEXT_SIZE = 12

Assignments = np.ndarray | Sequence[np.ndarray | None]

WHITE, INK, FADED = (255, 255, 255), (33, 37, 41), (110, 117, 125)
BAR, TRACK = (38, 98, 158), (226, 230, 235)

_BAR_HEIGHT = 4
_LINE = TEXT_SIZE + 3


@dataclass(frozen=True)
class _Layout:
    """Geometry of a sheet, in pixels."""

    side: tuple[int, int]  # height and width of one frame as shown
    blocks: int
    frames_per_block: int
    caption_width: int  # 0 for a sheet without captions
    tokens_height: int

    @property
    def block_width(self) -> int:
        return self.frames_per_block * (self.side[1] + FRAME_GAP) - FRAME_GAP

    @property
    def width(self) -> int:
        """Width of one clip: caption and frames."""
        caption = self.caption_width + CAPTION_GAP if self.caption_width else 0
        return caption + self.blocks * (self.block_width + BLOCK_GAP) - BLOCK_GAP

    @property
    def height(self) -> int:
        return self.tokens_height + self.side[0]

    def block_left(self, block: int) -> int:
        caption = self.caption_width + CAPTION_GAP if self.caption_width else 0
        return caption + block * (self.block_width + BLOCK_GAP)

    def frame_left(self, number: int) -> int:
        block, frame = divmod(number, self.frames_per_block)
        return self.block_left(block) + frame * (self.side[1] + FRAME_GAP)


def contact_sheet(
    clips: np.ndarray,
    captions: list[str] | None = None,
    *,
    frames: int = 8,
    columns: int = 1,
    assignments: Assignments | None = None,
) -> Image.Image:
    """Draw clips (N, T, H, W, 3) uint8 as an RGB picture, a row of at most `frames` evenly spaced frames per clip.

    Args:
        captions: N texts, left of the frames; the first line is dark, further lines are faded.
        columns: clips side by side.
        assignments: (N, K) token counts, shown above their temporal block of T / K frames as a number and a bar; the
            largest count on the sheet has a bar as wide as a block. None in place of a row: a clip without tokens.

    Small frames are enlarged by an integer factor.
    Raises ValueError for clips of another layout or type, too few or too many captions or assignments, negative counts,
    and a number of frames that is not divisible by K.
    """
    _check(clips, captions, frames, columns, assignments)
    shown = min(frames, clips.shape[1])
    counts = None if assignments is None else _counts(assignments)
    blocks = 1 if counts is None else counts.shape[1]
    if shown % blocks or clips.shape[1] % blocks:
        raise ValueError(f"{shown} of {clips.shape[1]} frames cannot be shared equally by {blocks} blocks")
    scale = max(1, round(96 / max(clips.shape[2:4])))
    layout = _Layout(
        side=(clips.shape[2] * scale, clips.shape[3] * scale),
        blocks=blocks,
        frames_per_block=shown // blocks,
        caption_width=max((_text_width(caption) for caption in captions or []), default=0),
        tokens_height=0 if assignments is None else TOKENS_HEIGHT,
    )
    rows = -(-len(clips) // columns)
    width = columns * (layout.width + COLUMN_GAP) - COLUMN_GAP + 2 * MARGIN
    height = rows * (layout.height + ROW_GAP) - ROW_GAP + 2 * MARGIN
    sheet = Image.new("RGB", (width, height), WHITE)
    for number, clip in enumerate(clips):
        row, column = divmod(number, columns)
        corner = (MARGIN + column * (layout.width + COLUMN_GAP), MARGIN + row * (layout.height + ROW_GAP))
        if captions:
            _draw_caption(sheet, corner, layout, captions[number])
        if assignments is not None and counts is not None and assignments[number] is not None:
            _draw_tokens(sheet, corner, layout, np.asarray(assignments[number]), int(counts.max()))
        _paste_frames(sheet, corner, layout, clip)
    return sheet


def _check(
    clips: np.ndarray, captions: list[str] | None, frames: int, columns: int, assignments: Assignments | None
) -> None:
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or 0 in clips.shape:
        raise ValueError(f"clips must be uint8 (N, T, H, W, 3) and not empty, got {clips.dtype} {clips.shape}")
    if frames < 1 or columns < 1:
        raise ValueError(f"frames and columns must be 1 or more, got {frames=}, {columns=}")
    if captions is not None and len(captions) != len(clips):
        raise ValueError(f"{len(captions)} captions for {len(clips)} clips")
    if assignments is None:
        return
    counts = _counts(assignments)
    if counts.ndim != 2 or len(assignments) != len(clips) or not counts.shape[1]:
        raise ValueError(f"assignments must be ({len(clips)}, K) token counts, got {np.shape(counts)}")
    if counts.min() < 0:
        raise ValueError(f"assignments hold {counts.min()} tokens; a count is 0 or more")


def _counts(assignments: Assignments) -> np.ndarray:
    """Return the rows that exist."""
    return np.array([row for row in assignments if row is not None])


def _draw_caption(sheet: Image.Image, corner: tuple[int, int], layout: _Layout, caption: str) -> None:
    """Draw a caption, vertically centred next to the frames."""
    draw, lines = ImageDraw.Draw(sheet), caption.split("\n")
    top = corner[1] + layout.tokens_height + (layout.side[0] - len(lines) * _LINE) // 2
    for number, line in enumerate(lines):
        ink = FADED if number else INK
        draw.text((corner[0], top + number * _LINE), line, fill=ink, font=_font())


def _draw_tokens(sheet: Image.Image, corner: tuple[int, int], layout: _Layout, tokens_K: np.ndarray, most: int) -> None:
    draw, top = ImageDraw.Draw(sheet), corner[1]
    bar_top = top + TOKENS_HEIGHT - _BAR_HEIGHT - 3
    for block, tokens in enumerate(tokens_K.tolist()):
        left = corner[0] + layout.block_left(block)
        draw.text((left, top - 1), f"{tokens}", fill=INK, font=_font())
        for length, colour in ((layout.block_width, TRACK), (_bar_length(tokens, most, layout), BAR)):
            if length:
                draw.rectangle((left, bar_top, left + length - 1, bar_top + _BAR_HEIGHT - 1), fill=colour)


def _bar_length(tokens: int, most: int, layout: _Layout) -> int:
    return round(layout.block_width * tokens / max(most, 1))


def _paste_frames(sheet: Image.Image, corner: tuple[int, int], layout: _Layout, clip: np.ndarray) -> None:
    """Paste the middle frame of each of equal time spans, so that every block shows equally many."""
    count = layout.blocks * layout.frames_per_block
    for number in range(count):
        picture = Image.fromarray(np.ascontiguousarray(clip[(2 * number + 1) * len(clip) // (2 * count)]))
        picture = picture.resize((layout.side[1], layout.side[0]), Image.Resampling.NEAREST)
        sheet.paste(picture, (corner[0] + layout.frame_left(number), corner[1] + layout.tokens_height))


def _text_width(text: str) -> int:
    return max(int(np.ceil(_font().getlength(line))) for line in text.split("\n"))


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib: sheets look the same everywhere, and match figures."""
    import matplotlib  # here: only its font is needed

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", TEXT_SIZE)
