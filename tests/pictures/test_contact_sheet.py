"""The sheet's sizes add up, every block shows its own frames, and a bar is as long as its count says."""

import numpy as np
import pytest

from evatok.pictures import contact_sheet as module
from evatok.pictures.contact_sheet import contact_sheet


def grey_ramp(count: int = 3, frames: int = 8, side: int = 100) -> np.ndarray:
    """Frame t of clip n is all of grey 16 n + t."""
    greys = 16 * np.arange(count)[:, None] + np.arange(frames)
    return np.broadcast_to(greys[:, :, None, None, None], (count, frames, side, side, 3)).astype(np.uint8)


def test_sizes_add_up() -> None:
    sheet = contact_sheet(grey_ramp(), frames=4)
    assert sheet.mode == "RGB"
    assert sheet.width == 2 * module.MARGIN + 4 * 100 + 3 * module.FRAME_GAP
    assert sheet.height == 2 * module.MARGIN + 3 * 100 + 2 * module.ROW_GAP


def test_columns_blocks_and_captions_widen_it_by_what_they_need() -> None:
    clips, tokens = grey_ramp(), np.ones((3, 2), dtype=int)
    plain = contact_sheet(clips, frames=4)
    clip = plain.width - 2 * module.MARGIN
    assert contact_sheet(clips, frames=4, columns=3).width == plain.width + 2 * (clip + module.COLUMN_GAP)
    blocked = contact_sheet(clips, frames=4, assignments=tokens)
    assert blocked.width == plain.width + module.BLOCK_GAP - module.FRAME_GAP
    assert blocked.height == plain.height + 3 * module.TOKENS_HEIGHT
    short, long = (contact_sheet(clips, ["", text, ""], frames=4).width for text in ("a", "a longer caption"))
    assert plain.width < short < long
    assert contact_sheet(clips, ["", "a longer caption\nand a second line", ""], frames=4).height == plain.height


def test_frames_come_from_the_middle_of_equal_spans_in_order() -> None:
    sheet = np.asarray(contact_sheet(grey_ramp(), frames=4))
    row = sheet[module.MARGIN + 50, module.MARGIN :: 100 + module.FRAME_GAP, 0]
    assert row[:4].tolist() == [1, 3, 5, 7]
    everything = np.asarray(contact_sheet(grey_ramp(), frames=99))
    assert everything[module.MARGIN, module.MARGIN :: 100 + module.FRAME_GAP, 0][:8].tolist() == list(range(8))


def test_small_frames_are_enlarged_by_a_whole_factor_and_large_ones_stay() -> None:
    assert contact_sheet(grey_ramp(1, side=32), frames=1).width == 2 * module.MARGIN + 96
    assert contact_sheet(grey_ramp(1, side=256), frames=1).width == 2 * module.MARGIN + 256


def test_bars_are_proportional_to_the_tokens() -> None:
    tokens = np.array([[8, 4, 0, 2], [2, 2, 2, 2], [1, 1, 1, 1]])
    sheet = np.asarray(contact_sheet(grey_ramp(), frames=4, assignments=tokens))
    first = sheet[module.MARGIN : module.MARGIN + module.TOKENS_HEIGHT]
    painted = (first == module.BAR).all(axis=-1).any(axis=0)
    left = [module.MARGIN + block * (100 + module.BLOCK_GAP) for block in range(4)]
    assert [int(painted[start : start + 100].sum()) for start in left] == [100, 50, 0, 25]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"assignments": np.ones((2, 4), int)}, r"must be \(3, K\) token counts, got \(2, 4\)"),
        ({"assignments": np.ones(3, int)}, r"must be \(3, K\) token counts, got \(3,\)"),
        ({"assignments": np.ones((3, 0), int)}, r"got \(3, 0\)"),
        ({"assignments": -np.ones((3, 4), int)}, "-1 tokens; a count is 0 or more"),
        ({"assignments": np.ones((3, 3), int)}, "8 of 8 frames cannot be shared equally by 3 blocks"),
        ({"captions": ["one", "two"]}, "2 captions for 3 clips"),
        ({"frames": 0}, "must be 1 or more"),
        ({"columns": 0}, "must be 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        contact_sheet(grey_ramp(), **wrong)


@pytest.mark.parametrize("clips", [grey_ramp().astype(np.float32), grey_ramp()[0], grey_ramp()[:0]])
def test_what_are_no_clips_is_refused(clips: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, T, H, W, 3\)"):
        contact_sheet(clips)
