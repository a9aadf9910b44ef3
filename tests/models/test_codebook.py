"""The learned codebook (VQ): every code gets a gradient, and in training nearly all come into use."""

import pytest
import torch
import torch.nn.functional as F
from vector_quantize_pytorch import FSQ

from evatok.metrics.codebook import codebook_usage
from evatok.models.quantisers import CODES, FSQ_LEVELS, Grid, Quantiser, check_codes
from evatok.training import losses

CODEBOOK = 512


@pytest.fixture
def quantiser() -> Quantiser:
    torch.manual_seed(0)
    return Quantiser("vq", CODEBOOK, encoder_width=16, decoder_width=16)


def features(tokens: int, generator: torch.Generator) -> torch.Tensor:
    """(tokens, 16) with a spectrum that falls as an encoder's does: a few directions hold most of the variance."""
    return torch.randn(tokens, 16, generator=generator) / torch.arange(1, 17)


def trained(quantiser: Quantiser, entropy_weight: float, steps: int) -> float:
    """Share of codes in use on fresh tokens after training the quantiser to give back what it is given."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(quantiser.parameters(), lr=3e-3)
    for _ in range(steps):
        tokens = features(256, generator)
        found = quantiser(tokens)
        loss = F.mse_loss(found.values, tokens) + found.loss
        if entropy_weight:
            loss = loss + entropy_weight * losses.entropy(found.latents, quantiser.codebook)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return codebook_usage(quantiser(features(20_000, generator)).codes, CODEBOOK)


@pytest.mark.slow
def test_nearly_all_codes_are_in_use_after_a_thousand_steps_with_the_papers_entropy_weight(quantiser):
    assert trained(quantiser, 0.02, 1000) >= 0.9


def test_codes_move_towards_their_tokens_and_tokens_towards_their_codes(quantiser):
    tokens = torch.randn(64, 16)
    found = quantiser(tokens)
    found.loss.backward()
    chosen = found.codes.unique()
    gradient = quantiser.quantiser.weight.grad
    assert gradient[chosen].abs().sum(1).min() > 0
    others = torch.ones(CODEBOOK, dtype=torch.bool)
    others[chosen] = False
    assert gradient[others].abs().max() == 0
    assert quantiser.project_in.weight.grad.abs().max() > 0


def test_the_entropy_term_moves_codes_that_no_token_chose(quantiser):
    found = quantiser(torch.randn(64, 16))
    losses.entropy(found.latents, quantiser.codebook).backward()
    others = torch.ones(CODEBOOK, dtype=torch.bool)
    others[found.codes.unique()] = False
    assert (quantiser.quantiser.weight.grad[others].abs().sum(1) > 0).float().mean() > 0.9


def test_values_are_the_nearest_codes_of_unit_length_and_gradients_pass_straight_through(quantiser):
    latents = F.normalize(torch.randn(1, 50, 8), dim=-1).requires_grad_()
    values, codes, _ = quantiser.quantiser(latents)
    assert torch.allclose(values.norm(dim=-1), torch.ones(1, 50), atol=1e-5)
    assert torch.equal(codes[0], torch.cdist(latents[0], quantiser.codebook).argmin(1))
    values.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_the_paper_weighs_commitment_with_a_quarter(quantiser):
    latents = F.normalize(torch.randn(1, 50, 8), dim=-1)
    values, _, loss = quantiser.quantiser(latents)
    assert float(loss.detach()) == pytest.approx(1.25 * float(F.mse_loss(values, latents)), rel=1e-5)


@pytest.mark.parametrize("kind", CODES)
def test_every_kind_can_have_its_usual_number_of_codes(kind):
    check_codes(kind, CODES[kind])
    with pytest.raises(ValueError, match="at least 2 codes"):
        check_codes(kind, 1)


@pytest.mark.parametrize("codes", FSQ_LEVELS)
def test_finite_scalar_quantisation_is_the_published_one(codes):
    torch.manual_seed(0)
    ours, theirs = Grid(FSQ_LEVELS[codes]), FSQ(list(FSQ_LEVELS[codes]))
    latents = [(3 * torch.randn(1, 500, len(FSQ_LEVELS[codes]))).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        latents[1].copy_(latents[0])
    (values, numbers), (expected, expected_numbers) = ours(latents[0]), theirs(latents[1])
    assert torch.equal(values, expected)
    assert torch.equal(numbers, expected_numbers.long())
    assert torch.equal(ours.indices_to_codes(numbers), theirs.indices_to_codes(expected_numbers))
    torch.testing.assert_close(ours.indices_to_codes(numbers), values.detach())
    for side, made in zip(latents, (values, expected), strict=True):
        made.square().sum().backward()
        assert side.grad is not None
    torch.testing.assert_close(latents[0].grad, latents[1].grad)
