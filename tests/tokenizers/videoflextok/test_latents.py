"""Latent codecs: frame rules, inversion, and a codec's identity."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from evatok.data.clips import to_network
from evatok.metrics.pixels import psnr
from evatok.models.latents import LatentError, PatchPCA, VidTok, latent_frames
from evatok.storage import checkpoints

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")


@pytest.fixture
def codec(moving_clips) -> PatchPCA:
    return PatchPCA.fit(moving_clips(8, size=32))


def clips_of(moving_clips, frames: int) -> torch.Tensor:
    return to_network(moving_clips(3, frames=frames, size=32, seed=5))


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (4, 1), (5, 2), (16, 4), (17, 5), (81, 21)])
def test_latent_frames_of_clips_with_and_without_a_causal_first_frame(frames, expected):
    assert latent_frames(frames) == expected


@pytest.mark.parametrize("frames", [0, 2, 3, 6, 18, 19])
def test_other_numbers_of_frames_are_refused_with_the_nearest_that_serve(frames):
    with pytest.raises(LatentError, match="take a multiple of 4, or one more"):
        latent_frames(frames)


@pytest.mark.parametrize("frames", [16, 17, 1])
def test_clips_come_back_in_their_shape_and_near_their_values(codec, moving_clips, frames):
    real = clips_of(moving_clips, frames)
    latents = codec.encode(real)
    assert latents.shape == (3, latent_frames(frames), 4, 4, 16)
    made = codec.decode(latents, frames)
    assert made.shape == real.shape
    flat = real.mean(dim=(2, 3, 4), keepdim=True).expand_as(real)
    assert psnr(real, made.clamp(0, 1)).mean() > psnr(real, flat).mean() + 5


def test_encoding_what_was_decoded_returns_the_latents(codec, moving_clips):
    latents = codec.encode(clips_of(moving_clips, 16))
    torch.testing.assert_close(codec.encode(codec.decode(latents, 16)), latents, rtol=0, atol=1e-4)


def test_latents_of_the_clips_fitted_to_have_a_mean_square_near_one(moving_clips):
    clips = moving_clips(8, size=32)
    square = PatchPCA.fit(clips).encode(to_network(clips)).square().mean()
    assert square == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("changed", [0, 1, 3, 4])
def test_the_codec_is_causal_per_latent_frame(codec, moving_clips, changed):
    clips = clips_of(moving_clips, 17)
    other = clips.clone()
    first, stop = (0, 1) if changed == 0 else (4 * changed - 3, 4 * changed + 1)
    other[:, :, first:stop] = 1 - other[:, :, first:stop]
    differs = (codec.encode(clips) != codec.encode(other)).flatten(2).any(2).all(0)
    assert differs.tolist() == [frame == changed for frame in range(5)]


def test_a_causal_first_frame_is_the_same_alone_and_in_its_clip(codec, moving_clips):
    clips = clips_of(moving_clips, 17)
    assert torch.equal(codec.encode(clips[:, :, :1])[:, 0], codec.encode(clips)[:, 0])


def test_identity_survives_a_checkpoint_in_half_precision_and_tells_codecs_apart(codec, moving_clips, tmp_path):
    path = tmp_path / "codec.safetensors"
    checkpoints.save(path, codec, kind="latents", config={}, dtype=torch.float16)
    again = PatchPCA()
    checkpoints.load(path, "latents").fill(again)
    assert again.identity() == codec.identity()
    assert PatchPCA.fit(moving_clips(8, size=32, seed=1)).identity() != codec.identity()
    clips = clips_of(moving_clips, 16)
    assert torch.equal(again.encode(clips), codec.encode(clips))


def test_latents_that_decode_to_no_such_clips_are_refused(codec):
    latents = torch.zeros(1, 4, 2, 2, 16)
    with pytest.raises(LatentError, match="4 latent frames decode to 16 frames, or to 13"):
        codec.decode(latents, 17)
    with pytest.raises(LatentError, match=r"\(B, T, h, w, 16\)"):
        codec.decode(latents[..., :8], 16)
    with pytest.raises(LatentError, match="multiples of 8"):
        codec.encode(torch.zeros(1, 3, 16, 20, 20))


def test_too_few_patches_are_refused(moving_clips):
    with pytest.raises(LatentError, match="4 patches cannot give 16"):
        PatchPCA.fit(moving_clips(1, frames=4, size=16))


# VidTok


def test_vidtok_weights_of_an_unsaid_or_old_version_are_refused(tmp_path):
    with pytest.raises(LatentError, match=r"no evatok\.json"):
        VidTok.load(tmp_path)
    (tmp_path / "evatok.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(LatentError, match=r"version '1\.0'; only 1\.1"):
        VidTok.load(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is not None, reason="diffusers is installed")
def test_without_diffusers_the_way_out_is_named(tmp_path):
    (tmp_path / "evatok.json").write_text(json.dumps({"version": "1.1"}))
    with pytest.raises(ImportError, match="pip install 'diffusers"):
        VidTok.load(tmp_path)


@pytest.fixture
def vidtok_folder(tmp_path):
    """A tiny random network of VidTok's architecture, as a user would have the real one."""
    from diffusers import AutoencoderVidTok

    torch.manual_seed(0)
    AutoencoderVidTok(ch=32, ch_mult=[1, 1, 1, 1], num_res_blocks=1, z_channels=16).save_pretrained(tmp_path)
    (tmp_path / "evatok.json").write_text(json.dumps({"version": "1.1"}))
    return tmp_path


@needs_diffusers
@pytest.mark.slow
def test_vidtok_codes_both_frame_rules_and_stays_out_of_checkpoints(vidtok_folder, moving_clips):
    codec = VidTok.load(vidtok_folder)
    assert codec.stride == (4, 8, 8)
    assert set(codec.state_dict()) == {"mean", "deviation"}
    codec.standardise(clips_of(moving_clips, 17))
    for frames in (16, 17):
        real = clips_of(moving_clips, frames)
        latents = codec.encode(real)
        assert latents.shape == (3, latent_frames(frames), 4, 4, 16)
        assert codec.decode(latents, frames).shape == real.shape
    assert codec.encode(clips_of(moving_clips, 17)).flatten(0, 3).std(0) == pytest.approx(1.0, abs=1e-2)
    assert codec.identity() == VidTok.load(vidtok_folder).identity()


@needs_diffusers
@pytest.mark.slow
def test_vidtok_gives_the_networks_own_reconstruction(vidtok_folder, moving_clips):
    codec, real = VidTok.load(vidtok_folder), clips_of(moving_clips, 17)
    own = codec._network[0](real * 2 - 1, sample_posterior=False).sample / 2 + 0.5
    torch.testing.assert_close(codec.decode(codec.encode(real), 17), own)


@needs_diffusers
@pytest.mark.slow
def test_vidtok_weights_that_cannot_be_read_are_refused(vidtok_folder):
    for path in vidtok_folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LatentError, match="its weights cannot be read"):
        VidTok.load(vidtok_folder)
