"""A recipe: a command line as data, with what it makes and needs."""

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
"""Router that final tokenizers are trained with."""
ALL_METRICS = "psnr,ssim,l1,mse,st_lpips_alex,rfvd,kvd"
"""Metrics of reconstructions, available offline."""


class RecipeError(EvatokError, ValueError):
    """An unknown recipe name."""


@dataclass(frozen=True)
class Recipe:
    """One command and what it makes.

    Attributes:
        name: the artefact's.
        experiment: module of evatok.experiments.
        settings: configuration updates, over the named configuration.
        named: the named configuration.
        outcome: file it makes, relative to the repository root; "" if it only makes a record.
        needs: names of recipes to run first.
        parents: files it must have been made from, by role in its header; with other parents it is outdated.
        processes: score shards in parallel.
        hours: rough estimate, on two cores with bfloat16 instructions.
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
        """Return the arguments after `python`."""
        settings = {**self.settings, **further}
        words = [f"{key}={_written(value)}" for key, value in settings.items()]
        return ["-m", f"evatok.experiments.{self.experiment}", "with", *([self.named] if self.named else []), *words]


def _written(value: Any) -> str:
    """Format a value as Sacred reads it back: quoted only if a string would be parsed as something else."""
    if not isinstance(value, str):
        return str(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)
