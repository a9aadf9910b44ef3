"""The tokenizer's contract: codes of any length, samples that depend on what they should and on nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from evatok.models.latents import LatentError, PatchPCA
from evatok.storage import checkpoints
from evatok.storage.checkpoints import CheckpointError
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, FlexNetwork, FlexTokError, VideoFlexTok
from evatok.tokenizers.videoflextok.config import FORMS, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.encoder import RegisterEncoder
from evatok.tokenizers.videoflextok.flow_decoder import FlowDecoder
from evatok.tokenizers.videoflextok.flow_matching import FlowError
from evatok.tokenizers.videoflextok.model import pack, unpack
from evatok.tokenizers.videoflextok.nested_dropout import NestedDropout


def save(tokenizer, path) -> None:
    config = tokenizer.config.to_dict()
    checkpoints.save(path, tokenizer, kind="videoflextok", config=config, dtype=torch.float16)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("drop", ["truncate", "mask"])
def test_every_form_codes_and_samples_clips(flex, flex_clips, form, drop):
    tokenizer = flex(form=form, drop=drop)
    for tokens in tokenizer.config.kept_levels:
        codes = tokenizer.encode(flex_clips, tokenizer.lengths(tokens, 2))
        assert codes.codes.shape == (2, 3 * tokens)
        assert 0 <= codes.codes.min() <= codes.codes.max() < 240
        made = tokenizer.decode(codes, steps=2)
        assert made.shape == flex_clips.shape
        assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("frames", [13, 12])
def test_a_causal_first_frame_has_a_latent_frame_of_its_own(flex, frames):
    tokenizer = flex(frames=frames)
    clips = torch.rand(1, 3, frames, 32, 32, generator=torch.Generator().manual_seed(0))
    assert tokenizer.config.blocks == (4 if frames == 13 else 3)
    assert tokenizer.config.first_frames == (1 if frames == 13 else 4)
    made = tokenizer.decode(tokenizer.encode(clips, tokenizer.lengths(2, 1)), steps=1)
    assert made.shape == clips.shape


def test_codes_of_few_tokens_are_the_first_of_many(flex, flex_clips):
    tokenizer = flex()
    whole = unpack(tokenizer.encode(flex_clips, tokenizer.lengths(4, 2)), tokenizer.lengths(4, 2))
    few = tokenizer.encode(flex_clips, tokenizer.lengths(2, 2))
    assert torch.equal(unpack(few, few.lengths), whole[:, :, :2])


def test_lengths_may_differ_per_clip_and_frame_and_change_nobody_elses_sample(flex, flex_clips):
    tokenizer = flex()
    lengths = torch.tensor([[2, 2, 2], [4, 1, 3]])
    codes = tokenizer.encode(flex_clips, lengths)
    assert codes.codes.shape == (2, 8)
    assert (codes.codes[0, 6:] == 0).all(), "padding"
    both = tokenizer.decode(codes, steps=3)
    for clip in range(2):
        alone = tokenizer.encode(flex_clips[clip : clip + 1], lengths[clip : clip + 1])
        made = tokenizer.decode(alone, steps=3, indices=np.array([clip]))
        torch.testing.assert_close(made, both[clip : clip + 1], rtol=0, atol=1e-5)


def test_pack_and_unpack_are_inverse():
    lengths = torch.tensor([[2, 0, 3], [1, 1, 1]])
    grid = torch.arange(1, 19).reshape(2, 3, 3)
    codes = pack(grid, lengths)
    assert codes.codes.tolist() == [[1, 2, 7, 8, 9], [10, 13, 16, 0, 0]]
    assert unpack(codes, lengths).tolist() == [[[1, 2, 0], [0, 0, 0], [7, 8, 9]], [[10, 0, 0], [13, 0, 0], [16, 0, 0]]]


def test_samples_repeat_with_their_seed_and_differ_without_it(flex, flex_clips):
    tokenizer = flex()
    codes = tokenizer.encode(flex_clips, tokenizer.lengths(1, 2))
    first = tokenizer.decode(codes, steps=2, seed=3)
    assert torch.equal(first, tokenizer.decode(codes, steps=2, seed=3))
    assert not torch.equal(first, tokenizer.decode(codes, steps=2, seed=4))


def test_without_tokens_a_sample_depends_on_its_noise_alone(flex, flex_clips):
    tokenizer = flex()
    none = tokenizer.encode(flex_clips, tokenizer.lengths(0, 2))
    assert none.codes.shape == (2, 0)
    same = tokenizer.decode(none, steps=2, indices=np.array([5, 5]))
    assert torch.equal(same[0], same[1])
    other = tokenizer.decode(tokenizer.encode(1 - flex_clips, none.lengths), steps=2, indices=np.array([5, 5]))
    assert torch.equal(same, other)


@pytest.mark.parametrize("normalised", [True, False])
def test_guidance_moves_samples_away_from_those_without_tokens(flex, flex_clips, normalised):
    tokenizer = flex()
    codes = tokenizer.encode(flex_clips, tokenizer.lengths(4, 2))
    plain, more = (tokenizer.decode(codes, steps=2, guidance=g, normalised=normalised) for g in (1.0, 4.0))
    assert not torch.equal(plain, more)
    none = tokenizer.encode(flex_clips, tokenizer.lengths(0, 2))
    unguided, guided = (tokenizer.decode(none, steps=2, guidance=g, normalised=normalised) for g in (1.0, 4.0))
    torch.testing.assert_close(unguided, guided)


@pytest.mark.parametrize("form", ["flexible", "grid"])
def test_a_given_first_frame_comes_back_and_its_tokens_do_not_matter(flex, flex_clips, form):
    tokenizer = flex(decoder_mask="full", form=form)
    tokens, first = tokenizer.config.registers, flex_clips[:, :, :4]
    codes = tokenizer.encode(flex_clips, tokenizer.lengths(tokens, 2))
    made = tokenizer.decode(codes, steps=2, first=first)
    codec = tokenizer.codec
    torch.testing.assert_close(made[:, :, :4], codec.decode(codec.encode(first), 4).clamp(0, 1))
    without_first = torch.cat((torch.zeros(2, 1), torch.full((2, 2), tokens)), dim=1).long()
    rest = Codes(codes.codes[:, tokens:], without_first)
    assert torch.equal(made, tokenizer.decode(rest, steps=2, first=first))
    assert not torch.equal(made[:, :, 4:], tokenizer.decode(codes, steps=2, first=1 - first)[:, :, 4:])


def test_a_saved_tokenizer_codes_and_samples_as_before(flex, flex_clips, tmp_path):
    path = tmp_path / "flex.safetensors"
    save(flex(), path)
    tokenizer = VideoFlexTok.load(path)
    again = VideoFlexTok.load(path)
    assert tokenizer.checkpoint.kind == "videoflextok"
    assert tokenizer.config == flex().config
    codes = tokenizer.encode(flex_clips, tokenizer.lengths(2, 2))
    assert torch.equal(codes.codes, again.encode(flex_clips, codes.lengths).codes)
    assert torch.equal(tokenizer.decode(codes, steps=2), again.decode(codes, steps=2))


def test_another_codec_than_the_one_trained_on_is_refused(flex, moving_clips, tmp_path):
    tokenizer, path = flex(), tmp_path / "flex.safetensors"
    tokenizer.codec.load_state_dict(PatchPCA.fit(moving_clips(4, size=32)).state_dict())
    save(tokenizer, path)
    with pytest.raises(LatentError, match="pass the codec it was trained on"):
        VideoFlexTok.load(path)
    with pytest.raises(LatentError, match="is in the checkpoint"):
        VideoFlexTok.load(path, codec=tmp_path)


def test_a_tokenizer_of_vidtok_latents_asks_for_their_weights(flex, tmp_path):
    tokenizer, path = flex(), tmp_path / "flex.safetensors"
    config = {**tokenizer.config.to_dict(), "codec": "vidtok"}
    checkpoints.save(path, tokenizer, kind="videoflextok", config=config)
    with pytest.raises(LatentError, match="pass the folder of its weights"):
        VideoFlexTok.load(path)


def test_a_checkpoint_of_another_kind_is_refused(tokenizer, tmp_path):
    path = tmp_path / "other.safetensors"
    checkpoints.save(path, tokenizer, kind="tokenizer", config=tokenizer.config.to_dict())
    with pytest.raises(CheckpointError, match="kind 'tokenizer' where 'videoflextok' is expected"):
        VideoFlexTok.load(path)


def test_bad_clips_lengths_codes_and_frames_end_in_one_error_each(flex, flex_clips):
    tokenizer = flex()
    good = tokenizer.lengths(2, 2)
    codes = tokenizer.encode(flex_clips, good)
    wrong = {
        r"clips must be \(B, 3, 12, 32, 32\)": lambda: tokenizer.encode(flex_clips[:, :, :8], good),
        "between 0 and 4, got": lambda: tokenizer.lengths(5, 2),
        r"lengths must be integers \(B, 3\)": lambda: tokenizer.encode(flex_clips, good[:, :2]),
        "integers .* got torch.float32": lambda: tokenizer.encode(flex_clips, good.float()),
        "for all latent frames of a clip or for none": lambda: tokenizer.encode(
            flex_clips, torch.tensor([[2, 0, 2], [2, 2, 2]])
        ),
        "one row of lengths per clip": lambda: tokenizer.encode(flex_clips, good[:1]),
        "the lengths ask for": lambda: tokenizer.decode(Codes(codes.codes[:, 1:], good)),
        "the first frames must be": lambda: tokenizer.decode(codes, first=flex_clips[:, :, :1]),
    }
    for message, call in wrong.items():
        with pytest.raises(FlexTokError, match=message):
            call()
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 240\)"):
        tokenizer.decode(Codes(codes.codes + 240, good))
    with pytest.raises(FlowError, match="flow steps must be at least 1, got 0"):
        tokenizer.decode(codes, steps=0)
    with pytest.raises(FlexTokError, match="a grid cannot be truncated"):
        flex(form="grid").lengths(2, 1)


def test_weights_that_are_not_finite_end_in_an_error(flex, flex_clips):
    tokenizer = flex()
    codes = tokenizer.encode(flex_clips, tokenizer.lengths(1, 2))
    tokenizer.network.decoder.to_velocity.bias[0] = float("nan")
    with pytest.raises(FlowError, match="not finite"):
        tokenizer.decode(codes, steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "spiral"}, "form 'spiral' is not one of time-causal"),
        ({"decoder_mask": "none"}, "decoder_mask 'none' is not one of"),
        ({"frames": 14}, "clips of 14 frames"),
        ({"size": 20}, "the side must be a multiple of 16"),
        ({"form": "grid", "registers": 2}, "a grid has one token per patch: registers must be 4"),
        ({"alignment_layer": 3}, r"alignment_layer must be between 1 and 2, got 3"),
    ],
)
def test_shapes_that_cannot_be_are_refused(flex, changes, message):
    with pytest.raises((FlexTokError, LatentError), match=message):
        flex(**changes)


def test_a_configuration_survives_json(flex):
    config = flex().config
    assert VideoFlexTokConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# Sizes


def parameters(module, *names: str) -> int:
    """Parameters of a stack's blocks, without modulation."""
    return sum(p.numel() for name, p in module.named_parameters() if not any(part in name for part in names))


