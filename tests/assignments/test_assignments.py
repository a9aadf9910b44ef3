"""Candidates are numbered like digits, and the paper's set has the numbers that the reward's constants rest on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evatok.assignments.candidates import CandidateSet

PAPER = CandidateSet((32, 64, 128, 256, 512), 4)

candidate_sets = st.builds(
    CandidateSet,
    levels=st.sets(st.integers(1, 600), min_size=1, max_size=5).map(lambda levels: tuple(sorted(levels))),
    blocks=st.integers(1, 4),
)


@given(candidates=candidate_sets)
def test_index_and_row_are_inverse_over_the_whole_set(candidates):
    indices = np.arange(len(candidates))
    rows = candidates.row(indices)
    assert rows.shape == (len(candidates.levels) ** candidates.blocks, candidates.blocks)
    assert np.array_equal(candidates.index(rows), indices)
    assert len(np.unique(rows, axis=0)) == len(candidates)


@given(candidates=candidate_sets, data=st.data())
def test_candidates_that_agree_on_their_first_blocks_lie_side_by_side(candidates, data):
    row = data.draw(st.lists(st.sampled_from(candidates.levels), min_size=1, max_size=candidates.blocks))
    sharing = np.flatnonzero((candidates.rows[:, : len(row)] == row).all(axis=1))
    assert np.array_equal(sharing, np.arange(sharing[0], sharing[0] + len(sharing)))


@given(candidates=candidate_sets)
def test_uniform_candidates_give_every_block_one_level(candidates):
    expected = [[level] * candidates.blocks for level in candidates.levels]
    assert candidates.row(candidates.uniform).tolist() == expected


def test_the_papers_set_has_625_candidates_and_the_published_lengths():
    assert len(PAPER) == len(PAPER.rows) == 625
    assert PAPER.totals.mean() == pytest.approx(793.6)
    assert PAPER.totals.std() == pytest.approx(349.137, abs=5e-4)
    assert (PAPER.totals.min(), PAPER.totals.max()) == (128, 2048)
    assert len(np.unique(PAPER.totals)) == 44
    assert PAPER.totals[PAPER.uniform].tolist() == [128, 256, 512, 1024, 2048]


def test_index_keeps_leading_dimensions_and_takes_a_single_row():
    rows = PAPER.row(np.array([[0, 7], [300, 624]]))
    assert rows.shape == (2, 2, 4)
    assert PAPER.index(rows).tolist() == [[0, 7], [300, 624]]
    assert PAPER.index(np.array([512, 32, 32, 64])) == 4 * 125 + 1


@pytest.mark.parametrize("count", [0, 31, 33, 100, 513, 10**6])
def test_a_count_that_is_no_level_is_named(count):
    with pytest.raises(ValueError, match=f"^{count} tokens is not one of the levels"):
        PAPER.index(np.array([32, 64, count, 32]))


def test_another_number_of_blocks_is_an_error():
    with pytest.raises(ValueError, match="3 blocks, the candidate set has 4"):
        PAPER.index(np.array([[32, 64, 128]]))


@pytest.mark.parametrize("levels", [(), (0, 1), (-1, 2), (4, 2), (2, 2)])
def test_levels_must_be_positive_and_ascending(levels):
    with pytest.raises(ValueError, match="positive and ascending"):
        CandidateSet(levels, 4)


def test_a_clip_has_at_least_one_block():
    with pytest.raises(ValueError, match="at least one temporal block"):
        CandidateSet((1, 2), 0)


def test_samples_are_uniform_over_the_candidates():
    candidates = CandidateSet((2, 4, 8), 2)
    drawn = candidates.index(candidates.sample(9000, torch.Generator().manual_seed(0)).numpy())
    counts = np.bincount(drawn, minlength=len(candidates))
    # Chi-square with 8 degrees of freedom: 26.1 is exceeded once in a thousand times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 26.1


def test_samples_follow_the_generator_alone():
    first, again, other = (PAPER.sample(16, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first.shape == (16, 4)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
