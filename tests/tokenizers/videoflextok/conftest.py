"""A VideoFlexTok tokenizer small enough for exact tests, in any form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from evatok.models.latents import PatchPCA
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTok
from tests.factories import TINY_FLEX


@pytest.fixture
def flex() -> Callable[..., VideoFlexTok]:
    """A maker of untrained tokenizers, whose decoders have something to say at every layer: (**changes)."""

    def make(**changes) -> VideoFlexTok:
        torch.manual_seed(0)
        config = replace(TINY_FLEX, **changes)
        codec = PatchPCA()
        network = FlexNetwork(replace(config, codec_sha256=codec.identity()))
        for module in network.decoder.modules():  # adaLN-zero says nothing before it is trained
            if isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.2)
                nn.init.normal_(module.bias, std=0.2)
        return VideoFlexTok(codec, network).eval().requires_grad_(False)

    return make


@pytest.fixture
def flex_clips() -> torch.Tensor:
    """Two clips of noise for the tiny tokenizer, (2, 3, 12, 32, 32)."""
    return torch.rand(2, 3, 12, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def latents() -> torch.Tensor:
    """Latents (2, 3, 4, 4, 16) for the tiny tokenizer."""
    return torch.randn(2, 3, 4, 4, 16, generator=torch.Generator().manual_seed(2))
