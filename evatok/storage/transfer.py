"""Move CPU tensors to a device without waiting for the device."""

from __future__ import annotations

import torch


def moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Copy a CPU tensor to a device from pinned memory, in stream order, without blocking the CPU.

    A plain `to(device)` waits for all work queued on the device before.
    """
    return _copied(tensor, torch.device(device))


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
