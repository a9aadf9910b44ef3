"""Who may see whom, by perturbation: what must not matter does not move an output by one bit of float32."""

from __future__ import annotations

import pytest
import torch

from evatok.tokenizers.videoflextok.config import FORMS
from evatok.tokenizers.videoflextok.flow_decoder import Condition
from evatok.tokenizers.videoflextok.order import Order, decoder_mask, encoder_mask, with_absent

FRAMES, PATCHES, TOKENS = 3, 4, 4


def features(tokenizer, latents: torch.Tensor, tokens: int = TOKENS) -> torch.Tensor:
    """(B, T, k, D) before quantisation, where the smallest leak would show."""
    network = tokenizer.network
    return network.encoder(network.patchify(latents), tokens)


def changed_frames(before: torch.Tensor, after: torch.Tensor) -> list[bool]:
    return (before != after).transpose(0, 1).flatten(1).any(1).tolist()


@pytest.mark.parametrize("form", ["time-causal", "flexible", "grid"])
@pytest.mark.parametrize("frame", range(FRAMES))
def test_codes_of_a_frame_depend_on_no_later_frame(flex, latents, form, frame):
    tokenizer, other = flex(form=form), latents.clone()
    other[:, frame] += 1.0
    found = changed_frames(features(tokenizer, latents), features(tokenizer, other))
    assert found == [later >= frame for later in range(FRAMES)]


def test_flat_codes_depend_on_every_frame(flex, latents):
    tokenizer = flex(form="flat")
    for frame in range(FRAMES):
        other = latents.clone()
        other[:, frame] += 1.0
        assert (features(tokenizer, latents) != features(tokenizer, other)).flatten(2).any(2).all()


@pytest.mark.parametrize("form", ["time-causal", "flexible", "flat"])
@pytest.mark.parametrize("rank", range(TOKENS))
def test_a_register_changes_no_code_of_lower_rank_in_its_frame(flex, latents, form, rank):
    tokenizer = flex(form=form)
    before = features(tokenizer, latents)
    tokenizer.network.encoder.registers[1, rank] += 1.0
    changed = (before != features(tokenizer, latents)).any(-1).any(0)  # (T, K)
    if form == "flat":
        assert changed.flatten().tolist() == [place >= TOKENS + rank for place in range(FRAMES * TOKENS)]
        return
    assert changed[0].tolist() == [False] * TOKENS, "an earlier frame"
    assert changed[1].tolist() == [other >= rank for other in range(TOKENS)]
    # Later frames see all of an earlier one in the paper's form, and only lower ranks of it in the flexible one.
    later = [True] * TOKENS if form == "time-causal" else [other >= rank for other in range(TOKENS)]
    assert changed[2].tolist() == later


@pytest.mark.parametrize("form", ["time-causal", "flexible", "flat"])
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_the_first_tokens_are_a_prefix_of_all_tokens(flex, latents, form, tokens):
    tokenizer = flex(form=form)
    whole, part = features(tokenizer, latents), features(tokenizer, latents, tokens)
    if form == "flat":
        torch.testing.assert_close(part.flatten(1, 2), whole.flatten(1, 2)[:, : FRAMES * tokens])
    else:
        torch.testing.assert_close(part, whole[:, :, :tokens])


def test_the_flexible_form_runs_only_what_it_keeps(flex):
    assert flex(form="flexible").network.encoder.mask(1).shape[0] == FRAMES * (PATCHES + 1)
    assert flex(form="flexible").network.encoder.needs_all is False
    assert flex(form="time-causal").network.encoder.needs_all is True


