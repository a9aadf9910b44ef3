"""Score listed pairs of clip and assignment, when only a few of a clip's candidates are needed.

Legend: N clips, M pairs, K temporal blocks.
"""

from __future__ import annotations

import numpy as np
import torch

from evatok.data.clips import to_network
from evatok.metrics.perceptual import PerceptualDistance, SomeFrames
from evatok.models.precision import autocast
from evatok.search.frontier import BlockMetrics, psnr_of
from evatok.storage.shards import ranges
from evatok.tokenizers.evatok import AdaptiveTokenizer

Scores = dict[str, np.ndarray]


@torch.no_grad()
def score_pairs(
    tokenizer: AdaptiveTokenizer,
    clips: np.ndarray,
    assignments: np.ndarray,
    *,
    batch: int = 32,
    bf16: bool = True,
    perceptual: PerceptualDistance | SomeFrames | None = None,
    name: str = "perceptual",
) -> Scores:
    """Score (M,) uint8 clips (M, T, H, W, 3), each under its own assignment (M, K): l1, mse, psnr, perceptual.

    The scores are the tree's (`evatok.search.tree`) up to rounding. Order pairs by length to minimise padding.
    """
    device, blocks = next(tokenizer.parameters()).device, tokenizer.config.candidates.blocks
    parts: list[dict[str, torch.Tensor]] = []
    for start, stop in ranges(len(clips), batch):
        real = to_network(clips[start:stop], device)
        lengths = torch.from_numpy(assignments[start:stop]).to(device)
        with autocast(device, bf16):
            measure = BlockMetrics(real, blocks, perceptual, name)
            fakes = tokenizer(real, lengths).clips.chunk(blocks, dim=2)
            values = [measure(block, fake) for block, fake in enumerate(fakes)]
        parts.append({key: torch.stack([value[key] for value in values]).mean(0) for key in values[0]})
    scores = {key: torch.cat([part[key] for part in parts]).float().cpu().numpy() for key in parts[0]}
    scores["psnr"] = psnr_of(scores["mse"])
    return scores
