"""The masks of supplement Fig. 6, cell by cell against its text, and the file that shows them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evatok.reporting import mask_figures
from evatok.storage import records
from reproductions import figure6

TOKEN_BLOCKS = [0] * 16 + [1] * 8 + [2] * 2 + [3] * 2  # the assignment of the text, written out
PATCH_BLOCKS = [0] * 16 + [1] * 16 + [2] * 16 + [3] * 16  # a 4 x 4 x 4 grid
WHO_ASKS_WHOM = {
    "encoder_self": (TOKEN_BLOCKS, TOKEN_BLOCKS),
    "encoder_cross": (TOKEN_BLOCKS, PATCH_BLOCKS),
    "decoder_self": (PATCH_BLOCKS, PATCH_BLOCKS),
    "decoder_cross": (PATCH_BLOCKS, TOKEN_BLOCKS),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert figure6.main(["--results", str(folder)]) == 0
    return folder / "figures"


@pytest.mark.parametrize("name", WHO_ASKS_WHOM)
def test_no_query_looks_at_a_later_block_and_at_all_others(name):
    queries, keys = WHO_ASKS_WHOM[name]
    mask = mask_figures.masks((16, 8, 2, 2), 16)[name]
    assert mask.visible.shape == (len(queries), len(keys))
    for i, query_block in enumerate(queries):
        for j, key_block in enumerate(keys):
            assert mask.visible[i, j] == (key_block <= query_block), (name, i, j)


def test_the_csv_has_every_cell(built):
    frame = pd.read_csv(built / "figure6.csv")
    assert list(frame.columns) == ["mask", "query", "key", "query_block", "key_block", "visible"]
    assert len(frame) == 28 * 28 + 28 * 64 + 64 * 64 + 64 * 28
    assert (frame.visible == (frame.key_block <= frame.query_block)).all()
    for name, (queries, keys) in WHO_ASKS_WHOM.items():
        part = frame[frame["mask"] == name]
        assert part.groupby("query").query_block.first().tolist() == queries
        assert part.groupby("key").key_block.first().tolist() == keys


def test_what_is_drawn_covers_what_is_visible():
    for mask in mask_figures.masks((16, 8, 2, 2), 16).values():
        painted = np.zeros_like(mask.visible, dtype=int)
        for top, bottom, left, right in mask_figures.rectangles(mask):
            painted[top:bottom, left:right] += 1
            assert len(set(mask.query_block[top:bottom])) == 1, "one rectangle, one colour"
        np.testing.assert_array_equal(painted, mask.visible)


def test_rebuilding_gives_the_same_bytes(built, tmp_path):
    figure6.main(["--results", str(tmp_path)])
    for name in ("figure6.svg", "figure6.csv"):
        assert (tmp_path / "figures" / name).read_bytes() == (built / name).read_bytes()


def test_the_shipped_numbers_are_what_the_code_draws(built):
    shipped = records.REPOSITORY / "results" / "figures" / "figure6.csv"
    assert shipped.read_bytes() == (built / "figure6.csv").read_bytes()
