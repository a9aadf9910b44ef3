"""What a stage says beforehand it will take: every stage at the paper's size, and right where it can be checked."""

from __future__ import annotations

import pytest
import torch

from evatok.evaluation.footprint import Footprint, footprint, imagined
from evatok.experiments import (
    dry_codes,
    dry_costs,
    stage1_proxy,
    stage2_curation,
    stage3_router,
    stage4_final,
    stage5_generator,
)
from evatok.experiments.dry_run import GB, Cost, training
from evatok.generation.flops import generator_operations
from evatok.generation.transformer import GENERATOR_SIZES, Generator, GeneratorConfig
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer
from tests.factories import TINY, TINY_FLEX, configured, saved_videoflextok

STAGES = {"1": stage1_proxy, "2": stage2_curation, "3": stage3_router, "4": stage4_final, "5": stage5_generator}
PARAMETERS = {"1": 164e6, "2": 145e6, "3": 19.9e6, "4": 164e6, "5": 633e6}
"""The paper's, within two percent; with a tokenizer the 19M of the head that aligns it are trained."""


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("stage", [pytest.param(s, marks=[pytest.mark.slow] * (s in "124")) for s in STAGES])
def test_the_papers_size_is_planned_without_its_memory_its_clips_or_a_gpu(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    named = "paper_ucf" if stage == "5" else "paper"
    result = STAGES[stage].ex.run(named_configs=(named,), config_updates={"dry_run": True, "devices": 8}).result
    told = result["dry_run"]
    assert told["parameters"] == pytest.approx(PARAMETERS[stage], rel=0.02)
    assert 0 < told["hours"] < 10_000
    assert "hours" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "a plan leaves nothing"
    if stage in "145":
        assert told["clips per device and piece"] == 16
        assert told["clips per piece that fit 80 GB"] > 0
        assert told["GB of disk: checkpoint"] == pytest.approx(2 * told["parameters"] / 1e9)


@pytest.mark.usefixtures("runs")
def test_the_papers_generator_from_captions_is_planned_on_videoflextoks_codes(tmp_path, monkeypatch):
    """By hand: 5 latent frames of 256 of 64,000 codes, after 8 vectors of the caption and a class."""
    monkeypatch.chdir(tmp_path)
    run = stage5_generator.ex.run(named_configs=("paper_text",), config_updates={"dry_run": True})
    told, width, layers, hidden = run.result["dry_run"], 1280, 30, 3584
    weights, tokens, codes = layers * (4 * width**2 + 3 * width * hidden), 5 * 256, 64_000
    positions = 8 + tokens
    attention = 2 * layers * width * positions * (positions + 1) / 2
    forward = 2 * (weights * positions + attention + codes * width * tokens)
    assert told["TFLOP per step"] == pytest.approx(51 * 3 * forward / 1e12)
    assert told["TFLOP per step"] == pytest.approx(292, rel=0.01)
    trunk_and_tables = weights + 2 * codes * width
    assert trunk_and_tables < told["parameters"] < 1.1 * trunk_and_tables, "and what reads the captions"


CHANGES = (({}, 3 * 4), ({"kept": 2}, 3 * 2), ({"order": "depth-first"}, 3 * 4), ({"frames": 28}, 7 * 4))
"""Settings of generators on TINY_FLEX, and their tokens per clip."""


@pytest.mark.parametrize(("changes", "tokens"), CHANGES)
def test_a_generator_on_videoflextoks_codes_is_planned_by_its_checkpoint(tmp_path, changes, tokens):
    tokenizer = saved_videoflextok(tmp_path / "flex.safetensors")
    asked = configured(stage5_generator.ex, "toy", tokenizer=tokenizer, **changes)
    cost, network = dry_costs.generator_cost(asked), GENERATOR_SIZES["toy"]
    shape = GeneratorConfig(TINY_FLEX.codebook_size, 0, tokens, **network, classes=101)
    assert cost.operations == generator_operations(shape, tokens, training=True)
    assert cost.trained == sum(p.numel() for p in Generator(shape).parameters())
    assert cost.kept.per_clip > 0


def test_captions_are_planned_by_words_or_by_a_language_model_of_known_shape(tmp_path):
    asked = configured(stage5_generator.ex, "toy", task="text", tokenizer="none.safetensors")
    words, minilm = (dry_costs.generator_cost({**asked, "text": text}) for text in ("words", "minilm"))
    assert words.operations == minilm.operations
    assert words.trained != minilm.trained
    with pytest.raises(ValueError, match="its shape is not known without its folder"):
        dry_codes.captions_of({"text": "somebody/model"})


def saved_by(step) -> int:
    """Bytes that are really saved."""
    sizes: dict[int, int] = {}
    alive = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        alive.append(x)
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        alive.append(step())
    return sum(sizes.values())


def test_what_is_imagined_is_what_is_kept():
    """Of the tiny tokenizer's two halves, at its longest assignment, on the CPU's own kernels."""
    rows = expand_assignment((8, 8, 8), 4)
    tokenizer = AdaptiveTokenizer(TINY)
    real = saved_by(lambda: tokenizer(torch.rand(4, 3, TINY.frames, TINY.size, TINY.size), rows).clips)
    with imagined("cpu", None):
        fake = AdaptiveTokenizer(TINY)

        def step(clips: int) -> torch.Tensor:
            layout = dry_costs.whole_layout(clips, TINY.candidates.blocks, TINY.levels[-1])
            pixels = torch.empty(clips, 3, TINY.frames, TINY.size, TINY.size)
            values = fake.quantiser(fake.encoder(fake.encoder.embed(pixels), layout).flatten(0, 1)).values
            return fake.decoder(values.unflatten(0, (clips, -1)), layout, None)[0]

        found = footprint(step, fake.parameters())
    weights = sum(p.nbytes for p in tokenizer.parameters())
    assert found.bytes(4) == pytest.approx(real - weights, rel=0.15)


def test_half_precision_keeps_about_half_and_computing_again_far_less():
    asked = configured(stage5_generator.ex, "toy", device="cuda", bf16=False)
    plain = dry_costs.generator_cost(asked).kept.per_clip
    half = dry_costs.generator_cost({**asked, "bf16": True}).kept.per_clip
    again = dry_costs.generator_cost({**asked, "recompute": True}).kept.per_clip
    assert 0.4 * plain < half < 0.75 * plain
    assert again < 0.5 * plain


def test_fused_attention_counts_its_operations_and_keeps_no_scores():
    def attend(length: int):
        def step(clips: int) -> torch.Tensor:
            x = torch.empty(clips, 2, length, 8, requires_grad=True)
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

        with imagined("cuda", None):
            return footprint(step, [])

    short, long = attend(16), attend(32)
    assert (short.operations, long.operations) == (4 * 2 * 16 * 16 * 8, 4 * 2 * 32 * 32 * 8)
    assert long.per_clip == 2 * short.per_clip  # linear in the length


def test_hours_pieces_and_memory_follow_from_the_cost():
    config = {"devices": 2, "accumulate": 4, "batch": 64, "memory_gb": 10.0, "teraflops": 100.0, "steps": 3600}
    cost = Cost(10**8, 0, 0, Footprint(0.0, GB, 0.0), 1e12, 1)
    told = training(config, cost)
    assert told["clips per device and piece"] == 8
    assert told["GB of memory per device"] == pytest.approx(2 + 8)
    assert told["clips per piece that fit 10 GB"] == 8
    assert told["pieces that make the batch of them"] == 4
    assert told["hours"] == pytest.approx(64e12 * 4 / 3 / 200e12)
    assert training({**config, "fsdp": True}, cost)["GB of memory per device"] == pytest.approx(1 + 8)
    assert training({**config, "memory_gb": 1.0}, cost)["pieces that make the batch of them"] == 0


def test_an_encoder_of_unknown_shape_is_named():
    with pytest.raises(ValueError, match="its shape is not known without its folder"):
        dry_costs.encoder_of("somebody/encoder", 0)
