"""Make glibc's allocator keep the memory of freed tensors.

By default it takes large blocks from the kernel and returns them when freed, so that every large tensor of a CPU step
is paged in and zeroed again: `python -m benchmarks.speed --only freed_memory` measures the cost. Blocks above 256 MiB
are returned even so: keeping them would fragment memory more and more.
"""

from __future__ import annotations

import ctypes
import os
import platform

from evatok.storage.files import memory_bytes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # constants of malloc.h
_MEBIBYTE = 1 << 20
LEAST = 16 << 30
"""Bytes of memory below which saving memory matters more than time."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory for its next tensors; return False if nothing is changed.

    Nothing is changed with another C library, with less than 16 GiB of memory, and if the environment sets glibc's own
    variables (MALLOC_..., GLIBC_TUNABLES): `MALLOC_TRIM_THRESHOLD_=131072` returns memory as by default. Values are the
    same either way.
    """
    decided = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if decided or memory_bytes() < LEAST:
        return False
    return _set(mmap=256 * _MEBIBYTE, trim=1024 * _MEBIBYTE, pad=128 << 10)


def return_freed_memory() -> bool:
    """Undo it as far as glibc allows: blocks above 32 MiB, and freed memory beyond 64 MiB, are returned at once."""
    return _set(mmap=32 * _MEBIBYTE, trim=64 * _MEBIBYTE, pad=128 << 10)


def _set(mmap: int, trim: int, pad: int) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*pair) == 1 for pair in ((_MMAP_THRESHOLD, mmap), (_TRIM_THRESHOLD, trim), (_TOP_PAD, pad)))
