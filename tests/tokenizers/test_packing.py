"""However a batch of unequal lengths is packed, each clip's codes and pixels are those it has alone."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from evatok.evaluation import flops
from evatok.tokenizers.codes import Codes, expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.layout import Layout, cuts

# On a CPU it is not compiled: there it serves to compare results.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")

LENGTHS = torch.tensor([[8, 8, 8], [2, 2, 4], [4, 8, 2], [2, 2, 2]])
PACKINGS = [{"groups": 2}, {"groups": 4}, {"sparse": True}, {"groups": 2, "sparse": True}]


@pytest.fixture(params=PACKINGS, ids=["2 groups", "4 groups", "sparse", "2 sparse groups"])
def packing(request) -> dict[str, int]:
    return request.param


def operations(work) -> int:
    with flops.counter() as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["fsq", "vq"])
def test_codes_and_pixels_are_those_of_the_padded_batch(kind, packing, tiny, clips):
    torch.manual_seed(0)
    tokenizer = AdaptiveTokenizer(dataclasses.replace(tiny, quantiser=kind, codebook_size=240)).eval()
    codes, plain = tokenizer.encode(clips, LENGTHS, **packing), tokenizer.encode(clips, LENGTHS)
    assert torch.equal(codes.codes, plain.codes)
    assert torch.equal(codes.lengths, LENGTHS)
    assert torch.allclose(tokenizer.decode(plain, **packing), tokenizer.decode(plain), atol=1e-5)


def test_a_whole_pass_is_that_of_the_padded_batch(packing, tokenizer, clips):
    whole, packed = tokenizer(clips, LENGTHS, tap=1), tokenizer(clips, LENGTHS, tap=1, **packing)
    assert torch.allclose(packed.clips, whole.clips, atol=1e-5)
    assert torch.allclose(packed.tapped, whole.tapped, atol=1e-5)
    assert torch.equal(packed.codes.codes, whole.codes.codes)
    assert len(packed.quantised.codes) == LENGTHS.sum()


def test_a_clip_is_none_the_wiser_of_its_neighbours(packing, tokenizer, clips):
    noise = torch.cat([clips[:1], torch.rand_like(clips[1:])])
    one, other = (tokenizer.encode(some, LENGTHS, **packing) for some in (clips, noise))
    assert torch.equal(one.codes[0], other.codes[0])
    assert torch.equal(tokenizer.decode(one, **packing)[0], tokenizer.decode(other, **packing)[0])


def test_gradients_do_not_depend_on_the_groups(tiny, clips):
    gradients = []
    for groups in (1, 3):
        torch.manual_seed(0)
        tokenizer = AdaptiveTokenizer(tiny).train()
        tokenizer(clips, LENGTHS, groups=groups).clips.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in tokenizer.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-6)


def test_groups_spare_the_work_on_padding(tokenizer, clips):
    padded = operations(lambda: tokenizer.encode(clips, LENGTHS))
    grouped = operations(lambda: tokenizer.encode(clips, LENGTHS, groups=4))
    alone = sum(operations(lambda i=i: tokenizer.encode(clips[i : i + 1], LENGTHS[i : i + 1])) for i in range(4))
    assert grouped == alone < padded


def test_clips_are_cut_into_groups_where_padding_is_least():
    assert cuts(np.array([2, 2, 2, 9, 9]), 2) == [3]
    assert cuts(np.array([1, 1, 1, 1]), 4) == [1, 2, 3]
    assert cuts(np.array([5, 6]), 1) == []
    totals = np.sort(np.random.default_rng(0).integers(1, 50, 9))

    def padded(at: tuple[int, ...]) -> int:
        return sum(len(part) * part[-1] for part in np.split(totals, at))

    ways = itertools.combinations(range(1, len(totals)), 2)
    assert padded(tuple(cuts(totals, 3))) == min(padded(at) for at in ways)


def test_one_row_holds_every_token_once_and_no_padding():
    padded = Layout.of(LENGTHS)
    row = padded.in_one_row()
    assert row.valid.shape == (1, LENGTHS.sum())
    assert row.valid.all()
    assert torch.equal(row.clip[0].bincount(), LENGTHS.sum(1))
    assert torch.equal(row.block[0, row.first], torch.arange(3).expand(4, 3))
    assert (row.slot[0, row.first] == 0).all()
    assert torch.equal(row.clip[0, row.first], torch.arange(4)[:, None].expand(4, 3))


def test_padding_is_decoded_from_nothing(tokenizer, clips):
    codes = tokenizer.encode(clips, LENGTHS)
    outside = torch.where(Layout.of(LENGTHS).valid, codes.codes, torch.full_like(codes.codes, 10**6))
    assert torch.equal(tokenizer.decode(Codes(outside, LENGTHS), groups=2), tokenizer.decode(codes, groups=2))


@pytest.mark.parametrize("groups", [0, 5])
def test_more_groups_than_clips_are_refused(groups, tokenizer, clips):
    lengths = expand_assignment((2, 2, 2), 4)
    with pytest.raises(ValueError, match="groups"):
        tokenizer.encode(clips, lengths, groups=groups)
    with pytest.raises(ValueError, match="groups"):
        tokenizer.decode(tokenizer.encode(clips, lengths), groups=groups)
