"""A recipe: a command line as data, with what it makes and what it needs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evatok.errors import EvatokError

CHECKPOINTS = "results/checkpoints"
TABLES = "results/tables/candidates"
WORK = "results/work"
PROXY = f"{CHECKPOINTS}/proxy-toy-motion.safetensors"
MATCHED = f"{CHECKPOINTS}/router-toy-pyramid-matched.safetensors"
"""The router that final tokenizers are trained under."""
ALL_METRICS = "psnr,ssim,l1,mse,st_lpips_alex,rfvd,kvd"
"""What reconstructions are measured by, offline."""


class RecipeError(EvatokError, ValueError):
    """A name that no recipe has."""


@dataclass(frozen=True)
class Recipe:
    """One command and what it makes.

    Attributes:
        name: of the artefact.
        experiment: of evatok.experiments.
        settings: configuration updates, over the named configuration.
        named: the named configuration.
        outcome: the file it makes, from the repository's root; "" where it makes a record only.
        needs: names of recipes to be run before.
        parents: files that it must have been made from, by their role in its header: made from others it is outdated.
        processes: how many score shards side by side.
        hours: of two cores with bfloat16 instructions, about.
    """

    name: str
    experiment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    named: str = "embedded"
    outcome: str = ""
    needs: tuple[str, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1
    hours: float = 0.1

    def command(self, **further: Any) -> list[str]:
        """Arguments after `python`."""
        settings = {**self.settings, **further}
        words = [f"{key}={_written(value)}" for key, value in settings.items()]
        return ["-m", f"evatok.experiments.{self.experiment}", "with", *([self.named] if self.named else []), *words]


def _written(value: Any) -> str:
    """A value as Sacred reads it back: in quotes only where a string would be taken for something else."""
    if not isinstance(value, str):
        return str(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)
