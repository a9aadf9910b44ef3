"""The beam: exact when wide enough, never better than exact, and honest about its cost."""

import dataclasses

import numpy as np
import pytest
import torch

from evatok.assignments.reward import Scale, percentile, proxy_reward
from evatok.metrics.catalogue import quality
from evatok.routing.trained_router import OperatingPoint
from evatok.search.beam import beam_search, prefix_reward, search_evaluations, search_set
from evatok.search.tree import block_visits, prefix_tree
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.incremental import BlockwiseTokenizer, Prefix, pick


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.rand(6, 3, 12, 16, 16, generator=torch.Generator().manual_seed(1))


def exact(tokenizer, clips, metric="l1", w_q=1.0):
    """The operating point of these clips' own scale, and the rewards (B, A) of all candidates."""
    candidates = tokenizer.config.candidates
    values = quality(prefix_tree(tokenizer, clips)[metric], metric)
    scale = Scale.of(values, candidates)
    return OperatingPoint(metric, w_q, scale), proxy_reward(values, candidates, scale, w_q)


def chosen(tokenizer, found):
    return tokenizer.config.candidates.index(found.assignments)


@pytest.mark.parametrize("metric", ["l1", "mse", "psnr"])
@pytest.mark.parametrize("w_q", [0.6, 1.4])
@pytest.mark.parametrize(("width", "chunk"), [(9, 1), (1, 3), (4, 3), (3, 2)])
def test_a_beam_that_drops_nothing_finds_the_best(metric, w_q, width, chunk, tokenizer, clips):
    """Full width before the last block (9 of 3 * 3 prefixes), one chunk, or both."""
    point, rewards = exact(tokenizer, clips, metric, w_q)
    found = beam_search(tokenizer, clips, point, width=9 if chunk == 2 else width, chunk=chunk)
    assert np.array_equal(chosen(tokenizer, found), rewards.argmax(1))
    assert np.allclose(found.rewards, rewards.max(1), atol=1e-4)


