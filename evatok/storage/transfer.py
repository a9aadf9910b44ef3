"""Move what was made on the CPU to a device without waiting for the device."""

from __future__ import annotations

import torch


def moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A CPU tensor on a device: copied from pinned memory, in the order of the device's work, while the CPU goes on.

    A plain `to(device)` waits until everything that was asked of the device before is done.
    """
    return _copied(tensor, torch.device(device))


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