@pytest.mark.parametrize(
    ("size", "encoder", "decoder"), [("paper-d12", 84.9, 84.9), ("paper", 286.7, 286.7), ("paper-d28", 286.7, 1079.0)]
)
def test_the_papers_stacks_have_the_papers_parameters(size, encoder, decoder):
    with torch.device("meta"):
        config = VIDEOFLEXTOK_SIZES[size]
        encoding, decoding = RegisterEncoder(config), FlowDecoder(config)
    assert parameters(encoding.layers) == pytest.approx(encoder * 1e6, rel=0.01)
    assert parameters(decoding.layers, "modulation") == pytest.approx(decoder * 1e6, rel=0.01)
    if size == "paper-d28":
        modulation = parameters(decoding.layers) - parameters(decoding.layers, "modulation")
        assert modulation == pytest.approx(1.08e9, rel=0.01)


def test_the_papers_geometry_gives_the_papers_tokens():
    for size in ("paper", "paper-d28"):
        config = VIDEOFLEXTOK_SIZES[size]
        assert (config.blocks, config.patches, config.registers) == (5, 256, 256)
        assert config.kept_levels == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert VIDEOFLEXTOK_SIZES["paper-d28"].patch_values == 64
    assert VIDEOFLEXTOK_SIZES["toy"].patches == VIDEOFLEXTOK_SIZES["toy"].registers == 16