@pytest.mark.parametrize(("width", "chunk"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_the_reward_told_is_that_of_the_choice_and_never_beats_the_best(width, chunk, tokenizer, clips):
    """So every clip's prefixes were continued with their own keys and values, whatever their lengths."""
    point, rewards = exact(tokenizer, clips)
    found = beam_search(tokenizer, clips, point, width=width, chunk=chunk)
    assert np.allclose(
        found.rewards, np.take_along_axis(rewards, chosen(tokenizer, found)[:, None], 1)[:, 0], atol=1e-4
    )
    assert (found.rewards <= rewards.max(1) + 1e-4).all()


def test_greedy_takes_the_best_block_each_time(tokenizer, clips):
    point, _ = exact(tokenizer, clips)
    candidates, values = tokenizer.config.candidates, []
    found = beam_search(tokenizer, clips[:1], point, width=1, payback=0.0)
    for level in candidates.levels:
        lengths = torch.tensor([[level, 2, 2]])
        block = tokenizer(clips[:1], lengths).clips.clamp(0, 1)[:, :, :4]
        error = (block - clips[:1, :, :4]).abs().mean().numpy().reshape(1, 1)
        values.append(prefix_reward(-error, np.array([[level]]), 1, candidates, point.scale, 1.0, 0.0).item())
    assert found.assignments[0, 0] == candidates.levels[int(np.argmax(values))]


def test_a_wider_beam_is_better_on_average(tokenizer):
    clips = torch.rand(24, 3, 12, 16, 16, generator=torch.Generator().manual_seed(4))
    point, rewards = exact(tokenizer, clips)
    choices = [beam_search(tokenizer, clips, point, width=width) for width in (1, 3, 9)]
    means = [percentile(rewards, chosen(tokenizer, found)) for found in choices]
    assert means[0] <= means[1] <= means[2] == 100
    assert means[0] > 50


@pytest.mark.parametrize(("width", "chunk"), [(2, 1), (1, 2)])
def test_choices_do_not_depend_on_the_batch(width, chunk, tokenizer, moving_clips):
    pixels = moving_clips(5, 12, 16)
    point, _ = exact(tokenizer, torch.rand(2, 3, 12, 16, 16))
    together, apart = (
        search_set(tokenizer, pixels, point, width=width, chunk=chunk, batch=batch, bf16=False) for batch in (5, 2)
    )
    assert np.array_equal(together.assignments, apart.assignments)
    assert np.allclose(together.rewards, apart.rewards, atol=1e-4)


@pytest.mark.parametrize(("width", "chunk"), [(1, 1), (3, 1), (50, 1), (1, 2), (2, 3)])
def test_evaluations_are_those_announced(width, chunk, tokenizer, clips):
    point, _ = exact(tokenizer, clips)
    found = beam_search(tokenizer, clips, point, width=width, chunk=chunk)
    assert found.evaluations == search_evaluations(3, 3, width=width, chunk=chunk)


def test_evaluations_at_the_papers_levels():
    assert search_evaluations(5, 4, width=3) == 5 + 3 * 15
    assert search_evaluations(5, 4, width=1, chunk=4) == block_visits(5, 4) == 780
    assert search_evaluations(5, 16, width=1, chunk=4) == 4 * 780  # 16 blocks: four times, not 5^12 times as many


def test_a_longer_clip_costs_in_proportion_to_its_blocks(tiny):
    tokenizer = AdaptiveTokenizer(dataclasses.replace(tiny, frames=24)).eval()
    clips = torch.rand(1, 3, 24, 16, 16)
    point = OperatingPoint("l1", 1.0, Scale(-0.3, 0.05, 28.0, 6.0))
    found = beam_search(tokenizer, clips, point, width=1, chunk=2)
    assert found.assignments.shape == (1, 6)
    assert found.evaluations == 3 * (3 + 9)


def test_prefixes_of_unlike_lengths_are_continued_as_if_alone(tokenizer, clips):
    """Two blocks under four assignments, gathered in another order and clip by clip, then a third block."""
    session = BlockwiseTokenizer(tokenizer, clips[:2])
    pairs = [(8, 2), (2, 2), (4, 8), (2, 8)]
    prefixes = []
    for first, second in pairs:
        _, prefix = session.code_block(0, first, Prefix())
        prefixes.append(session.code_block(1, second, prefix)[1])
    source, row = torch.tensor([1, 3, 0, 1]), torch.tensor([0, 0, 1, 1])  # clip 0: pairs 1 and 3; clip 1: 0 and 1
    together = pick(prefixes, source, row)
    again = pick([together], torch.zeros(4, dtype=torch.int64), torch.arange(4))
    for prefix in (together, again):
        pixels, _ = session.wide(2).code_block(2, 4, prefix)
        for place, (number, clip) in enumerate(zip(source.tolist(), row.tolist(), strict=True)):
            lengths = expand_assignment((*pairs[number], 4), 1)
            alone = tokenizer(clips[clip : clip + 1], lengths).clips[:, :, 8:]
            assert torch.allclose(pixels[place], alone[0], atol=1e-5)


def test_gathering_leaves_no_padding_that_nobody_needs(tokenizer, clips):
    session = BlockwiseTokenizer(tokenizer, clips[:2])
    short, long = (session.code_block(0, tokens, Prefix())[1] for tokens in (2, 8))
    mixed = pick([short, long], torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert mixed.valid is not None
    assert mixed.valid.sum(1).tolist() == [2, 8]
    alone = pick([mixed], torch.tensor([0]), torch.tensor([0]))
    assert alone.valid is None
    assert alone.encoder_self[0][0].shape[2] == 2


def test_a_whole_clips_prefix_reward_is_the_proxy_reward(tokenizer, clips):
    point, rewards = exact(tokenizer, clips)
    candidates = tokenizer.config.candidates
    values = quality(prefix_tree(tokenizer, clips)["l1"], "l1")
    tokens = np.broadcast_to(candidates.totals, values.shape)
    assert np.allclose(prefix_reward(values, tokens, 3, candidates, point.scale, point.w_q, 0.7), rewards)


@pytest.mark.parametrize(("width", "chunk"), [(0, 1), (1, 0)])
def test_a_search_without_width_or_chunk_is_refused(width, chunk, tokenizer, clips):
    point, _ = exact(tokenizer, clips[:1])
    with pytest.raises(ValueError, match="at least 1"):
        beam_search(tokenizer, clips, point, width=width, chunk=chunk)


def test_a_metric_that_nothing_measures_is_named(tokenizer, clips):
    point = OperatingPoint("lpips-vgg", 1.0, Scale(-0.2, 0.1, 14.0, 4.0))
    with pytest.raises(ValueError, match="the reward's metric 'lpips-vgg' is not measured: pass perceptual="):
        beam_search(tokenizer, clips, point)
