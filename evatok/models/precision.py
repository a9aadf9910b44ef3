"""Compute precision: bfloat16 autocast on request, and where it is native.

Every device runs bfloat16, but a CPU without instructions for it, or a GPU from before 2020, emulates it several times
slower than float32. A configuration's `bf16 = None` therefore means `bf16_is_native(device)`.
"""

from __future__ import annotations

import torch


def autocast(device: str | torch.device, bf16: bool, fp16: bool = False) -> torch.autocast:
    """bfloat16 autocast on `device` if `bf16`, float16 if `fp16`, else the precision of the networks' weights."""
    dtype = torch.float16 if fp16 else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=bf16 or fp16)


def bf16_is_native(device: str | torch.device) -> bool:
    """Whether `device` has instructions for bfloat16; False for a missing or unknown device."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and any(_cpu_has(name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _cpu_has(name: str) -> bool:
    """Call one of PyTorch's private checks of the CPU; False if this release does not have it."""
    check = getattr(torch.cpu, name, None)
    return bool(check and check())
