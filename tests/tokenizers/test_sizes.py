"""The paper's sizes: parameters counted without memory, on the meta device."""

import pytest
import torch

from evatok.routing.networks import ROUTER_SIZES, ViTRouter
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer


def test_the_papers_tokenizer_has_145_million_parameters():
    """Table 3 counts 145M, the codebook's 0.13M among them."""
    with torch.device("meta"):
        tokenizer = AdaptiveTokenizer(TOKENIZER_SIZES["paper"])
    parameters = sum(p.numel() for p in tokenizer.parameters())
    print(f"{parameters:,} parameters")
    assert tokenizer.quantiser.quantiser.weight.shape == (16384, 8)
    assert parameters == pytest.approx(145e6, rel=0.01)


def test_the_papers_router_has_19_9_million_parameters():
    with torch.device("meta"):
        router = ViTRouter(ROUTER_SIZES["paper"])
    parameters = sum(p.numel() for p in router.parameters())
    print(f"{parameters:,} parameters")
    assert parameters == pytest.approx(19.9e6, rel=0.02)
    assert router.head.linear.out_features == 625


@pytest.mark.parametrize("size", TOKENIZER_SIZES)
def test_tokenizer_and_router_of_a_size_agree_on_clips_and_candidates(size):
    tokenizer, router = TOKENIZER_SIZES[size], ROUTER_SIZES[size]
    assert tokenizer.candidates == router.candidates
    assert (tokenizer.frames, tokenizer.size) == (router.frames, router.size)
    assert len(tokenizer.candidates) == 625


def test_the_papers_grid_is_1024_patches():
    paper = TOKENIZER_SIZES["paper"]
    assert paper.candidates.blocks * paper.patches == 1024


@pytest.mark.parametrize("size", TOKENIZER_SIZES)
def test_every_size_has_the_papers_density_of_tokens(size):
    """One token per patch in the fixed-length baseline, and a longest block whose pyramid is complete."""
    tokenizer = TOKENIZER_SIZES[size]
    assert tokenizer.candidates.baseline == tokenizer.patches
    assert tokenizer.levels[-1] == 2 * tokenizer.patches
