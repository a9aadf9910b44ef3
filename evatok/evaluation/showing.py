"""Clips of an evaluation to look at: the worst and the median ones.

Legend: N clips of the evaluation, n of them to show, T frames, H x W pixels, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evatok.data.clips import from_network, to_network
from evatok.evaluation.measuring import checked_output
from evatok.evaluation.modules import in_evaluation_mode
from evatok.evaluation.systems import System

WORST, MEDIAN = "worst", "median"


def worst_and_median(values: np.ndarray, count: int, *, higher: bool) -> dict[int, str]:
    """Choose `count` clips by their values (N,): half of them the worst, half those around the median.

    Returns:
        Index of each clip, from worst to best, and which of the two it is; all clips if there are no more than `count`.
    """
    order = np.argsort(values if higher else -values, kind="stable")
    worst = min(-(-count // 2), len(order))
    middle = min(count - worst, len(order) - worst)
    first = max(worst, len(order) // 2 - middle // 2)
    first = min(first, len(order) - middle)
    chosen = [
        *((index, WORST) for index in order[:worst]),
        *((index, MEDIAN) for index in order[first : first + middle]),
    ]
    return {int(index): rank for index, rank in chosen}


@torch.no_grad()
def reconstructed(
    system: System, real: np.ndarray, indices: Sequence[int], device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reconstruct clips (n, T, H, W, 3) uint8 of these indices again.

    Returns:
        (n, T, H, W, 3) uint8, and (n, K) tokens per block, None for a system without tokens.
    """
    made: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    with in_evaluation_mode(system):
        for clip, index in zip(real, indices, strict=True):
            inputs = to_network(clip[None], device)
            output: Any = system(inputs.clone(), np.array([index]))
            made.append(from_network(checked_output(inputs, output, index)))
            if output.lengths is not None:
                tokens.append(output.lengths[0].cpu().numpy().astype(np.int64))
    return np.concatenate(made), np.stack(tokens) if tokens else None
