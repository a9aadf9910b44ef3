"""Discriminators and the augmentation in front of them."""

import copy

import pytest
import torch

from evatok.models.efficientnet import EfficientNet, EfficientNetLite0
from evatok.training import losses
from evatok.training.augmentation import diff_augment
from evatok.training.discriminators import (
    TRANSFORMER_SIZES,
    DiscriminatorError,
    SemanticDiscriminator,
    TransformerDiscriminator,
    TransformerDiscriminatorConfig,
    VirtualBatchNorm,
)
from evatok.training.patch_discriminator import PatchDiscriminator
from tests.factories import TinyEncoder, noise

TINY = TransformerDiscriminatorConfig(frames=4, size=16, patch=(2, 8, 8), width=24, layers=2, heads=2)


def striped(clips: torch.Tensor) -> torch.Tensor:
    """Clips with black stripes, 4 pixels wide: easily told."""
    return clips * (torch.arange(clips.shape[-1]) % 8 < 4)


def semantic(layers=(0, 2), seed: int = 0) -> SemanticDiscriminator:
    torch.manual_seed(0)
    return SemanticDiscriminator(TinyEncoder(seed), layers)


# The transformer


def test_the_papers_transformer_has_the_parameters_its_docstring_says():
    with torch.device("meta"):
        network = TransformerDiscriminator(TRANSFORMER_SIZES["paper"])
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{parameters:,} parameters")
    assert f"{parameters:,}" in TransformerDiscriminator.__doc__
    assert TRANSFORMER_SIZES["paper"].grid == (4, 16, 16)


def test_the_transformer_learns_to_tell_striped_clips():
    torch.manual_seed(0)
    network = TransformerDiscriminator(TINY)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3, betas=(0.5, 0.9))
    for step in range(30):
        optimiser.zero_grad()
        losses.hinge_discriminator(network(noise(4, step)), network(striped(noise(4, step + 1000)))).backward()
        optimiser.step()
    with torch.no_grad():
        real, fake = network(noise(8, 5000)), network(striped(noise(8, 5001)))
    assert real.shape == (8,)
    assert (real > 0).all()
    assert (fake < 0).all()


def test_the_transformer_refuses_other_clips_and_patches_that_do_not_fit():
    with pytest.raises(ValueError, match=r"takes clips \(B, 3, 4, 16, 16\), got \(2, 3, 4, 8, 8\)"):
        TransformerDiscriminator(TINY)(torch.zeros(2, 3, 4, 8, 8))
    with pytest.raises(ValueError, match="cannot be tiled with patches"):
        TransformerDiscriminatorConfig(frames=6)


# The semantic one


def test_every_feature_of_every_listed_layer_gets_a_logit():
    logits = semantic((0, 1, 3))(noise(5))
    assert logits.shape == (5, 3 * 2 * 4 * 4)
    assert logits.dtype == torch.float32


def test_gradients_reach_the_clips_and_the_heads_but_not_the_encoder():
    network, clips = semantic(), noise().requires_grad_()
    network(clips).square().sum().backward()
    assert clips.grad.abs().sum() > 0
    assert all(p.grad is not None for p in network.heads.parameters())
    assert all(p.grad is None and not p.requires_grad for p in network.encoder.parameters())


def test_the_encoder_stays_out_of_state_and_parameters_and_in_evaluation_mode():
    network = semantic().train()
    tensors = {name for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    assert tensors == {name for name in tensors if name.startswith("heads.")}
    assert {id(p) for p in network.parameters()} == {id(p) for p in network.heads.parameters()}
    assert network.training
    assert not network.encoder.training


def test_moving_the_discriminator_moves_its_encoder_and_a_copy_has_its_own():
    network = semantic()
    assert network.double().encoder.embedding.weight.dtype == torch.float64
    twin = copy.deepcopy(network)
    assert twin.encoder is not network.encoder
    clips = noise().double()
    assert torch.equal(twin.eval()(clips), network.eval()(clips))


def test_heads_are_loaded_on_the_encoder_they_were_trained_on_and_on_no_other():
    network, clips = semantic(), noise()
    network(clips)
    state = network.state_dict()
    torch.manual_seed(5)
    other = SemanticDiscriminator(TinyEncoder(), (0, 2))
    other.load_state_dict(state)
    assert torch.equal(other.eval()(clips), network.eval()(clips))
    with pytest.raises(ValueError, match="trained on encoder 000000000000"):
        semantic(seed=1).load_state_dict(state)


def pictures(sha256: str = "0" * 64, **options) -> SemanticDiscriminator:
    """Heads on two depths of an untrained image network that sees frames and, with `differences`, their changes."""
    torch.manual_seed(0)
    trunk = EfficientNet(EfficientNetLite0(), weights_sha256=sha256, **options)
    return SemanticDiscriminator(trunk, (3, 5))


def test_layers_of_several_widths_and_grids_get_a_head_each():
    network, clips = pictures(), noise(2, size=32).requires_grad_()
    logits = network.train()(clips)
    assert logits.shape == (2, 4 * (8 * 8 + 4 * 4))
    assert [head.logit.weight.shape[1] for head in network.heads] == [2 * 24, 2 * 40]
    logits.square().sum().backward()
    assert (clips.grad.abs().amax((1, 3, 4)) > 0).all()
    assert all(p.grad is not None for p in network.heads.parameters())
    assert all(p.grad is None for p in network.encoder.parameters())
    assert not any(module.training for module in network.encoder.modules())


def test_heads_on_another_trunk_or_on_other_views_of_it_are_refused():
    state = pictures().state_dict()
    assert not any(name.startswith(("encoder", "_outside")) for name in state)
    pictures().load_state_dict(state)
    with pytest.raises(ValueError, match="trained on encoder 000000000000, not on 111111111111"):
        pictures("1" * 64).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for heads"):
        pictures(differences=False).load_state_dict(state)


def test_heads_are_spectrally_normal_and_evaluation_leaves_them_as_they_are():
    network = semantic().train()
    for _ in range(30):
        network(noise())
    for module in network.modules():
        if hasattr(module, "parametrizations"):
            assert torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2) == pytest.approx(1, abs=0.02)
    before = {k: v.clone() for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}
    network.eval()(noise())
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_power_iterations_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        half = semantic().train()
        half(noise())
    whole = semantic().train()
    whole(noise())
    mine, other = half.state_dict(), whole.state_dict()
    assert all(torch.equal(mine[k], other[k]) for k in mine if k.endswith(("._u", "._v")))


