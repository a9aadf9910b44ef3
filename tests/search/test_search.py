"""The prefix tree is exact: it gives what reconstructing every candidate from scratch gives."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.metrics.pixels import l1, mse, psnr
from evatok.search.tree import block_visits, brute_force, prefix_tree, score_set, visits
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.incremental import BlockwiseTokenizer

KINDS = {"vq": 64, "fsq": 240, "simvq": 64, "lfq": 64}


class RandomTrunk(nn.Module):
    """Two random convolutions: enough of a network for a perceptual distance that no pixel metric equals."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        near = self.first(frames).relu()
        return [near, self.second(near).relu()]


@pytest.fixture
def perceptual() -> PerceptualDistance:
    return PerceptualDistance(RandomTrunk(), [torch.rand(4), torch.rand(6)], torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_equals_brute_force_on_every_metric(kind, tiny, clips, perceptual):
    torch.manual_seed(0)
    tokenizer = AdaptiveTokenizer(dataclasses.replace(tiny, quantiser=kind, codebook_size=KINDS[kind])).eval()
    tree = prefix_tree(tokenizer, clips, perceptual, "fake")
    brute = brute_force(tokenizer, clips, perceptual, "fake")
    assert set(tree) == set(brute) == {"l1", "mse", "psnr", "fake"}
    for metric in tree:
        assert tree[metric].shape == (4, 27)
        assert np.allclose(tree[metric], brute[metric], atol=1e-5), metric
        assert np.array_equal(tree[metric].argmax(1), brute[metric].argmax(1)), metric
        assert np.array_equal(tree[metric].argmin(1), brute[metric].argmin(1)), metric


@pytest.mark.parametrize(("levels", "frames"), [((3,), 12), ((2, 8), 4), ((1, 2, 5, 8), 8), ((2, 4), 20)])
@pytest.mark.parametrize("rows", [1, 64])
def test_the_tree_equals_brute_force_for_any_levels_and_blocks(levels, frames, rows, tiny, perceptual):
    """With branches walked one by one, and side by side."""
    torch.manual_seed(0)
    tokenizer = AdaptiveTokenizer(dataclasses.replace(tiny, levels=levels, frames=frames)).eval()
    clips = torch.rand(2, 3, frames, 16, 16, generator=torch.Generator().manual_seed(2))
    tree = prefix_tree(tokenizer, clips, perceptual, "fake", rows=rows)
    brute = brute_force(tokenizer, clips, perceptual, "fake")
    for metric in ("l1", "mse", "psnr", "fake"):
        assert tree[metric].shape == (2, len(tokenizer.config.candidates))
        assert np.allclose(tree[metric], brute[metric], atol=1e-5), metric


@pytest.mark.parametrize("rows", [1, 6, 1000])
def test_a_bound_on_rows_is_kept_and_moves_no_score(rows, tokenizer, clips, monkeypatch):
    seen = []
    code_block = BlockwiseTokenizer.code_block

    def counted(self, block, tokens, prefix):
        pixels, longer = code_block(self, block, tokens, prefix)
        seen.append(len(pixels))
        return pixels, longer

    monkeypatch.setattr(BlockwiseTokenizer, "code_block", counted)
    scores = prefix_tree(tokenizer, clips[:2], rows=rows)
    assert max(seen) <= max(rows, 2)
    assert sum(seen) == 2 * 39
    assert np.allclose(scores["l1"], brute_force(tokenizer, clips[:2])["l1"], atol=1e-6)


@pytest.mark.parametrize(("count", "chosen"), [(1, [2]), (2, [1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])])
def test_a_distance_of_some_frames_is_that_of_those_frames_alone(count, chosen, tokenizer, clips, perceptual):
    """Frames of a block, counted from 0: spread evenly, and never more than there are."""
    some = prefix_tree(tokenizer, clips, SomeFrames(perceptual, count), "fake")["fake"]
    row = tokenizer.config.candidates.rows[-1]
    fake = tokenizer(clips, expand_assignment(tuple(row), len(clips))).clips.clamp(0, 1)
    frames = torch.tensor(chosen) + torch.arange(0, clips.shape[2], 4)[:, None]
    real, fake = clips[:, :, frames.flatten()], fake[:, :, frames.flatten()]
    assert np.allclose(some[:, -1], perceptual(real, fake), atol=1e-5)


def test_the_targets_features_are_computed_once(tokenizer, clips, perceptual, monkeypatch):
    frames = []
    features = perceptual.features
    monkeypatch.setattr(perceptual, "features", lambda x: frames.append(x.shape[:-3].numel()) or features(x))
    prefix_tree(tokenizer, clips, perceptual, "fake")
    assert sum(frames) == 4 * 12 + 39 * 4 * 4  # the real clips' frames, and those of every visit


def test_candidates_differ_and_stand_in_index_order(tokenizer, clips):
    """Scores of one candidate, computed as a user would, are found at that candidate's index."""
    scores = prefix_tree(tokenizer, clips)
    candidates = tokenizer.config.candidates
    for index in (0, 5, 16, 26):
        lengths = expand_assignment(tuple(candidates.row(index).tolist()), len(clips))
        fake = tokenizer(clips, lengths).clips.clamp(0, 1)
        for name, metric in (("l1", l1), ("mse", mse), ("psnr", psnr)):
            assert np.allclose(scores[name][:, index], metric(clips, fake).numpy(), atol=1e-4), name
    assert len(np.unique(scores["mse"][0])) == 27


def test_the_perceptual_score_is_the_clips_mean_over_frames(tokenizer, clips, perceptual):
    scores = prefix_tree(tokenizer, clips, perceptual, "fake")
    fake = tokenizer(clips, expand_assignment((2, 8, 4), len(clips))).clips.clamp(0, 1)
    index = tokenizer.config.candidates.index(np.array([2, 8, 4]))
    assert np.allclose(scores["fake"][:, index], perceptual(clips, fake).numpy(), atol=1e-5)


def test_the_paper_needs_780_visits_instead_of_2500():
    assert block_visits(5, 4) == 780
    assert 4 * 5**4 == 2500


@pytest.mark.parametrize(("search", "name"), [(prefix_tree, "tree"), (brute_force, "brute")])
def test_ticks_are_the_visits_announced(search, name, tokenizer, clips):
    ticks = []
    search(tokenizer, clips[:1], tick=lambda: ticks.append(1))
    assert len(ticks) == visits(tokenizer.config.candidates, name) == {"tree": 39, "brute": 27}[name]


@pytest.mark.parametrize("search", ["tree", "brute"])
def test_scores_do_not_depend_on_the_batch(search, tokenizer, moving_clips):
    pixels = moving_clips(3, 12, 16)
    together = score_set(tokenizer, pixels, search=search, batch=3, bf16=False)
    apart = score_set(tokenizer, pixels, search=search, batch=2, bf16=False)
    for metric in together:
        assert together[metric].shape == (3, 27)
        assert np.allclose(together[metric], apart[metric], atol=1e-4), metric


def test_bfloat16_moves_scores_only_a_little(tokenizer, moving_clips):
    exact, rounded = (score_set(tokenizer, moving_clips(2, 12, 16), bf16=bf16) for bf16 in (False, True))
    assert np.allclose(exact["l1"], rounded["l1"], atol=0.02)
    assert np.isfinite(rounded["psnr"]).all()


def test_an_unknown_search_is_named(tokenizer, moving_clips):
    with pytest.raises(ValueError, match="'beam'; choose tree or brute"):
        score_set(tokenizer, moving_clips(1, 12, 16), search="beam")
