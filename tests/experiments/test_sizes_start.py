"""Every stage's named sizes stand on their own: what one leaves the next takes, and the networks fit each other."""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel, VJEPA2Config, VJEPA2Model

from evatok.data import clips as clip_sets
from evatok.experiments import (
    all_stages,
    pretrain_videomae,
    stage1_proxy,
    stage2_curation,
    stage3_router,
    stage4_final,
    stage5_generator,
)
from evatok.experiments.tokenizer_parts import shape_of
from evatok.experiments.tokenizer_training import PAPER
from evatok.generation.grammar import Grammar
from evatok.generation.transformer import Generator, GeneratorConfig
from evatok.models.encoders import VJEPA2, FrozenEncoder, VideoMAE, load_encoder
from evatok.models.recompute import recompute
from evatok.routing.networks import ROUTER_SIZES, build_router
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training import masked_video
from evatok.training.alignment import AlignmentHead
from evatok.training.discriminators import TRANSFORMER_SIZES, SemanticDiscriminator, TransformerDiscriminator
from tests.factories import configured, curve_of, gratings, places

LARGER = ("small", "paper")


def encoder(source: str, resize: int) -> FrozenEncoder:
    """An encoder of the configured shape: the paper's two are downloads, so they are built without weights."""
    if source == PAPER["alignment"]:
        return VJEPA2(VJEPA2Model(VJEPA2Config()), source=source, resize=resize or None)  # the defaults are ViT-L
    if source == "MCG-NJU/videomae-base":
        return VideoMAE(VideoMAEModel(VideoMAEConfig()), source=source, resize=resize or None)
    with torch.device("cpu"):
        return load_encoder(source, resize=resize or None)


def generators(size: str) -> list[dict[str, Any]]:
    named = {"paper": ("paper_ucf", "paper_k600")}.get(size, (size,))
    return [configured(stage5_generator.ex, name) for name in named]


@pytest.mark.parametrize("size", LARGER)
def test_each_stage_takes_what_the_one_before_leaves(size):
    stages = [module.ex for module in (stage1_proxy, stage2_curation, stage3_router, stage4_final)]
    proxy, scores, router, final = (configured(stage, size) for stage in stages)
    assert scores["tokenizer"] == proxy["checkpoint"]
    assert router["train_table"] == scores["table"]
    assert final["router"] == router["checkpoint"]
    for generator in generators(size):
        assert (generator["tokenizer"], generator["router"]) == (final["checkpoint"], router["checkpoint"])


@pytest.mark.parametrize("size", LARGER)
def test_router_and_scores_of_a_size_are_of_one_quality(size):
    scores, router = configured(stage2_curation.ex, size), configured(stage3_router.ex, size)
    assert router["metric"] in ("l1", scores["perceptual"])
    assert size != "paper" or router["metric"] == "lpips-vgg"


@pytest.mark.parametrize("size", LARGER)
@pytest.mark.parametrize("stage", [stage1_proxy, stage4_final])
def test_a_tokenizers_networks_fit_each_other_without_memory(stage, size):
    config = configured(stage.ex, size)
    shape = shape_of(config)
    with torch.device("meta"):
        AdaptiveTokenizer(shape)
        if config["discriminator"] == "transformer":
            TransformerDiscriminator(TRANSFORMER_SIZES[size])
        if config["discriminator"] == "semantic":
            judge = encoder(config["semantic_encoder"], config["semantic_resize"])
            assert judge.grid(config["semantic_frames"] or shape.frames, shape.size)
            SemanticDiscriminator(judge, config["semantic_layers"])
        if config["alignment"] != "none":
            teacher = encoder(config["alignment"], config["alignment_resize"])
            grid = teacher.grid(shape.frames, shape.size)
            AlignmentHead(shape.decoder_width, (shape.candidates.blocks, *shape.grid), teacher.width, grid)
            assert config["alignment_layer"] <= shape.decoder_layers


@pytest.mark.parametrize("size", LARGER)
def test_router_generator_and_videomae_are_built_without_memory(size):
    grammar = Grammar.of(shape_of(configured(stage4_final.ex, size)))
    with torch.device("meta"):
        build_router(ROUTER_SIZES[size])
        for config in generators(size):
            Generator(GeneratorConfig.of(grammar, config["model"], classes=101))
        assert configured(pretrain_videomae.ex, size)["size"] in masked_video.VIDEOMAE_SIZES


def test_all_stages_of_small_align_with_an_encoder_of_its_own_clips():
    """The encoder it trains sees whole clips: what `stage4_final with small` resizes for the shipped one must not."""
    final = all_stages.jobs(configured(all_stages.ex, "small"))[-1]
    assert final.settings["alignment"].endswith("videomae")
    assert (final.settings["alignment_resize"], final.settings["semantic_resize"]) == (0, 0)
    deepest = masked_video.VIDEOMAE_SIZES["small"]["num_hidden_layers"]
    assert max(final.settings["semantic_layers"]) < deepest


def test_recomputed_layers_give_the_same_gradients_from_less_memory(tiny, clips):
    torch.manual_seed(0)
    plain = AdaptiveTokenizer(tiny)
    recomputing, held, gradients = copy.deepcopy(plain), [], []
    recompute([*recomputing.encoder.layers, *recomputing.decoder.layers])
    for tokenizer in (plain, copy.deepcopy(recomputing)):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.nbytes) or x, lambda x: x):
            made = tokenizer(clips, torch.tensor([[8, 4, 2]] * len(clips))).clips
        made.square().sum().backward()
        held.append(sum(saved))
        gradients.append([parameter.grad for parameter in tokenizer.parameters()])
    assert all(map(torch.equal, *gradients))
    assert held[1] < 0.7 * held[0]


@pytest.mark.slow  # five million parameters on clips of 128 pixels
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("stage", [stage1_proxy, stage4_final])
def test_small_trains_on_its_own_defaults(stage, tmp_path):
    """A step of one clip on a CPU; of the rest only the router, which an earlier stage makes, is left out."""
    labels, manifest = pd.DataFrame({"source": ["made"] * 3}), {"name": "gratings", "seed": 0}
    clip_sets.save(tmp_path / "clips", gratings(3, size=128), labels, manifest)
    ours = {"data": str(tmp_path / "clips"), "train_clips": 3, "validation_clips": 1, "batch": 1, "steps": 1}
    how = {"device": "cpu", "threads": 1, "log_every": 1, "save_every": 1, "discriminator_start": 0}
    if stage is stage4_final:
        how["assignment"] = "uniform"
    given = {**ours, **how, **places(tmp_path / "one")}
    result = stage.ex.run(named_configs=("small",), config_updates=given).result
    assert result["complete"]
    last = curve_of(tmp_path)[-1]
    expected = {"perceptual", "entropy", "quantiser"}
    expected |= {"alignment", "adversarial", "discriminator"} if stage is stage4_final else set()
    assert expected <= last.keys()
    assert last["step"] == 1
