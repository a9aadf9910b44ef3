"""The paper's sizes: parameters counted without memory, on the meta device."""

import pytest
import torch

from evatok.models.router import ROUTER_SIZES, ViTRouter
from evatok.models.tokenizer import TOKENIZER_SIZES, AdaptiveTokenizer


def test_the_papers_tokenizer_has_145_million_parameters():
    """Table 3 counts 145M; the codebook, a buffer here because it learns by running means, is 0.13M of them."""
    with torch.device("meta"):
        tokenizer = AdaptiveTokenizer(TOKENIZER_SIZES["paper"])
    parameters = sum(p.numel() for p in tokenizer.parameters())
    codebook = tokenizer.quantiser.quantiser.codebook.numel()
    print(f"{parameters:,} parameters and {codebook:,} numbers of the codebook")
    assert codebook == 16384 * 8
    assert parameters + codebook == pytest.approx(145e6, rel=0.01)


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


def test_the_papers_grid_is_1024_patches_and_its_longest_block_a_whole_pyramid():
    paper = TOKENIZER_SIZES["paper"]
    assert paper.candidates.blocks * paper.patches == 1024
    assert paper.levels[-1] == 2 * paper.patches
