"""The tokenizer keeps its promises: nothing leaks from later blocks, from later lengths or from other clips."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evatok.models.quantisers import Quantiser
from evatok.tokenizers import layout as layouts
from evatok.tokenizers.codes import Codes, expand_assignment
from evatok.tokenizers.config import patchify, unpatchify
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.initialise import initialise
from evatok.tokenizers.layout import Layout
from evatok.tokenizers.pooling import pyramid

KINDS = {"vq": 64, "fsq": 240, "simvq": 64, "lfq": 64}
LENGTHS = torch.tensor([[2, 4, 8], [8, 8, 8], [2, 2, 2], [4, 8, 2]])


def of_kind(kind: str, tiny: TokenizerConfig) -> AdaptiveTokenizer:
    torch.manual_seed(0)
    return AdaptiveTokenizer(dataclasses.replace(tiny, quantiser=kind, codebook_size=KINDS[kind]))


def blocks_of(clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return clips.chunk(3, dim=2)


# What comes out


def test_shapes_and_lengths_are_each_clips_own(tokenizer, clips):
    reconstruction = tokenizer(clips, LENGTHS)
    assert reconstruction.clips.shape == clips.shape
    assert reconstruction.clips.dtype == torch.float32
    assert reconstruction.codes.codes.shape == (4, 24)
    alone = [tokenizer(clips[i : i + 1], LENGTHS[i : i + 1]).codes.codes for i in range(4)]
    assert [codes.shape[1] for codes in alone] == [14, 24, 6, 14]


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_the_codes_is_the_reconstruction(kind, tiny, clips):
    tokenizer = of_kind(kind, tiny).eval()
    reconstruction = tokenizer(clips, LENGTHS)
    codes = tokenizer.encode(clips, LENGTHS)
    assert torch.equal(codes.codes, reconstruction.codes.codes)
    assert torch.allclose(tokenizer.decode(codes), reconstruction.clips.clamp(0, 1), atol=1e-5)
    assert not torch.equal(reconstruction.clips[0], reconstruction.clips[1])


@pytest.mark.parametrize("kind", ["fsq", "vq"])
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_running_clips_of_like_length_together_changes_nothing(kind, groups, tiny, clips):
    tokenizer = of_kind(kind, tiny).eval()
    lengths = torch.tensor([[8, 8, 8], [2, 2, 4], [4, 8, 2], [2, 2, 2]])
    with torch.no_grad():
        whole = tokenizer(clips, lengths, tap=1)
        parts = tokenizer(clips, lengths, tap=1, groups=groups)
    assert torch.allclose(parts.clips, whole.clips, atol=1e-5)
    assert torch.allclose(parts.tapped, whole.tapped, atol=1e-5)
    assert torch.equal(parts.codes.codes, whole.codes.codes)
    assert torch.equal(parts.codes.lengths, whole.codes.lengths)
    assert float(parts.quantised.loss) == pytest.approx(float(whole.quantised.loss), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("groups", [0, 5])
def test_more_groups_than_clips_are_refused(tokenizer, clips, groups):
    with pytest.raises(ValueError, match="groups"):
        tokenizer(clips, expand_assignment((2, 2, 2), 4), groups=groups)


def test_a_tapped_layer_is_as_causal_as_the_pixels_and_leads_to_them(tokenizer, clips):
    lengths = expand_assignment((4, 4, 4), 4)
    last = len(tokenizer.decoder.layers)
    changed = clips.clone()
    changed[:, :, 8:] += 0.3
    before, after = (tokenizer(some, lengths, tap=last) for some in (clips, changed))
    assert before.tapped.shape == (4, 3, 4, 24)
    assert torch.equal(before.tapped[:, :2], after.tapped[:, :2])
    assert not torch.equal(before.tapped[:, 2], after.tapped[:, 2])
    assert torch.equal(tokenizer.decoder.to_pixels(before.tapped), before.clips)
    with pytest.raises(ValueError, match="layers 1 to 2"):
        tokenizer(clips, lengths, tap=3)


def test_decoded_clips_are_pixels(tokenizer, clips):
    codes = tokenizer.encode(clips, LENGTHS)
    tokenizer.decoder.unpatchify.weight.mul_(100)
    decoded = tokenizer.decode(codes)
    assert (decoded.min(), decoded.max()) == (0, 1)


def test_blank_padding_codes_do_not_matter(tokenizer, clips):
    codes = tokenizer.encode(clips, LENGTHS)
    valid = Layout.of(LENGTHS).valid
    scribbled = torch.where(valid, codes.codes, torch.full_like(codes.codes, 239))
    assert not torch.equal(scribbled, codes.codes)
    assert torch.equal(tokenizer.decode(Codes(scribbled, LENGTHS)), tokenizer.decode(codes))


@given(seed=st.integers(0, 1000))
def test_unpatchify_inverts_patchify(seed):
    config = TokenizerConfig(levels=(1, 2), frames=4, size=8, patch=(2, 4, 2))
    clips = torch.rand(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    patches = patchify(clips, config)
    assert patches.shape == (2, 2, 2 * 4, config.patch_values)
    assert torch.equal(unpatchify(patches, config), clips)


# Leaks


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_blocks_pixels_change_nothing_before_it(tokenizer, clips, changed):
    other = clips.clone()
    blocks_of(other)[changed].copy_(1 - blocks_of(clips)[changed])
    before, after = (blocks_of(tokenizer(c, LENGTHS).clips) for c in (clips, other))
    assert all(torch.equal(before[k], after[k]) for k in range(changed))
    assert not any(torch.equal(before[k], after[k]) for k in range(changed, 3))


def test_gradients_flow_to_no_later_block(tokenizer, clips):
    """Every path counts here, not only those on which a code happens to change."""
    clips.requires_grad_()
    for k, block in enumerate(blocks_of(tokenizer(clips, LENGTHS).clips)):
        (gradient,) = torch.autograd.grad(block.square().sum(), clips, retain_graph=True)
        reached = [bool(part.abs().sum() > 0) for part in blocks_of(gradient)]
        assert reached == [j <= k for j in range(3)]


@pytest.mark.parametrize("changed", [1, 2])
def test_later_lengths_change_no_earlier_block(tokenizer, clips, changed):
    outputs = []
    for level in (2, 4, 8):
        lengths = torch.full((4, 3), 4)
        lengths[:, changed:] = level
        outputs.append(blocks_of(tokenizer(clips, lengths).clips))
    for other in outputs[1:]:
        for k in range(changed):
            assert torch.allclose(outputs[0][k], other[k], atol=1e-6)
        assert not torch.allclose(outputs[0][changed], other[changed], atol=1e-3)


def test_codes_of_earlier_blocks_do_not_depend_on_later_lengths(tokenizer, clips):
    short = tokenizer.encode(clips, torch.tensor([[4, 2, 2]] * 4)).codes
    long = tokenizer.encode(clips, torch.tensor([[4, 2, 8]] * 4)).codes
    assert torch.equal(short[:, :6], long[:, :6])


@pytest.mark.parametrize("kind", KINDS)
def test_other_clips_of_the_batch_change_nothing(kind, tiny, clips):
    tokenizer = of_kind(kind, tiny).eval()
    together = tokenizer(clips, LENGTHS)
    for i in range(4):
        alone = tokenizer(clips[i : i + 1], LENGTHS[i : i + 1])
        total = int(LENGTHS[i].sum())
        assert torch.equal(together.codes.codes[i, :total], alone.codes.codes[0])
        assert torch.allclose(together.clips[i], alone.clips[0], atol=1e-5)


# Where tokens stand, and what they see


def test_a_position_is_block_and_slot_never_an_offset():
    layout = Layout.of(torch.tensor([[2, 1, 3], [1, 4, 1]]))
    assert layout.block.tolist() == [[0, 0, 1, 2, 2, 2], [0, 1, 1, 1, 1, 2]]
    assert layout.slot.tolist() == [[0, 1, 0, 0, 1, 2], [0, 0, 1, 2, 3, 0]]
    assert layout.first.tolist() == [[0, 2, 3], [0, 1, 5]]
    assert layout.valid.all()


@given(rows=st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=1, max_size=4))
def test_layout_lists_every_token_of_every_block_in_order(rows):
    layout = Layout.of(torch.tensor(rows))
    for i, row in enumerate(rows):
        expected = [(block, slot) for block, count in enumerate(row) for slot in range(count)]
        valid = layout.valid[i]
        found = list(zip(layout.block[i][valid].tolist(), layout.slot[i][valid].tolist(), strict=True))
        assert found == expected
        assert valid.tolist() == [True] * len(expected) + [False] * (valid.numel() - len(expected))


def test_masks_of_the_supplements_example_cell_by_cell():
    """A 4 x 4 x 4 grid under the assignment (16, 8, 2, 2), beside a shorter clip that needs padding."""
    lengths, patches = torch.tensor([[16, 8, 2, 2], [2, 2, 1, 3]]), 16
    layout = Layout.of(lengths)
    patch_blocks = [block for block in range(4) for _ in range(patches)]
    token_self, token_cross = layouts.token_to_token(layout), layouts.token_to_patch(layout, patches)
    patch_self, patch_cross = layouts.patch_to_patch(layout, patches), layouts.patch_to_token(layout, patches)
    assert token_self.shape == (2, 1, 28, 28)
    assert token_cross.shape == (2, 1, 28, 64)
    assert patch_self.shape == (1, 1, 64, 64)
    assert patch_cross.shape == (2, 1, 64, 28)
    assert patch_self[0, 0].tolist() == [[q >= k for k in patch_blocks] for q in patch_blocks]
    for clip, row in enumerate(lengths.tolist()):
        blocks = [block for block, count in enumerate(row) for _ in range(count)]
        padding = 28 - len(blocks)
        for mask, keys in ((token_self, blocks), (token_cross, patch_blocks)):
            hidden = [False] * (padding if keys is blocks else 0)
            expected = [[q >= k for k in keys] + hidden for q in blocks]
            assert mask[clip, 0, : len(blocks)].tolist() == expected
        assert patch_cross[clip, 0].tolist() == [[q >= k for k in blocks] + [False] * padding for q in patch_blocks]


def test_every_query_sees_something():
    """Padding queries too: a row of nothing would make NaN."""
    layout = Layout.of(torch.tensor([[16, 8, 2, 2], [1, 1, 1, 1]]))
    masks = (layouts.token_to_token(layout), layouts.token_to_patch(layout, 16), layouts.patch_to_token(layout, 16))
    assert all(mask.any(-1).all() for mask in masks)


@pytest.mark.parametrize("lengths", [[[1, 0]], [[1, -1]], [[1.0, 2.0]], [1, 2]])
def test_counts_that_are_no_counts_are_refused(lengths):
    with pytest.raises(ValueError, match="positive integers"):
        Layout.of(torch.tensor(lengths))


# Pooling


@given(exponents=st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_pooling_rows_are_means_and_power_of_two_prefixes_see_every_patch(exponents):
    grid = (2 ** exponents[0], 2 ** exponents[1])
    patches = grid[0] * grid[1]
    matrix = pyramid(grid, 2 * patches)
    assert matrix.shape == (2 * patches, patches)
    assert torch.allclose(matrix.sum(1), torch.ones(2 * patches))
    assert (matrix >= 0).all()
    for level in (2**k for k in range(patches.bit_length())):
        # Slots level .. 2 * level - 1 are one level: together they take every patch once.
        cells = (matrix[level : 2 * level] > 0).sum(0)
        assert (cells == 1).all()
        assert torch.equal(pyramid(grid, level), matrix[:level])
        assert (matrix[:level].sum(0) > 0).all()


def test_the_finest_level_is_the_patches_themselves():
    finest = pyramid((4, 4), 32)[16:]
    assert torch.equal(finest, torch.eye(16))


@pytest.mark.parametrize(("grid", "slots"), [((2, 2), 9), ((3, 3), 9), ((1, 4), 9)])
def test_more_slots_than_a_grid_can_give_are_refused(grid, slots):
    with pytest.raises(ValueError, match=f"{grid[0]}x{grid[1]} grid pools to at most 8 slots, 9 requested"):
        pyramid(grid, slots)


@pytest.mark.parametrize("grid", [(3, 3), (1, 4), (4, 1), (2, 3)])
def test_a_grid_of_any_shape_pools_without_empty_cells(grid):
    matrix = pyramid(grid, 4)
    assert torch.allclose(matrix.sum(1), torch.ones(4))


# Quantisers


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_training_is_finite_and_moves_every_part(kind, tiny, clips):
    tokenizer = of_kind(kind, tiny).train()
    optimiser = torch.optim.SGD(tokenizer.parameters(), lr=0.1)
    reconstruction = tokenizer(clips, LENGTHS)
    loss = (reconstruction.clips - clips).abs().mean() + reconstruction.quantised.loss
    loss.backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    parts = ("encoder.patch_embedding", "encoder.layers.0", "quantiser.project_in", "decoder.unpatchify")
    for part in parts:
        assert any(p.grad.abs().sum() > 0 for n, p in tokenizer.named_parameters() if n.startswith(part)), part
    optimiser.step()
    assert torch.isfinite(tokenizer(clips, LENGTHS).clips).all()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_lie_in_the_codebook_and_look_up_what_was_quantised(kind):
    torch.manual_seed(0)
    quantiser = Quantiser(kind, KINDS[kind], encoder_width=16, decoder_width=24).eval()
    quantised = quantiser(3 * torch.randn(500, 16))
    assert quantised.codes.dtype == torch.int64
    assert quantised.codes.shape == (500,)
    assert 0 <= quantised.codes.min() <= quantised.codes.max() < KINDS[kind]
    assert len(quantised.codes.unique()) > 10
    assert quantised.loss.shape == ()
    assert torch.allclose(quantiser.lookup(quantised.codes), quantised.values, atol=1e-5)
    assert quantiser.lookup(quantised.codes.reshape(5, 100)).shape == (5, 100, 24)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [-1, 240])
def test_a_code_outside_the_codebook_is_refused(kind, bad):
    quantiser = Quantiser(kind, KINDS[kind], encoder_width=16, decoder_width=24)
    with pytest.raises(ValueError, match=r"codes must lie in \[0, "):
        quantiser.lookup(torch.tensor([[0, bad]]))


def test_codes_do_not_depend_on_the_surrounding_precision(tokenizer, clips):
    """Within autocast the quantiser itself still works in float32, so every code is a whole one."""
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction = tokenizer(clips, LENGTHS)
    assert reconstruction.clips.dtype == torch.float32
    close = (reconstruction.clips - tokenizer(clips, LENGTHS).clips).abs().mean()
    assert close < 0.05


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [("fsq", 1024, "no FSQ levels for 1024"), ("lfq", 240, "power of two"), ("rvq", 64, "unknown quantiser 'rvq'")],
)
def test_codebooks_that_cannot_be_are_refused(kind, size, message):
    with pytest.raises(ValueError, match=message):
        Quantiser(kind, size, encoder_width=8, decoder_width=8)


# Refusals


def test_clips_of_another_shape_are_refused(tokenizer, clips):
    with pytest.raises(ValueError, match=r"clips must be \(B, 3, 12, 16, 16\), got \(4, 3, 8, 16, 16\)"):
        tokenizer(clips[:, :, :8], LENGTHS)


def test_assignments_of_another_width_are_refused(tokenizer, clips):
    with pytest.raises(ValueError, match=r"\(B, 3\).* got \(4, 2\)"):
        tokenizer(clips, LENGTHS[:, :2])


def test_more_tokens_than_slots_are_refused(tokenizer, clips):
    with pytest.raises(ValueError, match=r"at most 8 tokens per block.* with 9"):
        tokenizer(clips, LENGTHS.clamp_min(1) + torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("count", [1, 3])
def test_an_assignment_is_needed_for_every_clip(tokenizer, clips, count):
    with pytest.raises(ValueError, match=f"{count} assignments for 4 clips"):
        tokenizer(clips, LENGTHS[:count])


def test_codes_of_another_assignment_are_refused(tokenizer, clips):
    codes = tokenizer.encode(clips, LENGTHS)
    with pytest.raises(ValueError, match=r"codes must be \(4, 6\) for these lengths, got \(4, 24\)"):
        tokenizer.decode(Codes(codes.codes, torch.full((4, 3), 2)))


@pytest.mark.parametrize("change", [{"size": 20}, {"frames": 10}])
def test_patches_must_tile_the_clip(tiny, change):
    with pytest.raises(ValueError, match="do not tile"):
        dataclasses.replace(tiny, **change)


def test_configuration_survives_json(tiny):
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in tiny.to_dict().items()}
    assert TokenizerConfig.from_dict(values) == tiny


# Initialisation


def test_the_linear_path_starts_as_the_principal_components(tiny, moving_clips):
    """Embedding and un-patchify are made to invert each other on the kept components, whatever the pixels."""
    config = dataclasses.replace(tiny, encoder_width=32, decoder_width=24)
    clips = torch.from_numpy(moving_clips(40, config.frames, config.size)).permute(0, 4, 1, 2, 3) / 255
    torch.manual_seed(0)
    tokenizer = AdaptiveTokenizer(config)
    initialise(tokenizer, clips)
    embedded = tokenizer.encoder.patch_embedding(patchify(clips, config) - 0.5)
    flat = embedded.flatten(0, 2)
    assert torch.allclose(flat.mean(0), torch.zeros(32), atol=1e-2)
    assert torch.allclose(torch.cov(flat.T), torch.eye(32), atol=2e-2)
    decoded = tokenizer.decoder.to_pixels(embedded[..., :24])

    patches = patchify(clips, config).flatten(0, 2).double()
    mean = patches.mean(0)
    _, _, axes = torch.linalg.svd(patches - mean, full_matrices=False)
    kept = axes[:24]
    projected = mean + (patches - mean) @ kept.T @ kept
    expected = unpatchify(projected.float().reshape(patchify(clips, config).shape), config)
    assert torch.allclose(decoded, expected, atol=2e-3)


def test_initialisation_leaves_the_model_as_causal_and_sound_as_before(tokenizer, clips):
    initialise(tokenizer, torch.rand(64, 3, 12, 16, 16))
    reconstruction = tokenizer(clips, LENGTHS)
    assert torch.isfinite(reconstruction.clips).all()
    assert torch.allclose(tokenizer.decode(reconstruction.codes), reconstruction.clips.clamp(0, 1), atol=1e-5)
