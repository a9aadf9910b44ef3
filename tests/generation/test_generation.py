"""A generator in use: tied to its tokenizer, reproducible by seed, and blind to what it was not given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evatok.data.clips import to_network
from evatok.generation import conditions
from evatok.generation.conditions import GIVEN, GenerationError, condition_codes, condition_symbols
from evatok.generation.grammar import Grammar
from evatok.generation.samples import SampleRequest, sample_seed
from evatok.generation.sampling import Sampling
from evatok.generation.video_generator import VideoGenerator
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint, CheckpointError
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer
from tests.factories import small_generator

CLASSES = ("left", "right", "still")
PREFIX = (8, 4)
HOW = Sampling()


def a_generator(tokenizer: AdaptiveTokenizer, task: str) -> VideoGenerator:
    """An untrained generator of either task."""
    grammar = Grammar.of(tokenizer.config)
    framed = task == "frames"
    prefix = PREFIX if framed else ()
    module = small_generator(
        grammar, classes=0 if framed else len(CLASSES), condition=conditions.condition_length(prefix)
    )
    empty = Checkpoint("generator", {}, {}, {}, {}, "0" * 64)
    return VideoGenerator(module, grammar, tokenizer, empty, task, () if framed else CLASSES, prefix)


@pytest.fixture
def by_class(tokenizer) -> VideoGenerator:
    return a_generator(tokenizer, "class")


@pytest.fixture
def by_frames(tokenizer) -> VideoGenerator:
    return a_generator(tokenizer, "frames")


@pytest.fixture
def pixels(moving_clips) -> np.ndarray:
    """Five clips for the tiny tokenizer."""
    return moving_clips(5, frames=12, size=16)


def same(one: Codes, other: Codes) -> bool:
    return torch.equal(one.codes, other.codes) and torch.equal(one.lengths, other.lengths)


# Class to video


def test_classes_have_numbers_and_an_unknown_one_is_told_the_known(by_class):
    assert [by_class.class_index(name) for name in CLASSES] == [0, 1, 2]
    with pytest.raises(GenerationError, match="unknown class 'up'; known ones: left, right, still"):
        by_class.class_index("up")


def test_clips_are_legal_and_depend_on_class_and_seed_alone(by_class):
    classes, seeds = [0, 1, 2, 0, 1], [5, 6, 7, 8, 6]
    done = []
    together = by_class.generate(classes, seeds, HOW, tick=done.append)
    assert sum(done) == 5
    by_class.grammar.build(together)  # raises for anything illegal
    assert len(together.lengths.sum(1).unique()) > 1
    assert same(by_class.generate(classes, seeds, HOW, batch=2), together)
    assert same(by_class.generate(classes, seeds, HOW, cached=False), together)
    assert torch.equal(together.lengths[1], together.lengths[4])
    assert not same(by_class.generate(classes, [s + 10 for s in seeds], HOW), together)


def test_pixels_of_codes_come_in_the_order_of_the_codes(by_class):
    codes = by_class.generate([0] * 5, range(5), HOW)
    clips = by_class.clips(codes, batch=2)
    assert (clips.shape, clips.dtype) == ((5, 12, 16, 16, 3), np.uint8)
    whole = by_class.tokenizer.decode(codes)
    assert np.abs(to_network(clips).numpy() - whole.numpy()).max() <= 0.5 / 255 + 1e-5


def test_class_numbers_and_seeds_must_fit(by_class, pixels):
    with pytest.raises(GenerationError, match="class index out of range: must be 0 to 2"):
        by_class.generate([0, 3], [0, 1], HOW)
    with pytest.raises(GenerationError, match="1 seeds for 2 clips"):
        by_class.generate([0, 1], [0], HOW)
    with pytest.raises(GenerationError, match="trained for the task 'class', not for 'frames'"):
        by_class.predict(pixels, range(5), HOW)


def test_weights_in_bfloat16_are_a_copy_that_writes_legal_clips(by_class):
    rounded = by_class.in_bf16()
    assert {weight.dtype for weight in rounded.module.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in by_class.module.parameters()} == {torch.float32}
    request = SampleRequest(by_class, 3, [0, 1, 2], None, 5, HOW, bf16=True)
    codes = request.draw(0, 3)
    by_class.grammar.build(codes)  # raises for anything illegal
    seeds = [sample_seed(5, number) for number in range(3)]
    assert same(codes, rounded.generate([0, 1, 2], seeds, HOW))


# Frame prediction


def test_predictions_see_the_given_frames_and_nothing_else(by_frames, pixels):
    seeds = range(5)
    found = by_frames.predict(pixels, seeds, HOW)
    by_frames.grammar.build(found)
    assert (found.lengths[:, :2] == torch.tensor(PREFIX)).all()
    blackened = pixels.copy()
    blackened[:, GIVEN:] = 0
    assert same(by_frames.predict(blackened, seeds, HOW, batch=2), found)
    blackened[:, GIVEN - 1] = 0
    assert not torch.equal(
        condition_codes(by_frames.tokenizer, to_network(blackened), PREFIX).codes,
        condition_codes(by_frames.tokenizer, to_network(pixels), PREFIX).codes,
    )
    with pytest.raises(GenerationError, match="task 'frames', not for 'class'"):
        by_frames.generate([0], [0], HOW)


def test_a_condition_is_the_given_frames_with_the_last_repeated_to_whole_blocks(tokenizer, pixels):
    clips = to_network(pixels)
    padded = clips.clone()
    padded[:, :, GIVEN:8] = clips[:, :, GIVEN - 1 : GIVEN]
    padded[:, :, 8:] = 0.3  # what follows leaves no trace
    whole = tokenizer.encode(padded, torch.tensor([[8, 4, 8]]).expand(5, -1))
    found = condition_codes(tokenizer, clips, PREFIX)
    assert torch.equal(found.codes, whole.codes[:, :12])
    assert found.lengths.tolist() == [[8, 4]] * 5


def test_a_condition_is_said_as_the_grammar_says_blocks(tokenizer, clips):
    grammar = Grammar.of(tokenizer.config)
    codes = condition_codes(tokenizer, clips, PREFIX)
    symbols = condition_symbols(codes, grammar)
    assert symbols.shape == (4, conditions.condition_length(PREFIX)) == (4, 14)
    assert (symbols[:, 0] == grammar.codebook_size + 2).all()
    assert (symbols[:, 9] == grammar.codebook_size + 1).all()
    assert torch.equal(torch.cat([symbols[:, 1:9], symbols[:, 10:]], 1), codes.codes)


def test_the_condition_takes_the_longest_and_the_middle_level_or_the_fixed_row(tokenizer, tiny):
    assert conditions.condition_prefix(tiny, None) == (8, 4)
    assert conditions.condition_prefix(tiny, (2, 2, 2)) == (2, 2)


def test_the_condition_scaled_either_way_is_the_paper_s_at_the_paper_s_levels(tiny):
    paper = TOKENIZER_SIZES["paper"]
    assert conditions.condition_prefix(paper, None) == (512, 128)
    assert conditions.condition_prefix(paper, None, beside=256) == (512, 128)
    assert conditions.condition_prefix(tiny, None, beside=4) == (8, 2)
    assert conditions.condition_prefix(tiny, None, beside=8) == (8, 4), "there is no level above"


@pytest.mark.parametrize("prefix", [(8,), (8, 5), (8, 4, 2)])
def test_a_prefix_that_does_not_fit_is_refused(tokenizer, clips, prefix):
    with pytest.raises(GenerationError, match=r"5 given frames need 2 blocks of levels \(2, 4, 8\)"):
        condition_codes(tokenizer, clips, prefix)


# Checkpoints


def saved(folder: Path, tokenizer: AdaptiveTokenizer) -> tuple[Path, Path]:
    """Checkpoints of an untrained generator and its tokenizer."""
    sha256 = checkpoints.save(
        folder / "tokenizer.safetensors", tokenizer, kind="tokenizer", config=tokenizer.config.to_dict()
    )
    module = small_generator(Grammar.of(tokenizer.config), classes=3)
    checkpoints.save(
        folder / "generator.safetensors",
        module,
        kind="generator",
        config=module.config.to_dict(),
        parents={"tokenizer": sha256},
        facts={"task": "class", "classes": list(CLASSES), "prefix": []},
    )
    return folder / "generator.safetensors", folder / "tokenizer.safetensors"


def test_a_saved_generator_writes_what_it_wrote_before(tokenizer, by_class, tmp_path):
    path, its = saved(tmp_path, tokenizer)
    loaded = VideoGenerator.load(path, tokenizer=its)
    assert (loaded.task, loaded.classes, loaded.prefix) == ("class", CLASSES, ())
    assert same(loaded.generate([0, 1], [3, 4], HOW), by_class.generate([0, 1], [3, 4], HOW))


def test_a_generator_refuses_another_tokenizer_and_names_both(tokenizer, tmp_path):
    path, its = saved(tmp_path, tokenizer)
    torch.manual_seed(1)
    other = AdaptiveTokenizer(tokenizer.config)
    sha256 = checkpoints.save(tmp_path / "other.safetensors", other, kind="tokenizer", config=other.config.to_dict())
    own = checkpoints.load(its, "tokenizer").sha256
    with pytest.raises(GenerationError, match=f"{own[:12]}.*other.safetensors is {sha256[:12]}"):
        VideoGenerator.load(path, tokenizer=tmp_path / "other.safetensors")


def test_the_tokenizer_is_found_beside_its_generator_or_must_be_named(tokenizer, tmp_path):
    path, its = saved(tmp_path, tokenizer)
    video = VideoGenerator.load(path)
    assert video.tokenizer.checkpoint.sha256 == video.checkpoint.parents["tokenizer"]
    its.unlink()
    with pytest.raises(GenerationError, match=r"is not in .*: pass tokenizer=PATH"):
        VideoGenerator.load(path)


def test_what_is_no_generator_is_refused(tokenizer, tmp_path):
    _, its = saved(tmp_path, tokenizer)
    with pytest.raises(CheckpointError, match="kind 'tokenizer' where 'generator'"):
        VideoGenerator.load(its, tokenizer=its)
