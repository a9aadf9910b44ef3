"""A router in use: logits of clips, and how good its choices are against the candidate table.

Legend: N clips, A candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from evatok.assignments import reward
from evatok.assignments.reward import Scale
from evatok.data.clips import to_network
from evatok.errors import EvatokError
from evatok.routing.networks import RouterConfig, build_router
from evatok.storage import checkpoints
from evatok.tokenizers.evatok import TokenizerConfig


class RoutingError(EvatokError, ValueError):
    """A router that does not fit the tokenizer it is to serve."""


@dataclass(frozen=True)
class OperatingPoint:
    """Which reward a router was trained for: the metric, its scale, and the weights (w_l = 2 - w_q)."""

    metric: str
    w_q: float
    scale: Scale

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OperatingPoint:
        return cls(values["metric"], values["w_q"], Scale.from_dict(values["scale"]))


@dataclass(frozen=True)
class Router:
    """A trained router with the operating point baked into it (suppl. Sec. B)."""

    module: nn.Module
    config: RouterConfig
    point: OperatingPoint
    checkpoint: checkpoints.Checkpoint

    @classmethod
    def load(cls, path: Path | str) -> Router:
        """Read a router's checkpoint.

        Raises:
            CheckpointError: absent, damaged, or no router.
        """
        checkpoint = checkpoints.load(path, "router")
        with checkpoints.built_from(path):
            config = RouterConfig.from_dict(checkpoint.config)
            module = build_router(config)
            point = OperatingPoint.from_dict(checkpoint.facts["point"])
        checkpoint.fill(module)
        return cls(module.eval(), config, point, checkpoint)

    def check_scored_by(self, tokenizer: str) -> None:
        """Raise RoutingError for clips scored by another tokenizer (sha256) than the one this router learned from."""
        own = self.checkpoint.parents.get("tokenizer")
        if own is not None and own != tokenizer:
            raise RoutingError(
                f"the router learned from scores of tokenizer {own[:12]}, these are of {tokenizer[:12]}: score the "
                "clips by its own, or train a router on these"
            )

    def check_fits(self, tokenizer: TokenizerConfig) -> None:
        """Raise RoutingError for a tokenizer of other levels, blocks or clips than this router's."""
        pairs = {
            "levels": (self.config.levels, tokenizer.levels),
            "frames": (self.config.frames, tokenizer.frames),
            "size": (self.config.size, tokenizer.size),
            "temporal blocks": (self.config.blocks, tokenizer.candidates.blocks),
        }
        for name, (mine, its) in pairs.items():
            if mine != its:
                raise RoutingError(f"the router was made for {name} {mine}, the tokenizer has {its}")

    @torch.no_grad()
    def assign(self, clips: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
        """(B, K) tokens a block of clips (B, 3, T, H, W) in [0, 1], on their device.

        Args:
            among: (A,) candidates that may be named, as `beginning` gives them; None: all.
        """
        scores = _finite(self.module(clips))
        if among is not None:
            scores = scores.masked_fill(~among.to(scores.device), -torch.inf)
        best = scores.argmax(1)
        return torch.from_numpy(self.config.candidates.rows).to(clips.device)[best]

    def beginning(self, prefix: tuple[int, ...]) -> torch.Tensor:
        """(A,) which candidates' first blocks have the tokens `prefix`. Raises RoutingError where none begins so."""
        candidates = self.config.candidates
        begins = torch.tensor([tuple(row[: len(prefix)]) == prefix for row in candidates.rows.tolist()])
        if not begins.any():
            raise RoutingError(f"no assignment of levels {candidates.levels} begins with {prefix}")
        return begins

    def ranking(self, clips: np.ndarray, batch: int = 64) -> np.ndarray:
        """(N, A) candidates of uint8 clips (N, T, H, W, 3), most probable first."""
        return ranking(logits(self.module, clips, batch))

    def assignments(self, clips: np.ndarray, batch: int = 64) -> np.ndarray:
        """(N, K) tokens per block."""
        return self.config.candidates.row(self.ranking(clips, batch)[:, 0])


@torch.no_grad()
def logits(module: nn.Module, clips: np.ndarray, batch: int = 64) -> torch.Tensor:
    """(N, A) float32 logits of uint8 clips, in float32 on the module's device.

    Raises:
        RoutingError: logits that are not finite, whose largest would name some assignment all the same.
    """
    device = next(module.parameters()).device
    parts = [module(to_network(clips[i : i + batch], device)).cpu() for i in range(0, len(clips), batch)]
    return _finite(torch.cat(parts))


def _finite(logits: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(logits).all():
        raise RoutingError("the router's logits are not finite: its weights, or the clips, hold NaN or infinity")
    return logits


def ranking(logits: torch.Tensor) -> np.ndarray:
    """(N, A) candidate indices, largest logit first; ties go to the lower index."""
    return logits.argsort(dim=1, descending=True, stable=True).numpy()


def quality_of_ranking(table: np.ndarray, ranks: np.ndarray) -> dict[str, float]:
    """top1 and top5 accuracy and proxy-reward percentile, in percent, of a ranking under rewards (N, A)."""
    return {
        "top1": reward.top_k(table, ranks, 1),
        "top5": reward.top_k(table, ranks, 5),
        "percentile": reward.percentile(table, ranks[:, 0]),
    }


Target = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def hard_target(logits: torch.Tensor, rewards: torch.Tensor, temperature: float) -> torch.Tensor:
    """The paper's loss: cross-entropy with the one max-proxy-reward candidate (Sec. 3.3)."""
    return F.cross_entropy(logits, rewards.argmax(1))


def soft_target(logits: torch.Tensor, rewards: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy with softmax(reward / temperature): near misses count as nearly right."""
    return F.cross_entropy(logits, (rewards / temperature).softmax(1))


def reward_target(logits: torch.Tensor, rewards: torch.Tensor, temperature: float) -> torch.Tensor:
    """Minus the expected reward of a draw from the router, with an entropy bonus of weight `temperature`.

    Up to a constant the Kullback-Leibler divergence from the router to softmax(reward / temperature).
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    return (p * (temperature * log_p - rewards)).sum(1).mean()


TARGETS: dict[str, Target] = {"hard": hard_target, "soft": soft_target, "reward": reward_target}
