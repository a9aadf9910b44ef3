"""The loss of a step over several ranks: DDP, by Hugging Face accelerate, averages gradients as they are computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from evatok.storage import ranks
from evatok.training import sharding

Terms = dict[str, torch.Tensor]
StepCall = Callable[[int, torch.Generator], tuple[torch.Tensor, Terms]]


class _Step(nn.Module):
    """A step's loss as a module: an objective calls parts of its network, but DDP only hooks what it wraps."""

    def __init__(self, module: nn.Module, step_loss: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.step_loss = partial(step_loss)  # keeps the objective's other networks out of this module's parameters

    def forward(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, Terms]:
        return self.step_loss(self.module, step, generator)


def unsynchronised(call: StepCall) -> AbstractContextManager[Any]:
    """Within, gradients are not synchronised across ranks."""
    if isinstance(call, DistributedDataParallel):
        return call.no_sync()
    module = call.args[0] if isinstance(call, partial) else None
    return sharding.unreduced(module) if module is not None and sharding.is_sharded(module) else nullcontext()


def step_call(module: nn.Module, step_loss: Callable[..., Any]) -> StepCall:
    """Return (step, generator) -> the loss of this rank's part of the batch and its terms."""
    if ranks.count() == 1 or sharding.is_sharded(module):
        return partial(step_loss, module)
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # A term may be off in some steps, leaving the parameters that only it trains unused.
    how = DistributedDataParallelKwargs(find_unused_parameters=True)
    on_cpu = next(module.parameters()).device.type == "cpu"
    wrapped: StepCall = Accelerator(cpu=on_cpu, kwargs_handlers=[how]).prepare_model(_Step(module, step_loss))
    return wrapped
