"""Captions as conditions: what of them counts, what is hidden, and that a cache changes nothing."""

from __future__ import annotations

import pytest
import torch

from evatok.generation.config import GeneratorConfig
from evatok.generation.grammar import Sequences
from evatok.generation.order import OrderedGrammar
from evatok.generation.sampling import Sampling, sample
from evatok.generation.transformer import Condition, Generator
from evatok.tokenizers.codes import Codes
from evatok.vtok.captions import PADDING

GRAMMAR = OrderedGrammar("time-first", 3, 4, 20, 4)
SAID = torch.tensor([[3, 1, 4], [1, 5, PADDING]])
SHAPES = {"words": {"text_words": 9}, "features": {"text_channels": 6}}


def generator(kind: str = "words", **others: int) -> Generator:
    torch.manual_seed(0)
    shape = {"vocabulary": 20, "levels": 0, "longest": 12, "width": 32, "layers": 2, "heads": 2}
    made = Generator(GeneratorConfig(**shape, **{"text": 3, "text_longest": 6, **SHAPES[kind], **others})).eval()
    for parameter in made.parameters():
        # Large enough weights that every part of the network is seen in the logits.
        torch.nn.init.normal_(parameter, std=0.2, mean=float(parameter.ndim == 1))
    return made


def captions(kind: str) -> torch.Tensor:
    """Two captions of three and two words, the second padded."""
    if kind == "words":
        return SAID
    features = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    return features * (SAID != PADDING)[..., None]


def sequences() -> Sequences:
    codes = torch.randint(20, (2, 12), generator=torch.Generator().manual_seed(2))
    return GRAMMAR.build(Codes(codes, torch.full((2, 3), 4)))


@pytest.fixture(params=SHAPES)
def kind(request) -> str:
    return request.param


def test_padding_of_a_caption_says_nothing(kind):
    module, said = generator(kind), captions(kind)
    more = torch.full_like(said[:, :2], PADDING if kind == "words" else 0)
    longer = torch.cat([said, more], 1)
    logits = module(sequences(), Condition(text=said))
    assert torch.allclose(logits, module(sequences(), Condition(text=longer)), atol=1e-5)
    other = said.clone()
    other[1, 0] = 7
    changed = module(sequences(), Condition(text=other)) - logits
    assert torch.allclose(changed[:12], torch.zeros(12, 20), atol=1e-5), "captions are the sequence's own"
    assert changed[12:].abs().max() > 1e-3


def test_a_hidden_caption_leaves_no_trace(kind):
    module, said = generator(kind), captions(kind)
    hidden = module(sequences(), Condition(text=said), torch.tensor([True, False]))
    other = said.clone()
    other[0, 0] = 2
    again = module(sequences(), Condition(text=other), torch.tensor([True, False]))
    assert torch.allclose(hidden, again, atol=1e-5)
    assert not torch.allclose(hidden[:12], module(sequences(), Condition(text=said))[:12], atol=1e-3)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_sampling_with_a_cache_and_in_batches_draws_what_it_does_without(kind, guidance):
    module, said = generator(kind), captions(kind)
    asked, seeds, options = Condition(text=said[[0, 1, 0]]), [5, 6, 7], Sampling(guidance=guidance)
    plain = sample(module, GRAMMAR, asked, seeds, options, cached=False)
    for batch in (1, 2, 3):
        found = sample(module, GRAMMAR, asked, seeds, options, batch=batch)
        assert torch.equal(found.codes, plain.codes), batch
    stopped = sample(module, GRAMMAR.stopping_at(2), asked, seeds, options)
    first = plain.codes.unflatten(1, (3, 4))[:, :, :2].flatten(1)
    assert torch.equal(stopped.codes, first), "few tokens are the beginning of all"


def test_the_encoder_of_words_learns_with_the_generator():
    module = generator().train()
    loss, _ = module.loss(sequences(), Condition(text=SAID), torch.tensor([False, False]))
    loss.backward()
    assert module.text.words.weight.grad[[1, 3, 4, 5]].abs().sum(1).min() > 0
    assert module.text.words.weight.grad[[0, 2]].abs().max() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "captions go with generators that read them"),
        (torch.tensor([[1, 9], [1, 2]]), "word 9: the generator knows words 0 to 8"),
        (torch.tensor([[1, 2], [PADDING, PADDING]]), "a caption without a word"),
        (torch.ones(2, 7, dtype=torch.int64), "of at most 6"),
        (torch.randn(2, 3, 6), r"reads words \(B, W\)"),
    ],
)
def test_captions_that_do_not_fit_are_refused(text, message):
    classes = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        generator()(sequences(), Condition(classes, text=text))


def test_a_generator_reads_words_or_features_but_not_both():
    with pytest.raises(ValueError, match="captions are either words or features"):
        generator(text_channels=4)
    with pytest.raises(ValueError, match="captions are either words or features"):
        generator(text=0)
