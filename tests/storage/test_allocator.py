"""The allocator keeps what is freed, so that the next tensor of that size is not paged in anew."""

import ctypes
import os
import platform

import pytest
import torch

from evatok.storage import allocator


class Mallinfo(ctypes.Structure):
    """glibc's own count of its memory: a kernel in a sandbox may count no page faults at all."""

    _fields_ = [("arena", ctypes.c_size_t), ("ordblks", ctypes.c_size_t), ("smblks", ctypes.c_size_t)]
    _fields_ += [("hblks", ctypes.c_size_t), ("rest", ctypes.c_size_t * 6)]


def memory_of_a_tensor(mebibytes: int = 48) -> tuple[int, int]:
    """Regions that a new tensor took from the kernel for itself, and bytes the heap gave back as it was freed."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    before = mallinfo()
    tensor = torch.zeros(mebibytes << 18)
    alive = mallinfo()
    del tensor
    return alive.hblks - before.hblks, alive.arena - mallinfo().arena


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="glibc that counts its memory")
def test_tensors_that_follow_each_other_share_pages_that_are_kept_and_none_that_are_returned(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator, "memory_bytes", lambda: allocator.LEAST)
    assert allocator.return_freed_memory()
    assert memory_of_a_tensor() == (1, 0), "mapped for itself, unmapped as it is freed"
    try:
        assert allocator.keep_freed_memory()
        assert memory_of_a_tensor() == (0, 0), "on the heap, which keeps its pages"
    finally:
        allocator.return_freed_memory()
    with monkeypatch.context() as small:
        small.setattr(allocator, "memory_bytes", lambda: allocator.LEAST - 1)
        assert not allocator.keep_freed_memory()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not allocator.keep_freed_memory(), "whoever sets glibc's own variables decides"
