"""The paper's sizes: parameters counted without memory, on the meta device."""

import pytest
import torch

from evatok.routing.networks import IMAGE_ROUTER_SIZES, ROUTER_SIZES, ViTRouter
from evatok.tokenizers.evatok import IMAGE_SIZES, TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.training.alignment import AlignmentHead


def test_the_papers_tokenizer_has_145_million_parameters():
    """Table 3 counts 145M, the codebook's 0.13M among them."""
    with torch.device("meta"):
        tokenizer = AdaptiveTokenizer(TOKENIZER_SIZES["paper"])
    parameters = sum(p.numel() for p in tokenizer.parameters())
    print(f"{parameters:,} parameters")
    assert tokenizer.quantiser.quantiser.weight.shape == (16384, 8)
    assert parameters == pytest.approx(145e6, rel=0.01)


def test_the_papers_image_tokenizer_is_gigatoks_of_232_million_parameters():
    """GigaTok counts the head of its alignment with a frozen encoder of width 768, which a checkpoint leaves out."""
    paper = IMAGE_SIZES["paper"]
    with torch.device("meta"):
        tokenizer = AdaptiveTokenizer(paper)
        head = AlignmentHead(paper.decoder_width, (1, *paper.grid), 768, (1, *paper.grid))
    parameters = sum(p.numel() for module in (tokenizer, head) for p in module.parameters())
    assert parameters == pytest.approx(232e6, rel=0.01)
    assert paper.grid == (16, 16)


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_an_image_is_one_block_of_eight_levels(size):
    """Supplement H: 32 to 512 tokens of a 16 x 16 map, 208 on average, 256 the baseline."""
    tokenizer, paper = IMAGE_SIZES[size], (32, 64, 96, 128, 192, 256, 384, 512)
    router = IMAGE_ROUTER_SIZES[size]
    assert tokenizer.candidates == router.candidates
    assert (tokenizer.frames, tokenizer.size) == (router.frames, router.size)
    assert tokenizer.candidates.blocks == 1
    assert [level * 256 // tokenizer.patches for level in tokenizer.levels] == list(paper)
    assert tokenizer.candidates.baseline == tokenizer.patches
    totals = IMAGE_SIZES["paper"].candidates.totals
    assert (totals.mean(), totals.std()) == pytest.approx((208.0, 156.77), abs=0.01)


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
