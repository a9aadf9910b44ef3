"""Sequences say codes and lengths and nothing else: what is built is read back, and what is wrong is refused."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evatok.assignments.candidates import CandidateSet
from evatok.generation.grammar import Grammar, GrammarError, Sequences
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import TOKENIZER_SIZES

SMALL = Grammar(CandidateSet((2, 4), 2), 10)

grammars = st.builds(
    Grammar,
    candidates=st.builds(
        CandidateSet,
        levels=st.sets(st.integers(1, 9), min_size=1, max_size=5).map(lambda levels: tuple(sorted(levels))),
        blocks=st.integers(1, 5),
    ),
    codebook_size=st.integers(1, 40),
)


def random_codes(grammar, batch, seed):
    random = torch.Generator().manual_seed(seed)
    lengths = grammar.candidates.sample(batch, random)
    codes = torch.randint(grammar.codebook_size, (batch, int(lengths.sum(1).max())), generator=random)
    valid = torch.arange(codes.shape[1]) < lengths.sum(1, keepdim=True)
    return Codes(codes * valid, lengths)


def one(*symbols):
    return Sequences(torch.tensor([symbols]), torch.tensor([len(symbols)]))


@settings(max_examples=40)
@given(grammar=grammars, batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_built_is_read_back(grammar, batch, seed):
    codes = random_codes(grammar, batch, seed)
    sequences = grammar.build(codes)
    assert sequences.counts.tolist() == (codes.lengths.sum(1) + grammar.candidates.blocks).tolist()
    assert sequences.symbols.shape == (batch, sequences.counts.max()) == sequences.valid.shape
    assert int(sequences.counts.max()) <= grammar.longest
    assert int(sequences.symbols.max()) < grammar.vocabulary
    read = grammar.parse(sequences)
    assert torch.equal(read.codes, codes.codes)
    assert torch.equal(read.lengths, codes.lengths)


@settings(max_examples=40)
@given(grammar=grammars, seed=st.integers(0, 99))
def test_every_built_sequence_is_legal_symbol_by_symbol_and_ends_where_it_is_done(grammar, seed):
    sequences = grammar.build(random_codes(grammar, 3, seed))
    for symbols, count in zip(sequences.symbols, sequences.counts, strict=True):
        progress, named = grammar.start(1), 0
        for symbol in symbols[:count]:
            legal = grammar.legal(progress)
            assert legal[0, symbol]
            # A place takes codes or length symbols, never some of both.
            assert int(legal.sum()) == (grammar.levels if progress.wants_length else grammar.codebook_size)
            named += int(progress.wants_length)
            assert not progress.done
            progress = grammar.advance(progress, symbol[None])
        assert progress.done.all()
        assert not grammar.legal(progress).any()
        assert named == grammar.candidates.blocks


def test_a_sequence_is_a_length_symbol_and_its_codes_for_every_block():
    codes = Codes(torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0]]), torch.tensor([[2, 4], [2, 2]]))
    codes.codes[1, 3] = 1
    sequences = SMALL.build(codes)
    assert sequences.symbols.tolist() == [[10, 1, 2, 11, 3, 4, 5, 6], [10, 7, 8, 10, 9, 1, 0, 0]]
    assert sequences.counts.tolist() == [8, 6]


def test_padding_of_codes_does_not_reach_the_sequence():
    codes = Codes(torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 99, -5]]), torch.tensor([[2, 4], [2, 2]]))
    assert SMALL.build(codes).symbols[1].tolist() == [10, 7, 8, 10, 9, 1, 0, 0]


def test_the_papers_grammar_has_8197_symbols_and_2052_places():
    paper = dataclasses.replace(TOKENIZER_SIZES["paper"], codebook_size=8192)
    grammar = Grammar.of(paper)
    assert (grammar.vocabulary, grammar.longest, grammar.levels) == (8197, 4 + 2048, 5)


@pytest.mark.parametrize("bad", [10, -1, 2**40])
def test_codes_outside_the_codebook_are_refused(bad):
    with pytest.raises(GrammarError, match=f"sequence 0: {bad} at position 4 is outside the codebook"):
        SMALL.build(Codes(torch.tensor([[1, 2, bad, 4]]), torch.tensor([[2, 2]])))


@pytest.mark.parametrize("length", [0, 1, 3, 5])
def test_a_length_that_no_level_has_is_refused(length):
    with pytest.raises(GrammarError, match=rf"^{length} tokens is not one of the levels \(2, 4\)"):
        SMALL.build(Codes(torch.zeros(1, 2 + length, dtype=torch.int64), torch.tensor([[2, length]])))


def test_assignments_and_codes_of_other_shapes_are_refused():
    with pytest.raises(GrammarError, match=r"assignments must be \(B, 2\), got \(1, 3\)"):
        SMALL.build(Codes(torch.zeros(1, 6, dtype=torch.int64), torch.tensor([[2, 2, 2]])))
    with pytest.raises(GrammarError, match=r"codes must be \(1, 4\) for these assignments, got \(1, 5\)"):
        SMALL.build(Codes(torch.zeros(1, 5, dtype=torch.int64), torch.tensor([[2, 2]])))


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ((10, 1, 2, 11, 3, 4, 5), "truncated after 7 symbols: block 1 is incomplete"),
        ((10, 1, 2), "truncated after 3 symbols: block 1 has no length symbol"),
        ((), "truncated after 0 symbols: block 0 has no length symbol"),
        ((10, 1, 2, 10, 3, 4, 5), "sequence 0 is complete after 6 of 7 symbols"),
        ((3, 1, 2), r"symbol 3 at position 0 is not a length symbol \(10 to 11\)"),
        ((12, 1, 2), "symbol 12 at position 0 is not a length symbol"),
        ((10, 1, 10, 10, 3, 4), "sequence 0: 10 at position 2 is outside the codebook"),
        ((10, 1, -1, 10, 3, 4), "sequence 0: -1 at position 2 is outside the codebook"),
    ],
)
def test_sequences_that_say_no_codes_are_refused(symbols, message):
    with pytest.raises(GrammarError, match=message):
        SMALL.parse(Sequences(torch.tensor([symbols], dtype=torch.int64), torch.tensor([len(symbols)])))


def test_a_bad_sequence_among_good_ones_is_named():
    good = SMALL.build(random_codes(SMALL, 3, 0))
    good.symbols[2, 0] = 5
    with pytest.raises(GrammarError, match="sequence 2: symbol 5 at position 0"):
        SMALL.parse(good)


def test_counts_beyond_the_symbols_are_refused():
    with pytest.raises(GrammarError, match=r"\(1, 3\) symbols cannot hold sequences of \[4\] symbols"):
        SMALL.parse(Sequences(torch.tensor([[10, 1, 2]]), torch.tensor([4])))


@pytest.mark.parametrize(
    ("before", "symbol", "message"),
    [
        ([], 9, r"expected a length symbol \(10 to 11\), got symbol 9"),
        ([], 12, r"expected a length symbol .*, got symbol 12"),
        ([11], 10, r"expected a code \(0 to 9\), got symbol 10"),
        ([11], -1, r"expected a code .*, got symbol -1"),
        ([10, 1, 1, 10, 1, 1], 1, "sequence 0 is complete, symbol 1 comes after its end"),
    ],
)
def test_progress_refuses_illegal_symbols(before, symbol, message):
    progress = SMALL.start(1)
    for legal in before:
        progress = SMALL.advance(progress, torch.tensor([legal]))
    with pytest.raises(GrammarError, match=message):
        SMALL.advance(progress, torch.tensor([symbol]))


def test_progress_keeps_rows_in_the_order_asked_for():
    progress = SMALL.advance(SMALL.start(3), torch.tensor([10, 11, 10])).keep(torch.tensor([1, 0]))
    assert progress.codes_left.tolist() == [4, 2]
    assert progress.coded(2).wants_length.tolist() == [False, True]
