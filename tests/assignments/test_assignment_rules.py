"""Rules of assignment: the same tensor wherever they are asked, an identity, and errors for what is none."""

import dataclasses

import numpy as np
import pytest
import torch

from evatok.assignments.rules import Fixed, Listed, Random, RuleError
from evatok.data.clips import to_network
from evatok.routing.rules import Routed, parse
from evatok.routing.trained_router import Router, RoutingError
from tests.factories import saved_router

LEVELS = (2, 4, 8)


@pytest.fixture
def pixels(moving_clips) -> np.ndarray:
    """Seven clips for the tiny tokenizer."""
    return moving_clips(7, frames=12, size=16)


@pytest.fixture
def router_path(tmp_path) -> str:
    """An untrained router for the tiny tokenizer."""
    return saved_router(tmp_path / "router.safetensors", LEVELS, frames=12, size=16, patch=(4, 8, 8))


@pytest.fixture
def router(router_path) -> Router:
    return Router.load(router_path)


def test_a_fixed_rule_is_one_candidate_for_all_and_one_number_serves_every_block(tokenizer, clips):
    candidates = tokenizer.config.candidates
    assert Fixed(candidates, [4])(clips).tolist() == [[4, 4, 4]] * 4
    assert Fixed(candidates, [8, 4, 2])(clips).tolist() == [[8, 4, 2]] * 4
    with pytest.raises(RuleError, match="assignment 5: 5 tokens is not one of the levels"):
        Fixed(candidates, [5])
    with pytest.raises(RuleError, match="2 blocks"):
        Fixed(candidates, [4, 4])


def test_a_random_rule_draws_per_clip_whatever_the_batches_or_from_the_generator(tokenizer, clips):
    rule = Random(tokenizer.config.candidates, 3)
    whole = rule(clips, np.arange(4))
    assert torch.equal(whole, torch.cat([rule(clips[i : i + 1], np.array([i])) for i in range(4)]))
    assert len({tuple(row) for row in whole.tolist()}) > 1
    drawn = [rule(clips, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*drawn)
    assert torch.equal(drawn[0], tokenizer.config.candidates.sample(4, torch.Generator().manual_seed(5)))
    with pytest.raises(RuleError, match="need the clips' indices, or a generator"):
        rule(clips)


def test_a_list_names_each_clip_by_its_number(clips):
    listed = Listed(np.array([[2, 2, 2], [4, 4, 4], [8, 8, 8]]))
    assert listed(clips[:2], np.array([2, 0])).tolist() == [[8, 8, 8], [2, 2, 2]]
    with pytest.raises(RuleError, match="clips' indices"):
        listed(clips)


def test_a_routed_rule_is_the_router_itself_and_names_it(tokenizer, router, clips):
    rule = Routed(router, tokenizer.config)
    assert torch.equal(rule(clips), router.assign(clips))
    assert rule.parents == {"router": router.checkpoint.sha256}
    assert rule.identity == {"assignment": "router", "router": router.checkpoint.sha256, "w_q": 1.2}


def test_a_router_decides_in_float32_whatever_autocast_it_runs_in(tokenizer, router, clips, monkeypatch):
    seen = []
    forward = type(router.module).forward
    monkeypatch.setattr(type(router.module), "forward", lambda self, x: seen.append(forward(self, x)) or seen[-1])
    with torch.autocast("cpu", torch.bfloat16):
        chosen = Routed(router, tokenizer.config)(clips)
    assert seen[0].dtype == torch.float32
    assert torch.equal(chosen, router.assign(clips))
    assert torch.equal(seen[0], seen[1])


def test_a_prefix_leaves_the_most_probable_assignment_that_begins_so(tokenizer, router, pixels):
    rule = Routed(router, tokenizer.config, (8, 4))
    assert rule.identity["prefix"] == [8, 4]
    ranked = router.config.candidates.rows[router.ranking(pixels)]
    for row, mine in zip(ranked, rule(to_network(pixels)).tolist(), strict=True):
        fitting = [candidate.tolist() for candidate in row if candidate[:2].tolist() == [8, 4]]
        assert mine == fitting[0]


def test_prefixes_that_nothing_begins_with_and_strange_routers_are_refused(tokenizer, router):
    for prefix in ((8, 5), (8, 8, 8, 8)):
        with pytest.raises(RoutingError, match="no assignment of levels"):
            Routed(router, tokenizer.config, prefix)
    other = dataclasses.replace(tokenizer.config, levels=(2, 4, 6))
    with pytest.raises(RoutingError, match="levels"):
        Routed(router, other)


def test_a_rule_is_read_from_its_words(tokenizer, router_path, clips):
    for words, kind, identity in (
        ("uniform:4", Fixed, {"assignment": "uniform", "row": [4]}),
        ("fixed:8, 4, 2", Fixed, {"assignment": "fixed", "row": [8, 4, 2]}),
        ("random", Random, {"assignment": "random", "seed": 7}),
        (f"router:{router_path}", Routed, {"assignment": "router"}),
    ):
        rule = parse(words, tokenizer.config, seed=7)
        assert type(rule) is kind
        assert identity.items() <= rule.identity.items()
        assert rule(clips, np.arange(4)).shape == (4, 3)


@pytest.mark.parametrize(
    "words", ["", "uniform", "uniform:", "uniform:4,4,4", "fixed:4", "router:", "random:3", "best"]
)
def test_other_words_are_none_of_the_forms(tokenizer, words):
    with pytest.raises(RuleError, match="is not one of uniform:16, fixed:16,8,8,4, router:CHECKPOINT and random"):
        parse(words, tokenizer.config)