def velocity(tokenizer, latents, values, lengths=None) -> torch.Tensor:
    lengths = torch.full((2, FRAMES), TOKENS) if lengths is None else lengths
    return tokenizer.network.velocity(latents, torch.tensor([0.3, 0.8]), Condition(values, lengths))


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(2, FRAMES, TOKENS, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("frame", range(FRAMES))
@pytest.mark.parametrize("mask", ["causal", "full"])
def test_a_causal_decoder_sees_no_later_frame_and_a_full_one_all(flex, latents, values, frame, mask):
    tokenizer = flex(decoder_mask=mask)
    before = velocity(tokenizer, latents, values)
    noised, tokens = latents.clone(), values.clone()
    noised[:, frame] += 1.0
    tokens[:, frame] += 1.0
    expected = [mask == "full" or later >= frame for later in range(FRAMES)]
    assert changed_frames(before, velocity(tokenizer, noised, values)) == expected
    assert changed_frames(before, velocity(tokenizer, latents, tokens)) == expected


def test_flat_tokens_serve_every_frame_and_leak_no_noise_between_frames(flex, latents, values):
    tokenizer = flex(form="flat", decoder_mask="causal")
    before = velocity(tokenizer, latents, values)
    tokens, noised = values.clone(), latents.clone()
    tokens[:, 2] += 1.0
    noised[:, 1] += 1.0
    assert changed_frames(before, velocity(tokenizer, latents, tokens)) == [True] * FRAMES
    assert changed_frames(before, velocity(tokenizer, noised, values)) == [False, True, True]


@pytest.mark.parametrize("drop", ["truncate", "mask"])
@pytest.mark.parametrize("mask", ["causal", "full"])
def test_dropped_tokens_tell_the_decoder_nothing(flex, latents, values, drop, mask):
    tokenizer = flex(drop=drop, decoder_mask=mask)
    lengths = torch.tensor([[2, 2, 2], [4, 1, 3]])
    other = values.clone()
    other[0, :, 2:] += 1.0
    other[1, 1, 1:] += 1.0
    other[1, 2, 3:] += 1.0
    assert torch.equal(velocity(tokenizer, latents, values, lengths), velocity(tokenizer, latents, other, lengths))


def test_truncated_tokens_are_as_if_they_had_never_been(flex, latents, values):
    tokenizer = flex(drop="truncate")
    mixed = velocity(tokenizer, latents, values, torch.tensor([[2, 2, 2], [4, 4, 4]]))
    alone = velocity(tokenizer, latents, values[:, :, :2], torch.full((2, FRAMES), 2))
    torch.testing.assert_close(mixed[:1], alone[:1])
    assert not torch.allclose(mixed[1:], alone[1:])


def test_masked_tokens_leave_a_mask_token_behind(flex, latents, values):
    tokenizer, lengths = flex(drop="mask"), torch.full((2, FRAMES), 2)
    before = velocity(tokenizer, latents, values, lengths)
    tokenizer.network.decoder.mask_token += 1.0
    assert (before != velocity(tokenizer, latents, values, lengths)).flatten(1).any(1).all()


def test_tokens_and_latents_are_modulated_apart(flex, latents, values):
    tokenizer = flex()
    before = velocity(tokenizer, latents, values)
    width = 16
    tokenizer.network.decoder.layers[0].modulation.bias[: 6 * width] += 1.0  # those of tokens
    assert (before != velocity(tokenizer, latents, values)).any()
    again = flex()
    last = again.network.decoder.layers[-1].modulation
    before = velocity(again, latents, values)
    last.bias[: 6 * width][3 * width :] += 1.0  # of tokens, in the last MLP, which no latent sees
    assert torch.equal(before, velocity(again, latents, values))


@pytest.mark.parametrize("form", FORMS)
def test_every_element_sees_itself(form):
    tokens = 0 if form == "grid" else TOKENS
    order = Order.of(FRAMES, PATCHES, tokens, tokens_first=False, flat=form == "flat")
    assert encoder_mask(order, form).diagonal().all()


def test_the_papers_encoder_mask_of_one_frame():
    order = Order.of(1, 2, 3, tokens_first=False)
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert encoder_mask(order, "time-causal").int().tolist() == expected


def test_the_causal_decoder_mask_is_full_inside_a_frame():
    order = Order.of(2, 1, 1, tokens_first=True)  # r1 r2 x1 x2
    assert decoder_mask(order, "causal").int().tolist() == [[1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]]
    assert decoder_mask(order, "full") is None


def test_absent_elements_are_seen_by_themselves_alone():
    present = torch.tensor([[True, False, True]])
    assert with_absent(None, present)[0, 0].int().tolist() == [[1, 0, 1], [1, 1, 1], [1, 0, 1]]