# Nested dropout


def drawn(draw: str, per: str = "clip", tokens: int = 16, clips: int = 4000) -> torch.Tensor:
    return NestedDropout(tokens, 3, draw, per).lengths(clips, torch.Generator().manual_seed(0))


def test_nested_dropout_draws_what_its_name_says():
    assert drawn("all").unique().tolist() == [16]
    assert drawn("uniform").unique().tolist() == list(range(1, 17))
    powers, rounded = drawn("powers")[:, 0], drawn("rounded")[:, 0]
    assert powers.unique().tolist() == rounded.unique().tolist() == [1, 2, 4, 8, 16]
    assert (powers == 16).float().mean() == pytest.approx(1 / 5, abs=0.03)
    assert (rounded == 16).float().mean() == pytest.approx(8 / 16, abs=0.03)
    assert drawn("powers", tokens=12).unique().tolist() == [1, 2, 4, 8, 12]
    assert drawn("rounded", tokens=12).unique().tolist() == [1, 2, 4, 8, 12]


def test_a_draw_is_shared_by_the_batch_the_clip_or_the_frame():
    assert len(drawn("uniform", "batch").unique()) == 1
    clip, frame = drawn("uniform", "clip"), drawn("uniform", "frame")
    assert (clip == clip[:, :1]).all()
    assert len(clip[:, 0].unique()) == 16
    assert not (frame == frame[:, :1]).all()


def test_unknown_draws_are_refused():
    with pytest.raises(FlexTokError, match="draw 'gauss' is not one of"):
        NestedDropout(4, 3, "gauss")
    with pytest.raises(FlexTokError, match="per 'pixel' is not one of"):
        NestedDropout(4, 3, per="pixel")


def test_pooled_registers_start_from_their_own_frame(flex, latents):
    config = replace(flex().config, pooled=False)
    assert FlexNetwork(config).encoder.pyramid is None
    pooling = flex().network.encoder.pyramid
    assert pooling.shape == (4, 4)
    torch.testing.assert_close(pooling.sum(1), torch.ones(4))
    flat = flex(form="flat").network.encoder.pyramid
    assert flat.shape == (12, 12)
