"""Rules of other papers: their own figures at their own levels, and equal tokens wherever they are compared."""

import numpy as np
import pytest

from evatok.assignments import published
from evatok.assignments.candidates import CandidateSet

PAPER = CandidateSet((32, 64, 128, 256, 512), 4)
TOY = CandidateSet((8, 16, 32, 64, 128), 4)


def test_adaptoks_row_is_the_published_one_at_the_papers_levels_and_keeps_its_shape_at_others():
    assert PAPER.row(published.adaptok_row(PAPER, 1024)).tolist() == [512, 256, 128, 128]
    assert TOY.row(published.adaptok_row(TOY, 256)).tolist() == [128, 64, 32, 32]
    assert TOY.row(published.adaptok_row(TOY, 128)).tolist() == [64, 32, 16, 16]


def test_adaptoks_row_needs_its_four_blocks():
    with pytest.raises(ValueError, match="has 4 blocks, the candidates have 3"):
        published.adaptok_row(CandidateSet((2, 4), 3), 8)


def test_infotok_gives_equal_blocks_equal_tokens_and_a_lossier_block_more():
    losses = np.array([[1.0, 1.0, 1.0, 1.0], [4.0, 1.0, 1.0, 1.0]])
    even, uneven = PAPER.row(published.infotok(losses, PAPER, 1024.0))
    assert len(set(even.tolist())) == 1
    assert uneven[0] > uneven[1] == uneven[2] == uneven[3]


@pytest.mark.parametrize("across", [False, True])
def test_infotok_spends_about_what_it_is_given(across):
    losses = np.random.default_rng(0).gamma(4.0, size=(400, 4))
    for tokens in (200.0, 600.0, 1200.0):
        spent = PAPER.totals[published.infotok(losses, PAPER, tokens, across=across)].mean()
        assert spent == pytest.approx(tokens, rel=0.1)


def test_across_clips_a_lossier_clip_gets_more_tokens():
    losses = np.array([[1.0] * 4, [3.0] * 4])
    within = PAPER.totals[published.infotok(losses, PAPER, 600.0)]
    across = PAPER.totals[published.infotok(losses, PAPER, 600.0, across=True)]
    assert within[0] == within[1]
    assert across[0] < across[1]


def test_tokens_beyond_the_levels_end_at_their_bounds():
    losses = np.ones((3, 4))
    assert (PAPER.totals[published.infotok(losses, PAPER, 1e6)] == 2048).all()
    assert (PAPER.totals[published.infotok(losses, PAPER, 1.0)] == 128).all()
