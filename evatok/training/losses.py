"""The terms of the tokenizer's objective (main eq. 2) and of its discriminator's, one function each, and their sum.

Every term is a scalar (), float32 even under autocast. Where the paper does not define a term, its form is that of
GigaTok or LARP, whose code EVATok builds on.

Legend: M tokens, V codes, D dimension of a code, B clips.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from evatok.storage import ranks, transfer


def l1(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean absolute error over clips (B, 3, T, H, W)."""
    return (real - fake).abs().mean()


def squared(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean squared error over clips (B, 3, T, H, W)."""
    return (real - fake).square().mean()


def change(real: torch.Tensor, fake: torch.Tensor, block: int) -> torch.Tensor:
    """Mean squared error of the frame differences within blocks of `block` frames, over clips (B, 3, T, H, W).

    It penalises missing motion inside a block, where the block's mean frame is nearly as good for a pixel loss.
    Squared, because most differences are near zero and an absolute error would favour their median. Zero for blocks of
    one frame.
    """
    if block == 1:
        return real.new_zeros(())
    error = (fake - real).unflatten(2, (-1, block))
    return error.diff(dim=3).square().mean()


def weighted_sum(terms: dict[str, torch.Tensor], weights: Mapping[str, float | torch.Tensor]) -> torch.Tensor:
    """Sum of weight * term.

    Raises:
        KeyError: a term without a weight; a weight of 0 switches a term off.
    """
    missing = terms.keys() - weights.keys()
    if missing:
        raise KeyError(f"no weight for the loss terms {sorted(missing)}")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def alignment(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Negative mean cosine similarity of features (..., D) (main eq. 1); the teacher gets no gradient.

    Raises:
        ValueError: features of different shapes.
    """
    if student.shape != teacher.shape:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"alignment needs features of one shape, got {shapes}: map the student to the teacher's grid")
    return -F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1).mean()


def entropy(
    features_MD: torch.Tensor, codebook_VD: torch.Tensor, temperature: float = 0.01, at_once: int = 2**24
) -> torch.Tensor:
    """MAGVIT-v2's entropy term (arXiv 2310.05737) on a codebook's distances, as in GigaTok.

    Each token's distribution over the codes is the softmax of its negative squared distances over `temperature`. The
    term is their mean entropy (low when tokens are certain) minus the entropy of their mean (high when the codebook
    is used evenly), in nats: from -log(V), the best, to 0.

    Args:
        features_MD: before quantisation, normalised like the codebook.
        at_once: entries of the M x V table to hold at a time; beyond that, tokens are processed in chunks whose tables
            are recomputed in the backward pass.
    """
    with torch.autocast(features_MD.device.type, enabled=False):
        features, codebook = features_MD.float(), codebook_VD.float()
        chunks = features.split(max(1, at_once // len(codebook)))
        if len(chunks) == 1:
            uncertainty, use_V = _code_use(features, codebook, temperature)
        else:
            parts = [
                checkpoint(_code_use, part, codebook, temperature, use_reentrant=False, preserve_rng_state=False)
                for part in chunks
            ]
            uncertainty, use_V = (torch.stack(sums).sum(0) for sums in zip(*parts, strict=True))
        tokens = ranks.total(features.new_full((), len(features)))
        use_V = ranks.total(use_V) / tokens
        # The small constant keeps the gradient of a code without nearby tokens finite.
        return ranks.total(uncertainty) / tokens + (use_V * (use_V + 1e-10).log()).sum()


def _code_use(
    features_MD: torch.Tensor, codebook_VD: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over tokens the entropies () of their distributions over codes, and the distributions (V,) themselves."""
    # The features' squared norms are the same for all codes, so the softmax does not depend on them.
    closeness = 2 * features_MD @ codebook_VD.T - codebook_VD.square().sum(1)
    logs_MV = (closeness / temperature).log_softmax(-1)
    shares_MV = logs_MV.exp()
    return -(shares_MV * logs_MV).sum(), shares_MV.sum(0)


def hinge_discriminator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Hinge loss (arXiv 1705.02894) of logits of any shapes, halved as in VQGAN (arXiv 2012.09841) and GigaTok."""
    return 0.5 * (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean())


def hinge_generator(fake_logits: torch.Tensor) -> torch.Tensor:
    """Negative mean logit."""
    return -fake_logits.float().mean()


def non_saturating_discriminator(
    real_logits: torch.Tensor, fake_logits: torch.Tensor, smoothing: float, generator: torch.Generator
) -> torch.Tensor:
    """Binary cross-entropy of real plus that of fake logits (arXiv 1406.2661), with noisy labels for the real ones.

    Real labels are drawn uniformly from [1 - smoothing, 1], fake labels are 0: one-sided smoothing (arXiv 1606.03498)
    with noise. LARP's code draws 1 - |n| with n normal of deviation 0.15, at least 0.7, and moves fake labels away from
    0 as well, which rewards a generator for what it already does; smoothing = 0.3 covers the same range of real labels.

    Args:
        generator: on the CPU, for any device of the logits.
    """
    shape = (ranks.whole(len(real_logits)), *real_logits.shape[1:])
    noise = transfer.moved(ranks.share(torch.rand(shape, generator=generator)), real_logits.device)
    real = F.binary_cross_entropy_with_logits(real_logits.float(), 1 - smoothing * noise)
    return real + F.softplus(fake_logits.float()).mean()


def non_saturating_generator(fake_logits: torch.Tensor) -> torch.Tensor:
    """Negative mean log probability of being real (arXiv 1406.2661)."""
    return F.softplus(-fake_logits.float()).mean()


def lecam(
    real_logits: torch.Tensor,
    fake_logits: torch.Tensor,
    mean_real: torch.Tensor | float,
    mean_fake: torch.Tensor | float,
) -> torch.Tensor:
    """LeCam regulariser (arXiv 2104.03310), with the relu of its authors' code.

    Pulls real logits towards the running mean of the fake ones and vice versa, but only those on the winning side of
    it.
    """
    real = F.relu(real_logits.float() - mean_fake).square().mean()
    return real + F.relu(mean_real - fake_logits.float()).square().mean()


def adaptive_weight(
    reconstruction_loss: torch.Tensor,
    adversarial_loss: torch.Tensor,
    last_layer: torch.Tensor,
    limit: float = 1e4,
) -> torch.Tensor:
    """VQGAN's weight of the adversarial term (arXiv 2012.09841, eq. 7): a ratio of gradient norms, at most `limit`.

    With it, both terms move `last_layer`, the decoder's last weight, equally far. Detached; the graphs are retained.
    """
    reconstruction, adversarial = (
        ranks.average(torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float()).norm()
        for loss in (reconstruction_loss, adversarial_loss)
    )
    return (reconstruction / (adversarial + 1e-4)).clamp(max=limit).detach()