def test_a_layer_the_encoder_lacks_is_refused():
    with pytest.raises(ValueError, match=r"layers must be between 0 and 3, got \[1, 4\]"):
        semantic((1, 4))
    with pytest.raises(ValueError, match="must be odd, got 8"):
        SemanticDiscriminator(TinyEncoder(), (1,), kernel=8)


@pytest.mark.parametrize("count", [1, 8, 11, 16])
def test_virtual_batches_are_normal_of_at_most_eight_and_do_not_see_each_other(count):
    torch.manual_seed(0)
    x = 3 + 5 * torch.randn(count, 4, 10)
    norm = VirtualBatchNorm(4)
    made = norm(x)
    for part in made.tensor_split(-(-count // 8)):
        assert len(part) <= 8
        assert part.mean((0, 2)).abs().max() < 1e-5
        torch.testing.assert_close(part.var((0, 2), correction=0), torch.ones(4), atol=1e-4, rtol=0)
    if count > 8:
        x[-1] += 100
        assert torch.equal(norm(x)[: count // 2], made[: count // 2])


# DiffAug


def augmented(clips: torch.Tensor, seed: int = 3, **options) -> torch.Tensor:
    return diff_augment(clips, torch.Generator().manual_seed(seed), **options)


def test_equal_seeds_augment_a_reconstruction_as_its_original():
    """Translation and cutout are linear around mid-grey: what differs afterwards is the difference, moved and cut."""
    real, fake = noise(6, 1), noise(6, 2)
    policy = ("translation", "cutout")
    moved = augmented(0.5 + (real - fake) / 2, policy=policy) - 0.5
    found = (augmented(real, policy=policy) - augmented(fake, policy=policy)) / 2
    torch.testing.assert_close(found, moved, atol=1e-6, rtol=0)
    assert torch.equal(augmented(real), augmented(real))
    assert not torch.equal(augmented(real), augmented(real, seed=4))


def test_all_frames_of_a_clip_share_a_draw_and_clips_do_not():
    still = noise(1)[:, :, :1].expand(4, 3, 4, 16, 16)
    made = augmented(still)
    assert torch.allclose(made, made[:, :, :1].expand_as(made))
    assert len({tuple(clip.flatten().tolist()) for clip in made}) == 4


def test_augmentation_is_differentiable_and_finite():
    clips = noise().requires_grad_()
    made = augmented(clips)
    assert made.shape == clips.shape
    assert made.isfinite().all()
    made.square().sum().backward()
    assert clips.grad.isfinite().all()
    assert (clips.grad.flatten(1).abs().sum(1) > 0).all()


def test_cutout_greys_a_square_of_the_share_asked_for_at_most():
    made = augmented(torch.ones(64, 3, 2, 20, 20), policy=("cutout",), cutout=0.2)
    cut = (made[:, 0, 0] == 0.5).sum((1, 2))
    assert cut.max() == 16
    assert cut.min() >= 4
    assert ((made == 0.5) | (made == 1)).all()


def test_translation_moves_by_at_most_an_eighth_and_loses_nothing_inside():
    dot = torch.full((64, 3, 1, 16, 16), 0.5)
    dot[:, :, :, 8, 8] = 1
    places = augmented(dot, policy=("translation",))[:, 0, 0].flatten(1).argmax(1)
    rows, columns = places // 16, places % 16
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}


def test_no_policy_is_no_change_and_an_unknown_one_is_refused():
    torch.testing.assert_close(augmented(noise(), policy=()), noise())
    with pytest.raises(ValueError, match="unknown augmentation 'blur'"):
        augmented(noise(), policy=("colour", "blur"))
    with pytest.raises(ValueError, match=r"must be \(B, 3, T, H, W\)"):
        augmented(noise()[:, 0])


def test_a_patch_discriminator_judges_patches_of_images_apart():
    """70 pixels decide a logit of three halvings; what is farther away changes nothing but the batch's statistics."""
    torch.manual_seed(0)
    judge = PatchDiscriminator(channels=8).eval()
    images = torch.rand(2, 3, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[..., 96:, 96:] = 0
    with torch.no_grad():
        before, after = judge(images), judge(changed)
    assert before.shape == (2, 14 * 14)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, -1], after[:, -1])
    with pytest.raises(DiscriminatorError, match="needs images of 32 x 32 pixels"):
        judge(images[..., :16, :16])
