"""A router as an assignment rule, and parsing of any rule from a configuration string."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evatok.assignments.rules import Fixed, Random, Rule, RuleError
from evatok.routing.trained_router import Router
from evatok.tokenizers.evatok import TokenizerConfig

FORMS = "uniform:16, fixed:16,8,8,4, router:CHECKPOINT and random"
"""The forms that `parse` accepts."""


class Routed(Rule):
    """A router's most probable assignment among those that begin with the lengths `prefix`.

    The router runs in float32 under any autocast, so that a rule chooses the same assignments in training and in
    evaluation.

    Raises:
        RoutingError: the router was made for another tokenizer, or no candidate begins with `prefix`.
    """

    def __init__(self, router: Router, shape: TokenizerConfig, prefix: tuple[int, ...] = ()) -> None:
        router.check_fits(shape)
        sha256 = router.checkpoint.sha256
        beginning = {"prefix": list(prefix)} if prefix else {}
        identity = {"assignment": "router", "router": sha256, "w_q": router.point.w_q, **beginning}
        super().__init__(identity, {"router": sha256})
        self.router, self._among = router, router.beginning(prefix)

    def __call__(
        self, clips: torch.Tensor, numbers: np.ndarray | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        with torch.autocast(clips.device.type, enabled=False):
            return self.router.assign(clips, self._among)


def load_routed(path: Path | str, shape: TokenizerConfig, device: str = "cpu", prefix: tuple[int, ...] = ()) -> Routed:
    """Load the rule of a router's checkpoint. Raises CheckpointError; for other errors see `Routed`."""
    return Routed(Router.load(path, device), shape, prefix)


def parse(text: str, shape: TokenizerConfig, *, seed: int = 0, device: str = "cpu") -> Rule:
    """Parse a rule: `uniform:16`, `fixed:16,8,8,4`, `router:CHECKPOINT` or `random`.

    Args:
        seed: for `random`.
        device: for a router.

    Raises:
        RuleError: none of these forms, or tokens that are not one of the levels.
        CheckpointError, RoutingError: a router that is missing, damaged, or was made for another tokenizer.
    """
    kind, _, rest = text.partition(":")
    if kind == "random" and not rest:
        return Random(shape.candidates, seed)
    if kind == "router" and rest:
        return load_routed(rest, shape, device)
    row = rest.split(",")
    if kind == ("uniform" if len(row) == 1 else "fixed") and all(part.strip().isdigit() for part in row):
        return Fixed(shape.candidates, [int(part) for part in row])
    raise RuleError(f"{text!r} is not one of {FORMS}")
