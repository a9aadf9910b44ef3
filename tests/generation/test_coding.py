"""Codes of clip sets: the same as coding each clip alone, made once, and resumed where they stopped."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import evatok
from evatok.assignments.rules import Fixed, Rule
from evatok.data.clips import ClipSet, to_network
from evatok.generation import code_cache
from evatok.generation.code_cache import CodedSet, CodingError, code_set, labels_of, variants_of_epoch
from evatok.storage.shards import ShardStore
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import AdaptiveTokenizer

LEVELS = (2, 4, 8)


@pytest.fixture
def pixels(moving_clips) -> np.ndarray:
    """Seven clips for the tiny tokenizer."""
    return moving_clips(7, frames=12, size=16)


@pytest.fixture
def store(tmp_path) -> ShardStore:
    return ShardStore(tmp_path / "codes")


def by_brightness(clips: torch.Tensor) -> torch.Tensor:
    """Levels that differ from clip to clip and from block to block."""
    digits = (clips.mean((1, 3, 4)).unflatten(1, (3, -1)).mean(2) * 1000).long() % 3
    return torch.tensor(LEVELS)[digits]


class ByBrightness(Rule):
    def __init__(self, name: str = "by brightness"):
        super().__init__({"assignment": name})

    def __call__(self, clips, numbers=None, generator=None):
        return by_brightness(clips)


RULE = ByBrightness()


class Counting:
    """A coder that counts the clips it codes, and may die after so many."""

    def __init__(self, tokenizer: AdaptiveTokenizer, sha256: str = "0" * 64, *, rule: Rule = RULE, dies_after: int = 0):
        plain = code_cache.clip_coder(tokenizer, sha256, rule)
        self.coder = dataclasses.replace(plain, encode=self.encode)
        self.plain, self.dies_after, self.clips = plain, dies_after, 0

    def encode(self, clips: torch.Tensor) -> Codes:
        if self.dies_after and self.clips >= self.dies_after:
            raise KeyboardInterrupt
        self.clips += len(clips)
        return self.plain.encode(clips)


# The same codes


def test_codes_are_those_of_each_clip_alone_plain_and_mirrored(tokenizer, pixels, store):
    coded = code_set(Counting(tokenizer).coder, pixels, mirrored=True, store=store, batch=3, shard_length=4)
    assert (len(coded), coded.variants) == (7, 2)
    for variant, seen in enumerate((pixels, pixels[:, :, :, ::-1])):
        lengths = by_brightness(to_network(seen))
        assert len(lengths.sum(1).unique()) > 1
        for clip in range(7):
            alone = tokenizer.encode(to_network(seen[clip : clip + 1]), lengths[clip : clip + 1])
            found = coded.batch(np.array([clip]), variant)
            assert torch.equal(found.lengths, alone.lengths)
            assert torch.equal(found.codes, alone.codes)


@functools.cache
def numbered(seed: int) -> CodedSet:
    """Codes that count up from 0 over six clips in two variants."""
    lengths = np.random.default_rng(seed).choice(LEVELS, (2, 6, 3)).astype(np.int32)
    return CodedSet(np.arange(lengths.sum(), dtype=np.int32), lengths)


@given(seed=st.integers(0, 3), pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=8))
def test_a_batch_holds_its_clips_packed_left_in_their_variants(seed, pairs):
    coded = numbered(seed)
    rows, variants = np.array(pairs).T
    codes = coded.batch(rows, variants)
    totals = codes.lengths.sum(1).tolist()
    assert codes.codes.shape == (len(rows), max(totals))
    for i, (row, variant) in enumerate(pairs):
        before = coded.lengths[:variant].sum() + coded.lengths[variant, :row].sum()
        assert codes.codes[i, : totals[i]].tolist() == list(range(before, before + totals[i]))
        assert not codes.codes[i, totals[i] :].any()
        assert codes.lengths[i].tolist() == coded.lengths[variant, row].tolist()


def test_tokens_a_clip_are_counted_over_both_variants():
    coded = numbered(0)
    assert coded.mean_tokens == pytest.approx(len(coded.codes) / 12)


@pytest.mark.parametrize(("rows", "variant"), [([6], 0), ([-1], 0), ([0], 1), ([0], 2), ([], 0)])
def test_clips_and_variants_that_there_are_not_are_refused(rows, variant):
    plain = CodedSet(numbered(0).codes, numbered(0).lengths[:1])
    with pytest.raises(CodingError, match="6 coded clips in 1 variants"):
        plain.batch(np.array(rows, dtype=int), variant)


# Made once


def test_codes_are_made_once_and_a_longer_set_takes_those_of_the_shorter(tokenizer, pixels, store):
    first, again, longer = (Counting(tokenizer) for _ in range(3))
    made = code_set(first.coder, pixels[:6], mirrored=True, store=store, shard_length=3)
    assert first.clips == 12
    found = code_set(again.coder, pixels[:6], mirrored=True, store=store, shard_length=3)
    assert again.clips == 0
    assert np.array_equal(made.codes, found.codes)
    code_set(longer.coder, pixels, mirrored=True, store=store, shard_length=3)
    assert longer.clips == 2


def test_an_interrupted_coding_goes_on_where_it_stopped(tokenizer, pixels, store):
    with pytest.raises(KeyboardInterrupt):
        code_set(Counting(tokenizer, dies_after=4).coder, pixels, mirrored=False, store=store, batch=2, shard_length=2)
    rest = Counting(tokenizer)
    done = []
    code_set(rest.coder, pixels, mirrored=False, store=store, batch=2, shard_length=2, tick=done.append)
    assert rest.clips == 3
    assert done == [2, 2, 2, 1]


def test_another_tokenizer_or_rule_makes_codes_of_its_own(tokenizer, pixels, store):
    code_set(Counting(tokenizer).coder, pixels, mirrored=False, store=store)
    others = [
        Counting(tokenizer, "1" * 64),
        Counting(tokenizer, rule=ByBrightness("another")),
        Counting(tokenizer, rule=Fixed(tokenizer.config.candidates, [4])),
    ]
    for other in others:
        code_set(other.coder, pixels, mirrored=False, store=store)
        assert other.clips == 7


def test_codes_lie_in_the_cache_unless_told_otherwise(tokenizer, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    code_set(Counting(tokenizer).coder, pixels, mirrored=False)
    assert len(list((tmp_path / "cache" / "codes").glob("*.safetensors"))) == 1


def test_every_module_that_codes_come_from_is_part_of_their_key():
    folder = Path(evatok.__file__).parent
    for name in code_cache.DECIDING:
        code = (folder / name).read_text()
        for room, module in re.findall(r"^from evatok\.(models|routing|tokenizers)\.(\w+) import", code, re.MULTILINE):
            assert f"{room}/{module}.py" in code_cache.DECIDING, f"{name} imports it"


# Which variant an epoch takes


@given(count=st.integers(1, 50), epoch=st.integers(0, 9), seed=st.integers(0, 9))
def test_variants_depend_on_seed_and_epoch_alone_as_the_rule_says(count, epoch, seed):
    chosen = variants_of_epoch(count, epoch, seed, flip=True)
    drawn = np.random.default_rng(np.random.SeedSequence([seed, epoch, 2])).random(count)
    assert np.array_equal(chosen, (drawn < 0.5).astype(int))
    assert not variants_of_epoch(count, epoch, seed, flip=False).any()
    assert "SeedSequence([seed, e, 2])" in code_cache.VARIANTS_RULE


def test_epochs_take_about_half_of_the_clips_mirrored_and_not_the_same_ones():
    first, second = (variants_of_epoch(1000, epoch, 0, flip=True) for epoch in (0, 1))
    assert 440 < first.sum() < 560
    assert 400 < (first != second).sum() < 600


# Labels


def labelled(**columns: list[str]) -> ClipSet:
    labels = pd.DataFrame(columns)
    return ClipSet(np.zeros((len(labels), 1, 2, 2, 3), np.uint8), labels, {"name": "made", "sha256": "0"}, Path())


def test_labels_are_the_column_or_the_last_of_several_that_a_clip_has():
    clips = labelled(motion=["walk", "upfire"], game=["", "pong"])
    assert labels_of(clips, "motion").tolist() == ["walk", "upfire"]
    assert labels_of(clips, "motion+game").tolist() == ["walk", "pong"]


def test_a_set_without_the_column_or_a_clip_without_a_word_is_refused():
    with pytest.raises(CodingError, match="clip set made has no label column 'motion': set label to one of source"):
        labels_of(labelled(source=["a"]), "motion")
    with pytest.raises(CodingError, match="clip 1 and 1 others have no game"):
        labels_of(labelled(game=["pong", "", ""]), "game")
