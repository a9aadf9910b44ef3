"""Estimate what a stage takes before anyone pays for it: parameters, memory, operations, disk and hours.

`dry_run=True` trains nothing, needs neither clips nor device, and leaves no record. Memory covers weights, gradients,
optimiser, moving average and activations kept for the backward pass (`evatok.evaluation.footprint`); kernel workspaces
and allocator fragmentation add 10 to 20 %. Hours are operations over `teraflops` per device, meaning the achieved
speed; by default a third of an H100's bfloat16 peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from evatok.evaluation.footprint import Footprint

GB = 1e9
_AGAIN = 4 / 3  # a step of three passes with the forward pass computed twice


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Attributes:
        trained, opposed, frozen: parameters of the network, of its discriminator, of networks that only judge.
        kept: bytes that a step keeps for its backward pass.
        operations: per clip, forward and backward, losses included; in stage 2, per clip scored.
        clip_bytes: per decoded clip.
        table_bytes: per clip scored in stage 2.
    """

    trained: int
    opposed: int
    frozen: int
    kept: Footprint
    operations: float
    clip_bytes: int
    table_bytes: int = 0

    def weights(self, parts: int = 1) -> float:
        """Return the bytes of float32 weights, gradients, two moments and moving average, split over `parts` ranks."""
        return 20 * self.trained / parts + 16 * self.opposed + 4 * self.frozen

    def fitting(self, memory: float, parts: int = 1) -> int:
        """Return how many clips fit in this memory; 0 if not even one does."""
        left = memory - self.weights(parts) - self.kept.fixed
        return max(0, math.floor(left / max(1.0, self.kept.per_clip)))


def told(config: dict[str, Any], cost: Callable[[dict[str, Any]], Cost]) -> dict[str, Any]:
    """Print what the configured stage takes, and return it."""
    found = cost(config)
    facts = scoring(config, found) if "steps" not in config else training(config, found)
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value:,}" if isinstance(value, int) else f"{name:<{width}}  {value:,.4g}")
    return {"dry_run": facts}


def training(config: dict[str, Any], cost: Cost) -> dict[str, float]:
    """Return what a training takes, per device where it says so."""
    devices, pieces = config["devices"], config["accumulate"]
    clips = config["batch"] // (devices * pieces)
    parts = devices if config.get("fsdp") else 1
    fits = cost.fitting(config["memory_gb"] * GB, parts)
    again = (_AGAIN if config.get("recompute") else 1) * (_AGAIN if pieces > 1 else 1)
    operations = cost.operations * config["batch"] * again
    seconds = operations / (devices * config["teraflops"] * 1e12)
    state = 16 * cost.trained + 12 * cost.opposed
    found = {
        "parameters": cost.trained,
        "parameters of the discriminator": cost.opposed,
        "parameters of frozen networks": cost.frozen,
        "devices": devices,
        "clips per device and piece": clips,
        "GB of weights, gradients, optimiser": cost.weights(parts) / GB,
        "GB kept for the backward pass": cost.kept.bytes(clips) / GB,
        "GB of memory per device": (cost.weights(parts) + cost.kept.bytes(clips)) / GB,
        f"clips per piece that fit {config['memory_gb']:g} GB": fits,
        "pieces that make the batch of them": _pieces(config["batch"] // devices, fits),
        "TFLOP per step": operations / 1e12,
        "seconds per step": seconds,
        "hours": seconds * config["steps"] / 3600,
        "GB of disk: states": 2 * state / GB,  # the next one is written before the previous one is removed
        "GB of disk: checkpoint": 2 * cost.trained / GB,
    }
    if config.get("train_clips") and not config.get("workers"):  # 0: all clips of the set
        found["GB of disk: training clips"] = cost.clip_bytes * config["train_clips"] / GB
    return found


def scoring(config: dict[str, Any], cost: Cost) -> dict[str, float]:
    """Return what stage 2 takes."""
    operations = cost.operations * config["clips"]
    return {
        "parameters": cost.trained,
        "parameters of frozen networks": cost.frozen,
        "devices": config["devices"],
        "GB of weights": 4 * (cost.trained + cost.frozen) / GB,
        "TFLOP per clip": cost.operations / 1e12,
        "hours": operations / (config["devices"] * config["teraflops"] * 1e12) / 3600,
        "GB of disk: scores": cost.table_bytes * config["clips"] / GB,
        "GB of disk: decoded clips": 0.0 if config["workers"] else cost.clip_bytes * config["clips"] / GB,
    }


def low_of(config: dict[str, Any]) -> torch.dtype | None:
    """Return the autocast type."""
    return torch.bfloat16 if config["bf16"] else torch.float16 if config.get("fp16") else None


def _pieces(clips: int, fits: int) -> int:
    """Return the fewest pieces of at most `fits` clips that these clips split into; 0 if there are none."""
    return next((count for count in range(1, clips + 1) if clips % count == 0 and clips // count <= fits), 0)
