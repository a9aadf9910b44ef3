"""glibc's allocator, told to keep the memory of freed tensors.

By default it takes large blocks from the kernel and gives them back when they are freed, so that every large tensor of
a step on a CPU is paged in, and zeroed, anew: `python -m benchmarks.speed --only freed_memory` tells the cost.
Blocks above 256 MiB are given back even so: kept as well, they leave ever more memory between them that cannot be used.
"""

from __future__ import annotations

import ctypes
import os
import platform

from evatok.storage.files import memory_bytes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_MEBIBYTE = 1 << 20
LEAST = 16 << 30
"""Bytes of memory below which it is worth more than time."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory for its next tensors; False where nothing is changed.

    That is so of another C library, of less than 16 GiB of memory, and where the environment sets glibc's own variables
    (MALLOC_..., GLIBC_TUNABLES): `MALLOC_TRIM_THRESHOLD_=131072` returns memory as by default. Values are the same
    either way.
    """
    decided = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if decided or memory_bytes() < LEAST:
        return False
    return _set(mmap=256 * _MEBIBYTE, trim=1024 * _MEBIBYTE, pad=128 << 10)


def return_freed_memory() -> bool:
    """As far as glibc goes by itself: blocks above 32 MiB, and what is freed beyond 64, go back at once."""
    return _set(mmap=32 * _MEBIBYTE, trim=64 * _MEBIBYTE, pad=128 << 10)


def _set(mmap: int, trim: int, pad: int) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*pair) == 1 for pair in ((_MMAP_THRESHOLD, mmap), (_TRIM_THRESHOLD, trim), (_TOP_PAD, pad)))
