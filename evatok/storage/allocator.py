"""glibc's allocator, told to keep the memory of freed tensors.

By default it takes large blocks from the kernel and gives them back when they are freed, so that every large tensor of
a step on a CPU is paged in, and zeroed, anew: a tenth to a quarter of a training's time is then the kernel's.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_MEBIBYTE = 1 << 20


def keep_freed_memory() -> bool:
    """Let this process keep up to 2 GiB of freed memory for its next tensors; False where the C library is another.

    Blocks of up to 1 GiB come from it. Values are the same either way.
    """
    return _set(mmap=1024 * _MEBIBYTE, trim=2**31 - 1, pad=256 * _MEBIBYTE)


def return_freed_memory() -> bool:
    """As far as glibc goes by itself: blocks above 32 MiB, and what is freed beyond 64, go back at once."""
    return _set(mmap=32 * _MEBIBYTE, trim=64 * _MEBIBYTE, pad=128 << 10)


def _set(mmap: int, trim: int, pad: int) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*pair) == 1 for pair in ((_MMAP_THRESHOLD, mmap), (_TRIM_THRESHOLD, trim), (_TOP_PAD, pad)))
