"""An initialisation from which a small router trains in minutes: it sees texture and motion from its first step."""

from __future__ import annotations

import torch

from evatok.routing.networks import AnyRouter, ViTRouter
from evatok.tokenizers.initialise import principal_axes


@torch.no_grad()
def initialise_router(router: AnyRouter, clips: torch.Tensor) -> None:
    """Initialise a router in place from training clips (B, 3, T, H, W) in [0, 1].

    The first half of a ViT's patch embedding starts as the leading whitened components, the second half as random
    mixtures of all others: fine texture and motion determine how many tokens a block needs, and neither is among the
    leading components. Other routers store mean and deviation of their input statistics.
    """
    inputs = router.see(clips)
    if not isinstance(router, ViTRouter):
        router.standard.fit(inputs)
        return
    embedding, patches = router.patch_embedding, inputs.flatten(0, 1)
    axes, deviation = principal_axes(patches)
    half = embedding.out_features // 2
    rest = (axes[:, half:] / deviation[half:]).T
    mixing = torch.randn(embedding.out_features - half, len(rest), dtype=rest.dtype) / len(rest) ** 0.5
    weight = torch.cat(((axes[:, :half] / deviation[:half]).T, mixing @ rest))
    embedding.weight.copy_(weight)
    embedding.bias.copy_(-(weight @ patches.mean(0).to(weight)))
