"""Orders of VideoFlexTok's tokens: time-first sequences can be cut at any k, and every order comes back as it went."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evatok.generation.config import GeneratorConfig
from evatok.generation.drawing import Sampling
from evatok.generation.grammar import GrammarError, Sequences
from evatok.generation.order import OrderedGrammar
from evatok.generation.sampling import sample
from evatok.generation.transformer import Condition, Generator
from evatok.tokenizers.codes import Codes
from tests.factories import TINY_FLEX

FORMS = {"time-first": "flexible", "depth-first": "flexible", "flat": "flat"}


def grammar_of(order: str, kept: int = 0) -> OrderedGrammar:
    return OrderedGrammar.of(replace(TINY_FLEX, form=FORMS[order], registers=4), order, kept)


def codes_of(grammar: OrderedGrammar) -> Codes:
    """Codes that say where they belong: frame * 10 + rank, and 100 more for the second clip."""
    frames, ranks = torch.arange(grammar.blocks), torch.arange(grammar.kept)
    one = (10 * frames[:, None] + ranks).flatten()
    return Codes(torch.stack((one, one + 100)), torch.full((2, grammar.blocks), grammar.kept))


@pytest.mark.parametrize("order", FORMS)
def test_what_is_built_is_parsed_back(order):
    grammar = grammar_of(order)
    back = grammar.parse(grammar.build(codes_of(grammar)))
    assert torch.equal(back.codes, codes_of(grammar).codes)
    assert torch.equal(back.lengths, codes_of(grammar).lengths)


def test_time_first_goes_over_all_frames_before_the_next_rank_and_depth_first_frame_by_frame():
    first, depth = (grammar_of(order).build(codes_of(grammar_of(order))) for order in ("time-first", "depth-first"))
    assert first.symbols[0, :4].tolist() == [0, 10, 20, 1]
    assert depth.symbols[0, :5].tolist() == [0, 1, 2, 3, 10]


@pytest.mark.parametrize("order", ["time-first", "flat"])
def test_a_cut_sequence_is_that_of_fewer_tokens(order):
    whole, few = grammar_of(order), grammar_of(order).stopping_at(2)
    sequences = whole.build(codes_of(whole))
    length = few.blocks * 2
    cut = few.parse(Sequences(sequences.symbols[:, :length], torch.full((2,), length)))
    assert cut.lengths.tolist() == [[2] * few.blocks] * 2
    expected = [0, 1, 10, 11, 20, 21] if order == "time-first" else codes_of(whole).codes[0, :length].tolist()
    assert cut.codes[0].tolist() == expected


def test_orders_that_cannot_be_are_refused():
    with pytest.raises(GrammarError, match="only time-first and flat ones can be cut"):
        grammar_of("depth-first", kept=2)
    with pytest.raises(GrammarError, match="between 1 and 4 tokens"):
        grammar_of("time-first", kept=5)
    with pytest.raises(GrammarError, match="have the order depth-first"):
        OrderedGrammar.of(replace(TINY_FLEX, form="grid"), "time-first")
    grammar = grammar_of("time-first")
    few = grammar.stopping_at(2)
    with pytest.raises(GrammarError, match="take 4 tokens in each"):
        grammar.build(codes_of(few))
    with pytest.raises(GrammarError, match="complete ones have"):
        grammar.parse(few.build(codes_of(few)))
    with pytest.raises(GrammarError, match="outside the codebook"):
        grammar.build(Codes(codes_of(grammar).codes + grammar.codebook_size, codes_of(grammar).lengths))


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    grammar = grammar_of("time-first")
    config = GeneratorConfig(grammar.vocabulary, 0, grammar.longest, 16, 2, 2, classes=2)
    module = Generator(config).eval()
    torch.nn.init.normal_(module.head.weight, std=1.0)
    return module


def test_one_generator_stops_at_any_number_of_tokens_on_the_same_path(generator):
    """What comes later does not change what came first, with a cache and without, in one batch or in several."""
    whole = grammar_of("time-first")
    condition, seeds, options = Condition(torch.tensor([0, 1, 0])), [5, 6, 7], Sampling(guidance=1.5)
    every = sample(generator, whole, condition, seeds, options)
    for kept in (1, 2, 3):
        few = sample(generator, whole.stopping_at(kept), condition, seeds, options, batch=2)
        grid = every.codes.unflatten(1, (whole.blocks, whole.registers))[:, :, :kept]
        assert torch.equal(few.codes, grid.flatten(1))
        assert few.lengths.tolist() == [[kept] * whole.blocks] * 3
    slow = sample(generator, whole, condition, seeds, options, cached=False)
    assert torch.equal(slow.codes, every.codes)


def test_a_generator_without_length_symbols_learns_codes_alone(generator):
    grammar = grammar_of("time-first")
    loss, terms = generator.loss(grammar.build(codes_of(grammar)), Condition(torch.tensor([0, 1])))
    assert bool(torch.isfinite(loss))
    assert set(terms) == {"codes", "accuracy"}
