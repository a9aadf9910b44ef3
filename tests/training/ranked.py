"""Small trainings of every stage, alone or as one of several ranks: `ranked.py FOLDER`, with the words of torchrun."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from evatok.assignments.rules import Random
from evatok.data.clips import ClipSet
from evatok.experiments import stage3_router, stage5_generator, train_classifier
from evatok.experiments.generator_lesson import Part
from evatok.generation.code_cache import CodedSet
from evatok.generation.grammar import Grammar
from evatok.generation.transformer import Generator, GeneratorConfig
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.models.recompute import recompute
from evatok.routing.networks import RouterConfig, build_router
from evatok.storage import ranks
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training.adversary import Adversary, AdversaryConfig
from evatok.training.batches import Batches
from evatok.training.discriminators import (
    SemanticDiscriminator,
    TransformerDiscriminator,
    TransformerDiscriminatorConfig,
)
from evatok.training.loop import Recipe, train
from evatok.training.objective import Alignment, TokenizerObjective, TokenizerWithHead
from tests.factories import TINY, TinyEncoder, gratings

STEPS, HALF, BATCH = 50, 26, 4
# Slow enough that rounding stays rounding: at 1e-3, a code flips within ten steps, as it does with another number of
# threads.
RECIPE = Recipe(
    steps=STEPS, learning_rate=2e-5, final_learning_rate=2e-5, warmup=4, log_every=1, save_every=HALF, seed=5
)
LABELS = pd.DataFrame({"label": [*"abcabcabcabc"]})
CLIPS = ClipSet(gratings(12, TINY.frames, TINY.size), LABELS, {"name": "gratings"})
LARGER = ClipSet(gratings(12, TINY.frames, 32), LABELS, {"name": "gratings"})  # a pyramid's least
CONFIG: dict[str, Any] = {
    "batch": BATCH,
    "seed": 5,
    "flip": True,
    "device": "cpu",
    "bf16": False,
    "target": "soft",
    "temperature": 0.1,
    "class_dropout": 0.3,
    "label": "label",
    "frame_label": "",
    "policy": ["translation"],
}
Made = tuple[nn.Module, Callable[..., Any]]


def tokenizer(adversary: Adversary, **how: Any) -> Made:
    """A tokenizer with a learned codebook, entropy, alignment and an adversary from the tenth step on."""
    torch.manual_seed(0)
    shape = replace(TINY, quantiser="vq", codebook_size=64)
    alignment = Alignment(TinyEncoder(), decoder_layer=1, encoder_layer=3)
    weights = dict.fromkeys(("l1", "squared", "perceptual", "quantiser", "alignment", "adversarial"), 0.5)
    objective = TokenizerObjective(
        Batches(CLIPS, BATCH, seed=5, flip=True, device="cpu"),
        Random(shape.candidates),
        {**weights, "change": 1.0, "entropy": 0.1},
        perceptual=lambda real, fake: (real - fake).square().mean((1, 2, 3, 4)),
        perceptual_frames=3,
        adversary=adversary,
        alignment=alignment,
        bf16=False,
        groups=2,
        **how,
    )
    return TokenizerWithHead(AdaptiveTokenizer(shape), alignment), objective


def with_semantic() -> Made:
    torch.manual_seed(1)
    how = AdversaryConfig(start=10, warmup=5, learning_rate=2e-5, augment=True, frames=6)
    return tokenizer(Adversary(SemanticDiscriminator(TinyEncoder(3), [1, 2]), how, 5), adaptive=True)


def with_transformer() -> Made:
    torch.manual_seed(2)
    shape = TransformerDiscriminatorConfig(frames=12, size=16, patch=(4, 8, 8), width=16, layers=1, heads=2)
    how = {"loss": "non_saturating", "start": 10, "interval": 2, "lecam": 0.1, "smoothing": 0.2}
    return tokenizer(Adversary(TransformerDiscriminator(shape), AdversaryConfig(**how, learning_rate=2e-5), 5))


def router(kind: str, clips: ClipSet) -> Made:
    torch.manual_seed(3)
    size = clips.clips.shape[2]
    shape = RouterConfig(kind, TINY.levels, 12, size, (4, 8, 8), width=16, layers=1, heads=2, dropout=0.3)
    rewards = np.random.default_rng(0).random((len(clips), len(TINY.candidates)))
    module, lesson = build_router(shape), SimpleNamespace(train_clips=clips, rewards={"train": rewards})
    return module, stage3_router.Objective(lesson, CONFIG, module)


def generator() -> Made:
    torch.manual_seed(4)
    random = np.random.default_rng(1)
    lengths = np.array(TINY.levels)[random.integers(0, 3, (2, len(CLIPS), TINY.candidates.blocks))]
    coded = CodedSet(random.integers(0, TINY.codebook_size, lengths.sum()).astype(np.int32), lengths)
    grammar = Grammar.of(TINY)
    part = Part(coded, random.integers(0, 3, len(CLIPS)), None)
    shape = GeneratorConfig.of(grammar, "toy", width=16, layers=2, heads=2, classes=3, dropout=0.2)
    return Generator(shape), stage5_generator.Objective(SimpleNamespace(train=part, grammar=grammar), CONFIG)


def classifier() -> Made:
    torch.manual_seed(5)
    return ClipClassifier(ClassifierConfig(3, 12, 16, 2, 8, 0.2)), train_classifier.Objective(CLIPS, [*"abc"], CONFIG)


TRAININGS: dict[str, Callable[[], Made]] = {
    "semantic": with_semantic,
    "transformer": with_transformer,
    "vit": lambda: router("vit", CLIPS),
    "pyramid": lambda: router("pyramid", LARGER),
    "generator": generator,
    "classifier": classifier,
}


def main(folder: Path) -> None:
    """Train each for half of the steps, keep a copy of that, and train the rest."""
    with ranks.together("cpu"):
        for name, make in TRAININGS.items():
            train(*make(), RECIPE, folder / name, stop_at=HALF)
            if ranks.rank() == 0:
                shutil.copytree(folder / name, folder / f"{name}-half", dirs_exist_ok=True)
            train(*make(), RECIPE, folder / name)
        train(*generator(), replace(RECIPE, accumulate=2), folder / "generator-pieces")
        sharded = replace(RECIPE, fsdp=True)
        train(*generator(), sharded, folder / "sharded", stop_at=HALF)
        if ranks.rank() == 0:
            shutil.copytree(folder / "sharded", folder / "sharded-half", dirs_exist_ok=True)
        ranks.wait()
        module, objective = generator()
        recompute(module.layers)
        averaged = train(module, objective, replace(sharded, accumulate=2), folder / "sharded")
        if ranks.rank() == 0:
            torch.save(averaged.state_dict(), folder / "sharded-averaged.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
