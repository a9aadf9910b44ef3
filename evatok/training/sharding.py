"""Fully sharded training (FSDP2): every rank holds a shard of parameters, gradients, moments and moving average.

A layer's parameters are gathered when it computes, and its gradients reduced into shards. Saved states hold full
tensors, so that a run resumes on any number of ranks, sharded or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from evatok.storage import ranks


def shard(module: nn.Module) -> None:
    """Shard a network, layer by layer, over all ranks.

    Args:
        module: with its layers as `layers`, and a method `loss` that training calls instead of `forward`.
    """
    from torch.distributed.device_mesh import init_device_mesh  # imported here and below: most trainings never need it
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.count(),))
    layers: Any = module.layers
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "loss")


def is_sharded(module: nn.Module) -> bool:
    if ranks.count() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


@contextmanager
def unreduced(module: nn.Module) -> Iterator[None]:
    """Within, gradients are not yet reduced over ranks."""
    sharded: Any = module
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)


def whole(state: Any) -> Any:
    """Return the same nested state with full tensors; a collective call of all ranks."""
    if hasattr(state, "full_tensor"):
        return state.full_tensor().detach().cpu()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [whole(value) for value in state]
    return state


def own(module: nn.Module) -> Any:
    """Return local shards (of a module's parameters, or of their means) as plain tensors."""
    return [p.to_local() if hasattr(p, "to_local") else p for p in module.parameters()]


def split(state: dict[str, Any], module: nn.Module) -> dict[str, Any]:
    """Split a module's full state into its shards."""
    like = module.state_dict()
    return {name: part_of(value, like[name]) for name, value in state.items()}


def split_moments(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Split an optimiser's full state into the shards of its parameters."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    moments = {
        number: {name: part_of(value, parameters[number]) if value.ndim else value for name, value in held.items()}
        for number, held in state["state"].items()
    }
    return {**state, "state": moments}


def part_of(value: torch.Tensor, like: Any) -> torch.Tensor:
    """Return this rank's shard of a full tensor, split like `like`."""
    if not hasattr(like, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
