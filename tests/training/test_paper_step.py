"""One optimisation step of the paper's whole objective at the paper's size, with small random encoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel, VJEPA2Config, VJEPA2Model

from evatok.data.clips import ClipSet
from evatok.models.encoders import VJEPA2, VideoMAE
from evatok.models.precision import bf16_is_native
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.training.adversary import Adversary, AdversaryConfig
from evatok.training.discriminators import SemanticDiscriminator
from evatok.training.loop import step_generator
from evatok.training.objective import Alignment, Batches, TokenizerObjective, TokenizerWithHead

WEIGHTS = {
    "l1": 1.0,
    "squared": 0.0,
    "change": 0.0,
    "perceptual": 1.0,
    "quantiser": 1.0,
    "entropy": 0.02,
    "alignment": 0.7,
    "adversarial": 0.5,
}
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def teacher() -> VJEPA2:
    shape = VJEPA2Config(patch_size=16, crop_size=128, tubelet_size=2, mlp_ratio=2.0, pred_num_hidden_layers=1, **SMALL)
    return VJEPA2(VJEPA2Model(shape), source="random")


def judge() -> SemanticDiscriminator:
    shape = VideoMAEConfig(image_size=224, patch_size=16, num_frames=16, intermediate_size=48, **SMALL)
    return SemanticDiscriminator(VideoMAE(VideoMAEModel(shape), source="random", resize=224), [1, 2])


@pytest.mark.slow
def test_one_step_of_the_whole_objective_at_the_papers_size():
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 128, 128, 3), dtype=np.uint8)
    alignment = Alignment(teacher(), decoder_layer=3, encoder_layer=2)
    trainee = TokenizerWithHead(AdaptiveTokenizer(TOKENIZER_SIZES["paper"]), alignment)
    before = {name: p.detach().clone() for name, p in trainee.named_parameters()}
    opponent = AdversaryConfig(start=0, learning_rate=1e-4, augment=True)
    objective = TokenizerObjective(
        Batches(ClipSet(pixels, None, {"sha256": "noise"}), batch=1, seed=0, flip=True, device="cpu"),
        lambda clips, generator: expand_assignment((64, 32, 32, 32), len(clips)),
        WEIGHTS,
        perceptual=lambda real, fake: (real - fake).square().mean((1, 2, 3, 4)),  # LPIPS's weights are a download
        adversary=Adversary(judge(), opponent, seed=0),
        alignment=alignment,
        bf16=bf16_is_native("cpu"),  # elsewhere it takes seven minutes
    )
    optimiser = torch.optim.AdamW(trainee.parameters(), lr=1e-4)
    loss, terms = objective(trainee, 0, step_generator(0, 0))
    loss.backward()
    optimiser.step()
    told = sum(weight * float(terms[name].detach()) for name, weight in WEIGHTS.items())
    assert loss.item() == pytest.approx(told, rel=1e-4)
    still = [name for name, p in trainee.named_parameters() if torch.equal(p, before[name])]
    assert not still
