"""A trained router in use, the quality of its choices under the candidate table, and the losses that train it.

Legend: N clips, B clips of a batch, K temporal blocks, A candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from evatok.assignments import reward
from evatok.assignments.reward import Scale
from evatok.data.clips import network_batches
from evatok.errors import EvatokError
from evatok.models.trained import Trained
from evatok.routing.networks import RouterConfig, build_router
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.evatok import TokenizerConfig


class RoutingError(EvatokError, ValueError):
    """A router that does not fit a tokenizer, or has invalid logits."""


@dataclass(frozen=True)
class OperatingPoint:
    """The reward that a router was trained for: metric, scale and weight (w_l = 2 - w_q)."""

    metric: str
    w_q: float
    scale: Scale

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OperatingPoint:
        """Build from JSON. Raises TypeError or LookupError for an invalid operating point."""
        scale = checkpoints.shaped(Scale, values["scale"])
        return checkpoints.shaped(cls, {"metric": values["metric"], "w_q": values["w_q"], "scale": scale})


@dataclass(frozen=True)
class Router(Trained):
    """A trained router and its operating point (suppl. Sec. B)."""

    KIND = "router"

    module: nn.Module
    config: RouterConfig
    point: OperatingPoint
    checkpoint: Checkpoint

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        config, point = RouterConfig.from_dict(checkpoint.config), OperatingPoint.from_dict(checkpoint.facts["point"])
        return cls(build_router(config), config, point, checkpoint, **parts)

    def check_scored_by(self, tokenizer: str) -> None:
        """Raise RoutingError for scores of another tokenizer (sha256) than the one this router was trained on."""
        trained_on = self.checkpoint.parents.get("tokenizer")
        if trained_on is not None and trained_on != tokenizer:
            raise RoutingError(
                f"the router was trained on scores of tokenizer {trained_on[:12]}, these are of {tokenizer[:12]}: "
                "score the clips with that tokenizer, or train a router on these scores"
            )

    def check_fits(self, tokenizer: TokenizerConfig) -> None:
        """Raise RoutingError unless the tokenizer has this router's levels, blocks and clip shape."""
        pairs = {
            "levels": (self.config.levels, tokenizer.levels),
            "frames": (self.config.frames, tokenizer.frames),
            "size": (self.config.size, tokenizer.size),
            "temporal blocks": (self.config.blocks, tokenizer.candidates.blocks),
        }
        for name, (expected, actual) in pairs.items():
            if actual != expected:
                raise RoutingError(f"the router was made for {name} {expected}, the tokenizer has {actual}")

    @torch.no_grad()
    def assign(self, clips: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
        """Choose (B, K) tokens per block for clips (B, 3, T, H, W) in [0, 1], on their device.

        Args:
            among: (A,) True for candidates that may be chosen, see `beginning`; None: all.
        """
        scores = finite(self.module(clips))
        if among is not None:
            scores = scores.masked_fill(~among.to(scores.device), -torch.inf)
        best = scores.argmax(1)
        return torch.from_numpy(self.config.candidates.rows).to(clips.device)[best]

    def beginning(self, prefix: tuple[int, ...]) -> torch.Tensor:
        """(A,) True for candidates that begin with the lengths `prefix`. Raises RoutingError if there is none."""
        candidates = self.config.candidates
        begins = torch.tensor([tuple(row[: len(prefix)]) == prefix for row in candidates.rows.tolist()])
        if not begins.any():
            raise RoutingError(f"no assignment of levels {candidates.levels} begins with {prefix}")
        return begins

    def ranking(self, clips: np.ndarray, batch: int = 64) -> np.ndarray:
        """Rank the candidates (N, A) of uint8 clips (N, T, H, W, 3), most probable first."""
        return ranking(logits(self.module, clips, batch))

    def assignments(self, clips: np.ndarray, batch: int = 64) -> np.ndarray:
        """Choose (N, K) tokens per block for uint8 clips (N, T, H, W, 3)."""
        return self.config.candidates.row(self.ranking(clips, batch)[:, 0])


@torch.no_grad()
def logits(module: nn.Module, clips: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Compute logits (N, A) of uint8 clips (N, T, H, W, 3), in float32 on the module's device.

    Raises:
        RoutingError: logits that are not finite.
    """
    device = next(module.parameters()).device
    return finite(torch.cat([module(part).cpu() for part, _ in network_batches(clips, batch, device)]))


def finite(logits: torch.Tensor) -> torch.Tensor:
    """Return logits as they are. Raises RoutingError for NaN or infinity, of which argmax would still choose some."""
    if not torch.isfinite(logits).all():
        raise RoutingError("the router's logits are not finite: its weights or the clips contain NaN or infinity")
    return logits


def ranking(logits: torch.Tensor) -> np.ndarray:
    """Sort candidate indices (N, A) by logit, largest first; ties go to the lower index."""
    return logits.argsort(dim=1, descending=True, stable=True).numpy()


def quality_of_ranking(table: np.ndarray, ranks: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 accuracy and proxy-reward percentile, in percent, of a ranking (N, A) under rewards (N, A)."""
    return {
        "top1": reward.top_k(table, ranks, 1),
        "top5": reward.top_k(table, ranks, 5),
        "percentile": reward.percentile(table, ranks[:, 0]),
    }


RouterLoss = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def hard_target(logits: torch.Tensor, rewards: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy with the max-proxy-reward candidate, the paper's loss (Sec. 3.3)."""
    return F.cross_entropy(logits, rewards.argmax(1))


def soft_target(logits: torch.Tensor, rewards: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy with softmax(reward / temperature), so that near misses count as nearly correct."""
    return F.cross_entropy(logits, (rewards / temperature).softmax(1))


def reward_target(logits: torch.Tensor, rewards: torch.Tensor, temperature: float) -> torch.Tensor:
    """Negative expected reward of a sample from the router, with an entropy bonus of weight `temperature`.

    Up to constants, the Kullback-Leibler divergence of the router from softmax(reward / temperature).
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    return (p * (temperature * log_p - rewards)).sum(1).mean()


TARGETS: dict[str, RouterLoss] = {"hard": hard_target, "soft": soft_target, "reward": reward_target}
