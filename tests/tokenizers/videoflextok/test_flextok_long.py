"""Long clips in chunks: how many tokens, what is given, and whether seams show."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.experiments import videoflextok_long
from evatok.experiments.tracking import ConfigError
from evatok.storage import checkpoints, records
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, FlexTokError
from evatok.tokenizers.videoflextok.long import chunk_starts, decode_long, encode_long, seam_ratio, seams


@pytest.fixture
def long_clips() -> torch.Tensor:
    """Two clips of 28 frames: three chunks of 12 that share 4."""
    return torch.rand(2, 3, 28, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_papers_81_frames_take_672_tokens_at_32_per_latent_frame():
    config = VIDEOFLEXTOK_SIZES["paper"]
    starts = chunk_starts(config, 81)
    assert starts == [0, 16, 32, 48, 64]
    latent_frames = config.blocks + (len(starts) - 1) * (config.blocks - 1)
    assert (latent_frames, latent_frames * 32, latent_frames * config.registers) == (21, 672, 5376)


def test_chunks_of_whole_latent_frames_share_one_too(flex):
    assert chunk_starts(VIDEOFLEXTOK_SIZES["toy"], 64) == [0, 12, 24, 36, 48]
    assert seams(VIDEOFLEXTOK_SIZES["toy"], 64) == [16, 28, 40, 52]


@pytest.mark.parametrize("frames", [11, 13, 27])
def test_clips_that_chunks_do_not_fill_are_refused_with_lengths_that_serve(flex, frames):
    with pytest.raises(FlexTokError, match=r"take 12 \+ 8 n frames"):
        chunk_starts(flex().config, frames)


def test_conditioned_chunks_need_the_tokens_of_shared_frames_once(flex, long_clips):
    tokenizer = flex(decoder_mask="full")
    shared, alone = (encode_long(tokenizer, long_clips, 2, conditioned=given) for given in (True, False))
    assert shared.tokens.tolist() == [2 * (3 + 2 + 2)] * 2
    assert alone.tokens.tolist() == [2 * 9] * 2
    for codes in (shared, alone):
        assert decode_long(tokenizer, codes, steps=1).shape == long_clips.shape


def test_a_chunk_is_given_what_the_one_before_generated(flex, long_clips):
    tokenizer = flex(decoder_mask="full")
    codes = encode_long(tokenizer, long_clips, 2)
    made = decode_long(tokenizer, codes, steps=2)
    other = long_clips.clone()
    other[:, :, :12] = 1 - other[:, :, :12]
    changed = encode_long(tokenizer, other, 2)
    # The first chunk alone is another one; the last chunk's own codes are the same.
    assert torch.equal(codes.chunks[2].codes, changed.chunks[2].codes)
    assert not torch.equal(made[:, :, 20:], decode_long(tokenizer, changed, steps=2)[:, :, 20:])
    apart, again = (encode_long(tokenizer, clips, 2, conditioned=False) for clips in (long_clips, other))
    before, after = (decode_long(tokenizer, codes, steps=2) for codes in (apart, again))
    assert torch.equal(before[:, :, 20:], after[:, :, 20:])


def test_flat_tokens_cannot_be_left_out(flex, long_clips):
    with pytest.raises(FlexTokError, match="belong to no latent frame"):
        encode_long(flex(form="flat"), long_clips, 2)


def test_the_seam_ratio_is_1_for_even_motion_and_more_for_jumps():
    steps = torch.arange(28.0)[None, None, :, None, None] / 100
    even = steps.expand(1, 3, 28, 4, 4).clone()
    assert seam_ratio(even, [12, 20]).item() == pytest.approx(1.0, abs=1e-4)
    even[:, :, 12:] += 0.02
    assert seam_ratio(even, [12]).item() == pytest.approx(3.0, abs=1e-3)
    assert seam_ratio(torch.zeros(1, 3, 28, 4, 4), [12]).isnan().all()


@pytest.mark.usefixtures("runs")
def test_the_experiment_records_seams_with_and_without_the_frame_before(flex, tmp_path, moving_clips):
    tokenizer, path = flex(decoder_mask="full"), tmp_path / "flex.safetensors"
    checkpoints.save(path, tokenizer, kind="videoflextok", config=tokenizer.config.to_dict(), dtype=torch.float16)
    labels = pd.DataFrame({"source": ["made"] * 3})
    clip_sets.save(tmp_path / "clips", moving_clips(3, frames=28, size=32), labels, {"name": "gratings", "seed": 0})
    usual = {"tokenizer": str(path), "data": str(tmp_path / "clips"), "frames": 28, "clips": 3, "kept": [1, 2]}
    places = {"records_folder": str(tmp_path / "records"), "flow_steps": 1, "threads": 1, "batch": 2, "bf16": False}
    run = videoflextok_long.ex.run(config_updates={**usual, **places})
    record = records.read(tmp_path / "records" / f"{run.result['record']}.json")
    assert record.protocol["seams"] == [12, 20]
    assert record.metrics["tokens_k2_conditioned"].value == 14
    assert record.metrics["tokens_k2_alone"].value == 18
    names = {f"seam_ratio_k{tokens}_{mode}" for tokens in (1, 2) for mode in ("conditioned", "alone")}
    assert names | {"seam_ratio_real"} <= set(record.metrics)
    with pytest.raises(ConfigError, match="12 frames are a single chunk"):
        videoflextok_long.ex.run(config_updates={**usual, **places, "frames": 12})
