"""Routers: from a clip to one logit a candidate; the control sees the statistics it claims to see."""

import dataclasses

import pytest
import torch

from evatok.models.initialise import initialise_router
from evatok.models.router import CandidateHead, RouterConfig, build_router
from evatok.models.statistics import CELL_STATISTICS, cell_statistics, clip_statistics

TINY = RouterConfig(levels=(2, 4, 8), frames=12, size=16, patch=(4, 8, 8), width=16, layers=2, heads=2)
KINDS = ("vit", "cells", "features")
HEADS = ("joint", "per_block")


def router(kind: str = "vit", head: str = "joint"):
    torch.manual_seed(0)
    return build_router(dataclasses.replace(TINY, kind=kind, head=head)).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_every_router_gives_one_finite_logit_a_candidate(kind, head, clips):
    logits = router(kind, head)(clips)
    assert logits.shape == (4, 27)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert len(logits[0].unique()) > 1


def test_per_block_logits_are_the_product_of_the_blocks_probabilities():
    torch.manual_seed(0)
    head = CandidateHead(dataclasses.replace(TINY, head="per_block"), 16)
    features = torch.randn(5, 16)
    joint = head(features).exp()
    assert torch.allclose(joint.sum(1), torch.ones(5), atol=1e-6)
    blocks = head.linear(features).reshape(5, 3, 3).softmax(-1)
    for index, row in enumerate(TINY.candidates.rows):
        digits = [TINY.levels.index(level) for level in row]
        product = torch.stack([blocks[:, k, digit] for k, digit in enumerate(digits)]).prod(0)
        assert torch.allclose(joint[:, index], product, atol=1e-6)


