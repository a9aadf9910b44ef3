"""What Figures 5 and 8 show of generators on VideoFlexTok's codes: growing prefixes, and long clips in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.experiments import (
    stage5_generator,
    videoflextok_growing,
    videoflextok_long_samples,
    videoflextok_shown,
)
from evatok.experiments.tracking import ConfigError
from evatok.generation import samples
from evatok.generation.flex_codes import flex_coder
from evatok.generation.grammar import GrammarError
from evatok.generation.order import OrderedGrammar
from evatok.generation.sampling import Sampling
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.generation.video_generator import VideoGenerator
from evatok.pictures import stored
from evatok.storage import records
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok import FlexTokError, VideoFlexTok
from evatok.tokenizers.videoflextok.long import decode_long, encode_long, joined, parted
from tests.factories import FOUR_STEPS, ONE_LAYER, TINY_FLEX, places, saved_classifier, saved_videoflextok

LONG = 28
"""Frames of three chunks of 12 that share 4: seven latent frames."""
LABELS = ["idle", "walk", "turn", "idle", "turn", "walk"]


@pytest.fixture
def tokenizer(tmp_path) -> str:
    return saved_videoflextok(tmp_path / "flex.safetensors", decoder_mask="full")


@pytest.fixture
def train(tmp_path, monkeypatch, moving_clips, runs, tokenizer):
    """Trains a generator on gratings with motions: (frames of a clip, **changes) -> its checkpoint."""
    monkeypatch.setitem(GENERATOR_SIZES, "toy", ONE_LAYER)
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))

    def run(length: int, **changes: Any) -> str:
        clips = moving_clips(6, frames=length, size=TINY_FLEX.size)
        folder = tmp_path / f"clips-{length}"
        clip_sets.save(folder, clips, pd.DataFrame({"motion": LABELS}), {"name": "gratings"})
        inputs = {"data": str(folder), "tokenizer": tokenizer, "validation_clips": 2, "train_clips": 4, "bf16": False}
        given = {**FOUR_STEPS, **inputs, **places(tmp_path / "one", "generator.safetensors"), "batch": 2, **changes}
        return str(stage5_generator.ex.run(config_updates={**given, "steps": 2}).result["checkpoint"])

    return run


@pytest.fixture
def written(tmp_path, tokenizer):
    """Settings that an experiment of samples writes with, and its record: (experiment, **changes) -> the record."""

    def run(experiment: Any, **changes: Any) -> records.Record:
        usual = {"tokenizer": tokenizer, "flow_steps": 1, "threads": 1, "work": str(tmp_path / "drawn")}
        files = {"records_folder": str(tmp_path / "records"), "shown": str(tmp_path / "shown.npz")}
        given = {key: value for key, value in {**usual, **files, **changes}.items() if value is not None}
        made = experiment.ex.run(config_updates=given)
        return records.read(tmp_path / "records" / f"{made.result['record']}.json")

    return run


def test_a_long_clip_is_one_sequence_and_comes_apart_as_it_was(tokenizer):
    tokenizer = VideoFlexTok.load(tokenizer)
    clips = torch.rand(2, 3, LONG, 32, 32, generator=torch.Generator().manual_seed(0))
    chunks = encode_long(tokenizer, clips, 2)
    whole = joined(chunks)
    assert whole.lengths.tolist() == [[2] * 7] * 2
    grammar = OrderedGrammar.of(tokenizer.config, "time-first", frames=LONG, most=2)
    again = parted(tokenizer.config, grammar.parse(grammar.build(whole)))
    for one, other in zip(chunks.chunks, again.chunks, strict=True):
        assert torch.equal(one.codes, other.codes)
        assert torch.equal(one.lengths, other.lengths)
    assert torch.equal(decode_long(tokenizer, chunks, steps=1), decode_long(tokenizer, again, steps=1))
    with pytest.raises(FlexTokError, match="conditioned=True"):
        joined(encode_long(tokenizer, clips, 2, conditioned=False))
    with pytest.raises(FlexTokError, match="4 latent frames"):
        parted(tokenizer.config, Codes(whole.codes[:, :8], whole.lengths[:, :4]))
    with pytest.raises(GrammarError, match="4 tokens per latent frame, not 5"):
        OrderedGrammar.of(tokenizer.config, "time-first", most=5)


def test_frames_that_chunks_do_not_fill_are_refused_before_clips_are_made(tokenizer):
    with pytest.raises(FlexTokError, match=r"take 12 \+ 8 n frames"):
        flex_coder(VideoFlexTok.load(tokenizer), 2, frames=27)


def test_prefixes_of_one_sequence_are_what_stopping_early_draws(train, written, tokenizer, tmp_path):
    """The experiment draws once; a generator that stops by itself at 2 tokens writes the same clip."""
    generator = train(12)
    record = written(videoflextok_growing, generator=generator, kept=[1, 2], count=3, show=2)
    assert record.protocol["kept"] == [1, 2, TINY_FLEX.registers]
    assert set(record.metrics) == {"l1_k1", "l1_k2"}
    assert record.metrics["l1_k1"].spread is not None
    clips, captions = stored.load(tmp_path / "shown.npz")
    assert captions[:3] == [f"idle\n{word} per frame" for word in ("1 token", "2 tokens", "all tokens")]
    stopped = VideoGenerator.load(generator, tokenizer=tokenizer, kept=2)
    video = VideoGenerator.load(generator, tokenizer=tokenizer)
    seeds = [0, 1]
    whole, short = (each.generate([0, 1], seeds, Sampling()) for each in (video, stopped))
    assert torch.equal(videoflextok_growing.prefix(video.grammar, whole, 2).codes, short.codes)
    assert len(clips) == 2 * 3


def test_there_is_something_shorter_to_grow_from(train, written, monkeypatch):
    generator = train(12)
    monkeypatch.setattr(samples, "draw", lambda *_, **__: pytest.fail("it was drawn"))
    with pytest.raises(ConfigError, match="key kept: the generator writes 4 tokens per latent frame"):
        written(videoflextok_growing, generator=generator, kept=[TINY_FLEX.registers], count=2)


def test_only_orders_that_can_be_cut_grow(train, written):
    with pytest.raises(GrammarError, match="only time-first and flat ones can be cut"):
        written(videoflextok_growing, generator=train(12, order="depth-first"), kept=[1], count=2)


def test_a_generator_of_long_clips_is_measured_window_by_window(train, written, tmp_path):
    judge = saved_classifier(tmp_path / "classifier.safetensors", sorted(set(LABELS)), 12, TINY_FLEX.size)
    generator = train(LONG, frames=LONG, kept=2)
    usual = {"classifier": judge, "data": str(tmp_path / f"clips-{LONG}"), "count": 4, "show": 2}
    record = written(videoflextok_long_samples, generator=generator, **usual)
    assert record.metrics["mean_tokens"].value == 7 * 2
    assert record.model["grid_tokens"] == 7 * 4
    assert record.protocol["frames"] == LONG
    assert sum(record.model["requested"].values()) == 4
    assert record.model["requested"].keys() <= set(record.model["classes"])
    windows = {f"class_consistency_window{n}{which}" for n in (1, 2) for which in ("", "_real")}
    assert windows | {"seam_ratio", "seam_ratio_real", "mean_tokens"} == set(record.metrics)
    assert stored.load(tmp_path / "shown.npz")[0].shape == (2, LONG, TINY_FLEX.size, TINY_FLEX.size, 3)


def test_a_generator_of_single_chunks_has_no_seams(train, written, tmp_path):
    judge = saved_classifier(tmp_path / "classifier.safetensors", sorted(set(LABELS)), 12, TINY_FLEX.size)
    with pytest.raises(ConfigError, match="a single chunk without a seam"):
        written(videoflextok_long_samples, generator=train(12), classifier=judge)


@pytest.mark.usefixtures("runs")
def test_reconstructions_stand_beside_their_clip_from_few_tokens_to_many(written, moving_clips, tmp_path):
    clips = moving_clips(2, frames=12, size=TINY_FLEX.size)
    clip_sets.save(tmp_path / "clips", clips, pd.DataFrame({"source": ["made"] * 2}), {"name": "gratings"})
    record = written(videoflextok_shown, data=str(tmp_path / "clips"), clips=2, kept=[4, 0, 1], bf16=False, work=None)
    assert set(record.metrics) == {"psnr_k0", "psnr_k1", "psnr_k4"}
    found, captions = stored.load(tmp_path / "shown.npz")
    told = ("real", "0 tokens per frame", "1 token per frame", "4 tokens per frame")
    assert captions[:4] == [f"clip 0\n{words}" for words in told]
    assert np.array_equal(found[4], clips[1])


def test_clips_with_captions_are_read_as_they_were_written_and_nothing_else_is(tmp_path, moving_clips):
    clips = moving_clips(2, frames=4, size=16)
    path = stored.save(tmp_path / "some.npz", clips, ["one", "two"])
    found, captions = stored.load(path)
    assert np.array_equal(found, clips)
    assert captions == ["one", "two"]
    Path(tmp_path / "torn.npz").write_bytes(path.read_bytes()[:100])
    np.savez(tmp_path / "other.npz", clips=clips, captions=np.array('["one"]'))
    for name in ("torn", "other"):
        with pytest.raises(stored.StoredClipsError, match=name):
            stored.load(tmp_path / f"{name}.npz")
