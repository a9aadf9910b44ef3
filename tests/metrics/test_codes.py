import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evatok.metrics.codebook import (
    bits_per_pixel,
    code_counts,
    codebook_perplexity,
    codebook_usage,
    length_histogram,
    mean_tokens,
    perplexity_of,
    usage_of,
)

PADDED = torch.tensor([[0, 0, 1, 1], [2, 2, -1, -1]])
"""Three codes, each twice, of two clips with 4 and 2 tokens."""


class TestCodebook:
    def test_padding_never_counts(self):
        assert code_counts(PADDED, 6).tolist() == [2, 2, 2, 0, 0, 0]
        assert codebook_usage(PADDED, 6) == 0.5
        assert codebook_perplexity(PADDED, 6) == pytest.approx(3)

    def test_perplexity_by_hand(self):
        assert codebook_perplexity([5, 5, 5], 8) == pytest.approx(1)
        assert codebook_perplexity(range(8), 8) == pytest.approx(8)
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        assert codebook_perplexity([0, 0, 0, 1], 8) == pytest.approx(math.exp(entropy))

    @given(st.lists(st.integers(-1, 30), min_size=1).filter(lambda codes: max(codes) >= 0))
    def test_perplexity_lies_between_one_and_the_codes_in_use(self, codes):
        in_use = 31 * codebook_usage(codes, 31)
        assert 1 - 1e-9 <= codebook_perplexity(codes, 31) <= in_use + 1e-9
        assert in_use == pytest.approx(len(set(codes) - {-1}))

    def test_batches_add_up(self):
        codes = np.random.default_rng(0).integers(-1, 50, (8, 40))
        added = code_counts(codes[:3], 50) + code_counts(codes[3:], 50)
        assert usage_of(added) == codebook_usage(codes, 50)
        assert perplexity_of(added) == codebook_perplexity(codes, 50)

    @pytest.mark.parametrize("measure", [codebook_usage, codebook_perplexity])
    @pytest.mark.parametrize(
        ("codes", "size", "cause"),
        [
            ([0, 8], 8, r"\[0, 8\), or be -1 for padding, got 8"),
            ([0, -2], 8, "got -2"),
            ([0.0, 1.0], 8, "integers, not torch.float32"),
            ([True], 8, "integers, not torch.bool"),
            ([-1, -1], 8, "empty or only padding"),
            ([], 8, "integers|no codes were counted"),
            ([0], 0, "at least one code"),
        ],
    )
    def test_wrong_codes_are_refused(self, measure, codes, size, cause):
        with pytest.raises(ValueError, match=cause):
            measure(codes, size)


class TestBits:
    def test_by_hand(self):
        bits = bits_per_pixel([[4, 8], [2, 2]], codebook_size=256, levels=4, shape=(2, 8, 4))
        assert bits.tolist() == [(12 * 8 + 2 * 2) / 64, (4 * 8 + 2 * 2) / 64]

    def test_a_fixed_length_needs_no_symbols(self):
        assert bits_per_pixel([[1024]], 8192, 1, (16, 128, 128)).item() == pytest.approx(1024 * 13 / (16 * 128 * 128))

    @given(st.integers(1, 512), st.integers(2, 9))
    def test_a_token_more_costs_its_own_bits(self, tokens, levels):
        few, more = bits_per_pixel([[tokens], [tokens + 1]], 1000, levels, (1, 10, 10)).tolist()
        assert more - few == pytest.approx(math.log2(1000) / 100)

    @pytest.mark.parametrize(
        ("lengths", "size", "levels", "shape", "cause"),
        [
            ([4, 8], 16, 5, (4, 8, 8), r"\(B, K\), got the shape \(2,\)"),
            ([[4, 0]], 16, 5, (4, 8, 8), "positive numbers of tokens"),
            ([[4.0, 8.0]], 16, 5, (4, 8, 8), "integers"),
            ([[4, 8]], 16, 1, (4, 8, 8), "2 different lengths occur, so they cannot come from 1"),
            ([[4, 8]], 0, 5, (4, 8, 8), "codebook of 0"),
            ([[4, 8]], 16, 5, (4, 0, 8), r"\(4, 0, 8\)"),
            ([[4, 8]], 16, 5, (8, 8), r"\(8, 8\)"),
        ],
    )
    def test_wrong_lengths_are_refused(self, lengths, size, levels, shape, cause):
        with pytest.raises(ValueError, match=cause):
            bits_per_pixel(lengths, size, levels, shape)


class TestLengths:
    def test_the_histogram_counts_clips_by_all_their_tokens(self):
        lengths = torch.tensor([[2, 4], [4, 2], [8, 8]])
        assert length_histogram(lengths) == {6: 2, 16: 1}
        assert list(length_histogram(lengths)) == [6, 16]
        assert length_histogram(lengths.sum(dim=1)) == length_histogram(lengths)
        assert mean_tokens(lengths) == pytest.approx(28 / 3)

    @given(st.lists(st.integers(1, 2048), min_size=1, max_size=50))
    def test_the_histogram_holds_every_clip_and_token(self, lengths):
        histogram = length_histogram(lengths)
        assert sum(histogram.values()) == len(lengths)
        assert sum(tokens * clips for tokens, clips in histogram.items()) == sum(lengths)
        assert mean_tokens(lengths) == pytest.approx(np.mean(lengths))

    @pytest.mark.parametrize(
        ("lengths", "cause"),
        [([[[1]]], r"\(B, K\) or \(B,\)"), ([1.5], "integers"), ([], "integers|positive"), ([0, 3], "positive")],
    )
    def test_wrong_lengths_are_refused(self, lengths, cause):
        with pytest.raises(ValueError, match=cause):
            length_histogram(lengths)