def test_per_block_head_names_the_candidate_made_of_each_blocks_favourite():
    head = CandidateHead(dataclasses.replace(TINY, head="per_block"), 1)
    torch.nn.init.zeros_(head.linear.weight)
    with torch.no_grad():
        head.linear.bias.copy_(torch.tensor([0.0, 0, 9, 9, 0, 0, 0, 9, 0]))
    choice = int(head(torch.zeros(1, 1)).argmax())
    assert TINY.candidates.row(choice).tolist() == [8, 2, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_a_clips_logits_do_not_depend_on_the_batch(kind, clips):
    model = router(kind)
    assert torch.allclose(model(clips)[2], model(clips[2:3])[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_a_router_can_learn_its_clips_labels(kind, head, clips):
    model, labels = router(kind, head), torch.tensor([3, 25, 13, 0])
    initialise_router(model, clips)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(clips), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.equal(model(clips).argmax(1), labels)


@pytest.mark.parametrize("shape", [(2, 3, 8, 16, 16), (2, 3, 12, 8, 16), (2, 1, 12, 16, 16)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"the router takes clips \(B, 3, 12, 16, 16\), got"):
        router()(torch.rand(shape))


@pytest.mark.parametrize(
    ("change", "message"), [({"kind": "cnn"}, "'cnn': vit, cells"), ({"head": "x"}, "'x': joint or")]
)
def test_unknown_kinds_and_heads_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build_router(dataclasses.replace(TINY, **change))


def test_configuration_survives_json():
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in TINY.to_dict().items()}
    assert RouterConfig.from_dict(values) == TINY


# Statistics, in the order of `clip_statistics`: mean, spread, gradient, change, change between blocks; mean, spread


def statistics(clips: torch.Tensor) -> dict[str, torch.Tensor]:
    half = clip_statistics(clips, 3).shape[1] // 2
    values = clip_statistics(clips, 3)[:, :half]
    names = ("mean", "spread", "gradient", "motion", "news")
    per_block = {name: values[:, 3 * i : 3 * i + 3] for i, name in enumerate(names)}
    return {**per_block, "whole": values[:, 15:]}


def test_statistics_and_their_logarithms(clips):
    values = clip_statistics(clips, 3)
    assert values.shape == (4, 2 * (5 * 3 + 2))
    plain, logs = values.chunk(2, dim=1)
    assert torch.allclose(logs, (plain + 1e-4).log())


def test_a_static_clip_has_no_motion_and_no_news(clips):
    still = statistics(clips[:, :, :1].expand(-1, -1, 12, -1, -1))
    assert (still["motion"] == 0).all()
    assert (still["news"] == 0).all()
    assert (still["gradient"] > 0).all()


def test_a_flat_clip_has_only_a_mean():
    flat = statistics(torch.full((1, 3, 12, 16, 16), 0.3))
    assert torch.allclose(flat["mean"], torch.tensor(0.3))
    assert all(flat[name].abs().max() < 1e-6 for name in ("spread", "gradient", "motion", "news"))


def test_a_cut_between_blocks_is_news_of_the_later_block_alone():
    clip = torch.full((1, 3, 12, 16, 16), 0.2)
    clip[:, :, 8:] = 0.7
    values = statistics(clip)
    assert (values["motion"] == 0).all()
    assert torch.allclose(values["news"], torch.tensor([[0.0, 0.0, 0.5]]))


def test_a_ramp_has_its_slope_as_gradient_and_its_speed_as_motion():
    t, y = torch.arange(12.0), torch.arange(16.0)
    clip = (0.01 * y[:, None] + 0.02 * t[:, None, None]).expand(1, 3, 12, 16, 16)
    values = statistics(clip)
    assert torch.allclose(values["gradient"], torch.tensor(0.005), atol=1e-6)  # half of the directions are flat
    assert torch.allclose(values["motion"], torch.tensor(0.02), atol=1e-6)
    assert torch.allclose(values["news"], torch.tensor([[0.0, 0.08, 0.08]]), atol=1e-6)


def test_contrast_scales_everything_but_the_mean(clips):
    full, faint = statistics(clips), statistics(0.5 + 0.1 * (clips - 0.5))
    for name in ("spread", "gradient", "motion", "news"):
        assert torch.allclose(faint[name], 0.1 * full[name], atol=1e-5), name


def test_the_control_standardises_by_its_training_clips(clips):
    model = router("features")
    model.standard.fit(model.see(clips))
    seen = model.standard(model.see(clips))
    assert torch.allclose(seen.mean(0), torch.zeros(34), atol=1e-4)
    # The first block has no block before it: its news, and the logarithm of it, are constant and left unscaled.
    constant = clip_statistics(clips, 3).std(0) < 1e-4
    assert constant.sum() == 2
    assert torch.allclose(seen.std(0)[~constant], torch.ones(32), atol=1e-3)
    assert torch.equal(model.standard.deviation[constant], torch.ones(2))


def test_the_control_survives_half_precision(clips):
    model = router("features").eval()
    model.standard.fit(model.see(clips))
    logits = model(clips)
    model.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    assert torch.allclose(model(clips), logits, atol=0.05)


# Cells: one square of each block, `cell_statistics` in order colour (3), then per scale detail, change, largest
# change, news (and, at the halved scales, news if the picture may move), then logarithms


def cells(clips: torch.Tensor) -> torch.Tensor:
    """(B, K, P, S without logarithms)."""
    values = cell_statistics(clips, clips.shape[2] // 4)
    plain = 3 + (CELL_STATISTICS - 3) // 2
    return values.unflatten(1, (clips.shape[2] // 4, -1))[..., :plain]


DETAIL, CHANGE, LARGEST, NEWS, MOVED = [3, 7, 12], [4, 8, 13], [5, 9, 14], [6, 10, 15], [11, 16]


@pytest.fixture
def large() -> torch.Tensor:
    return torch.rand(2, 3, 12, 32, 32, generator=torch.Generator().manual_seed(3))


def test_every_square_of_every_block_has_its_statistics(large):
    assert cell_statistics(large, 3).shape == (2, 3 * 4, CELL_STATISTICS)
    alone = cells(large[:, :, :, :16, 16:].contiguous())
    assert torch.allclose(cells(large)[:, :, 1, :9], alone[:, :, 0, :9], atol=1e-5)


def test_a_static_clip_has_no_change_and_no_news_in_any_square(large):
    still = cells(large[:, :, :1].expand(-1, -1, 12, -1, -1))
    assert (still[..., CHANGE + LARGEST + NEWS + MOVED] == 0).all()
    assert (still[..., DETAIL] > 0).all()


def test_a_picture_that_moves_as_a_whole_is_news_but_not_to_who_follows_it():
    frame = torch.rand(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    moved = torch.cat((frame.expand(-1, -1, 4, -1, -1), frame.roll(4, -1).expand(-1, -1, 4, -1, -1)), dim=2)
    block = cells(moved)[:, 1]
    assert (block[..., NEWS] > 0.01).all()
    assert block[..., MOVED].abs().max() < 1e-6


def test_what_happens_in_one_square_is_seen_in_that_square_alone(large):
    still = large[:, :, :1].expand(-1, -1, 12, -1, -1).clone()
    still[:, :, 9, 16:, :16] = 1 - still[:, :, 9, 16:, :16]
    change = cells(still)[..., CHANGE]
    assert (change[:, 2, 2] > 0.01).all()
    assert change[:, :2].abs().max() == change[:, 2, [0, 1, 3]].abs().max() == 0


def test_a_mirrored_clip_has_mirrored_squares(large):
    there = cells(large).unflatten(2, (2, 2))
    back = cells(large.flip(-1)).unflatten(2, (2, 2)).flip(3)
    assert torch.allclose(there, back, atol=1e-5)


def test_squares_that_do_not_tile_the_clip_are_refused(large):
    with pytest.raises(ValueError, match="cells of 12 pixels do not tile clips of 32 x 32"):
        cell_statistics(large, 3, 12)


def test_clips_unlike_any_seen_are_brought_to_the_edge_of_what_was():
    model = router("features")
    model.standard.fit(torch.rand(50, 34))
    assert model.standard(torch.full((1, 34), 1e6)).max() == 4
