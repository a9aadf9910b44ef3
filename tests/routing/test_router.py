"""Routers: from a clip to one logit a candidate; the control sees the statistics it claims to see."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evatok.routing.initialise import initialise_router
from evatok.routing.networks import CandidateHead, PyramidRouter, RouterConfig, build_router
from evatok.routing.rankings import Rankings
from evatok.routing.statistics import GRIDS, PYRAMID_STATISTICS, clip_statistics, pyramid_statistics
from evatok.routing.trained_router import Router
from evatok.storage.shards import ShardStore

TINY = RouterConfig(levels=(2, 4, 8), frames=12, size=32, patch=(4, 8, 8), width=16, layers=2, heads=2)
KINDS = ("vit", "pyramid", "features")
HEADS = ("joint", "per_block")


@pytest.fixture
def clips() -> torch.Tensor:
    """Four clips of noise, (4, 3, 12, 32, 32) in [0, 1]."""
    return torch.rand(4, 3, 12, 32, 32, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize("shape", [(2, 3, 8, 32, 32), (2, 3, 12, 16, 32), (2, 1, 12, 32, 32)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"the router takes clips \(B, 3, 12, 32, 32\), got"):
        router()(torch.rand(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "cnn"}, "'cnn'; choose one of vit, pyramid"), ({"head": "x"}, "'x'; choose joint or")],
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
    clips = clips[..., :8, :8]  # the fewer pixels, the more statistics of noise differ
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


# The pyramid, of each block: six numbers a grid, then the five of the change by itself, then logarithms


def pyramid(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K, grids, 6) and (B, K, 5): what every grid loses, and the change."""
    blocks = clips.shape[2] // 4
    plain = pyramid_statistics(clips, blocks)[:, : blocks * PYRAMID_STATISTICS // 2].unflatten(1, (blocks, -1))
    return plain[..., :-5].unflatten(2, (len(GRIDS), 6)), plain[..., -5:]


OWN, NEW, LESS = 0, 1, 2


def test_a_picture_of_flat_cells_loses_nothing_from_their_grid_on():
    cells = torch.rand(1, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    picture = cells.repeat_interleave(8, -1).repeat_interleave(8, -2).expand(-1, -1, 12, -1, -1)
    grids, _ = pyramid(picture)
    own = grids[0, 0, :, OWN]
    flat = torch.tensor([high >= 4 and wide >= 4 for high, wide in GRIDS])
    assert own[flat].abs().max() < 1e-6
    assert (own[~flat] > 0.01).all()


def test_finer_grids_lose_less(clips):
    grids, _ = pyramid(clips)
    assert (grids[..., 1:, OWN].mean((0, 1)) < grids[..., :-1, OWN].mean((0, 1))).all()


def test_a_block_that_repeats_the_last_frame_before_it_is_no_change(clips):
    still = clips[:, :, :1].expand(-1, -1, 12, -1, -1)
    grids, change = pyramid(still)
    assert (grids[:, 1:, :, [NEW, LESS]] == 0).all()
    assert (change[:, 1:] == 0).all()
    assert (grids[:, :, :-1, OWN] > 0).all()
    # Nothing is known before the first block: there the change is the picture itself.
    assert torch.equal(grids[:, 0, :, NEW], grids[:, 0, :, OWN])


def test_the_share_that_moved_is_that_of_the_squares(clips):
    still = clips[:, :, :1].expand(-1, -1, 12, -1, -1).clone()
    still[:, :, 8:, :8, :16] = 1 - still[:, :, 8:, :8, :16]
    _, change = pyramid(still)
    assert torch.allclose(change[:, 2, 3:], torch.tensor(2 / 16))
    assert (change[:, 1] == 0).all()


def test_what_a_block_loses_does_not_depend_on_later_blocks(clips):
    later = clips.clone()
    later[:, :, 8:] = 0.5
    for before, after in zip(pyramid(clips), pyramid(later), strict=True):
        assert torch.equal(before[:, :2], after[:, :2])


@pytest.mark.parametrize("kind", ["pyramid", "features"])
def test_statistics_are_those_of_the_mirrored_clip(kind, clips):
    model = router(kind)
    assert model.MIRROR_BLIND
    assert torch.allclose(model.see(clips), model.see(clips.flip(-1)), atol=1e-4)


def test_clips_that_the_grids_do_not_tile_are_refused(clips):
    with pytest.raises(ValueError, match="do not tile clips of 16 x 16"):
        pyramid_statistics(clips[..., :16, :16], 3)


def test_noise_is_for_training_alone(clips):
    model = router("pyramid")
    model.standard.fit(model.see(clips))
    assert torch.equal(model(clips), model(clips))
    assert not torch.equal(model.train()(clips), model(clips))


def test_clips_unlike_any_seen_are_brought_to_the_edge_of_what_was():
    model = router("features")
    model.standard.fit(torch.rand(50, 34))
    assert model.standard(torch.full((1, 34), 1e6)).max() == 4


def trained(kind: str, seed: int) -> Router:
    torch.manual_seed(seed)
    config = dataclasses.replace(TINY, kind=kind)
    module = build_router(config).eval()
    if kind != "vit":
        module.standard.fit(module.see(torch.rand(6, 3, TINY.frames, TINY.size, TINY.size)))
    return Router(module, config, None, SimpleNamespace(sha256=f"{kind}-{seed}"))


def test_routers_of_one_kind_share_what_they_see_of_a_set_and_rank_as_by_themselves(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, TINY.frames, TINY.size, TINY.size, 3), dtype=np.uint8)
    routers = [trained(kind, seed) for seed in (0, 1) for kind in KINDS]
    alone = [router.ranking(pixels, batch=2) for router in routers]
    looks: list[int] = []
    see = PyramidRouter.see
    monkeypatch.setattr(PyramidRouter, "see", lambda self, clips: looks.append(len(clips)) or see(self, clips))
    shared = Rankings(pixels, batch=2)
    for router, ranks in zip(routers, alone, strict=True):
        assert np.array_equal(shared.by(router), ranks)
        assert np.array_equal(shared.by(router), ranks), "and again, from memory"
    assert sum(looks) == len(pixels), "once for both pyramid routers"
    with pytest.raises(ValueError, match="the router takes clips"):
        Rankings(pixels[:, :4]).by(routers[1])


def test_a_kept_ranking_is_found_by_its_weights_and_pixels_and_by_nothing_else(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, TINY.frames, TINY.size, TINY.size, 3), dtype=np.uint8)
    routers = [trained(kind, seed) for seed in (0, 1) for kind in KINDS]
    store = ShardStore(tmp_path)
    made = [Rankings(pixels, store, batch=2).by(router) for router in routers]
    other = pixels.copy()
    other[0] = 255 - other[0]

    passes: list[int] = []
    compute = Rankings._logits
    monkeypatch.setattr(Rankings, "_logits", lambda self, *args: passes.append(1) or compute(self, *args))
    again = Rankings(pixels, store, batch=2)
    for router, ranks in zip(routers, made, strict=True):
        assert np.array_equal(again.by(router), ranks)
        assert np.array_equal(ranks, router.ranking(pixels, batch=2))
    assert not passes
    assert np.array_equal(Rankings(other, store, batch=2).by(routers[0]), routers[0].ranking(other, batch=2))
    assert len(passes) == 1, "the batch with the other clip; the rest was kept"
    Rankings(pixels, store, batch=2).by(trained("vit", 2))
    assert len(passes) == 4, "weights that nothing is kept of"
