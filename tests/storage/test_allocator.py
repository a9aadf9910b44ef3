"""The allocator keeps what is freed, so that the next tensor of that size is not paged in anew."""

import os
import platform
import subprocess
import sys

import pytest

from evatok.storage import allocator
from evatok.storage.environment import REPOSITORY

MEASURED = """
import ctypes
import torch
from evatok.storage import allocator

class Mallinfo(ctypes.Structure):
    _fields_ = [("arena", ctypes.c_size_t), ("ordblks", ctypes.c_size_t), ("smblks", ctypes.c_size_t)]
    _fields_ += [("hblks", ctypes.c_size_t), ("rest", ctypes.c_size_t * 6)]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo

def taken(mebibytes=48):
    before = mallinfo()
    tensor = torch.zeros(mebibytes << 18)
    alive = mallinfo()
    del tensor
    return alive.hblks - before.hblks, alive.arena - mallinfo().arena

allocator.memory_bytes = lambda: allocator.LEAST
assert allocator.return_freed_memory()
print(*taken())
assert allocator.keep_freed_memory()
print(*taken())
"""
"""Prints, first where freed memory is returned and then where it is kept, the regions that a tensor took from the
kernel for itself, and the bytes that the heap gave back as it was freed. By glibc's own count, as a sandboxed kernel
counts no page faults, and in a new process, as an old one's heap may have room for the tensor."""


def without_own_settings() -> dict[str, str]:
    """The environment without glibc's variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="glibc that counts its memory")
def test_tensors_that_follow_each_other_share_pages_that_are_kept_and_none_that_are_returned():
    environment = {**without_own_settings(), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", MEASURED]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    returned, kept = ended.stdout.splitlines()
    assert returned == "1 0", "mapped for itself, unmapped as it is freed"
    assert kept == "0 0", "on the heap, which keeps its pages"


def test_small_machines_and_settings_of_the_user_s_own_are_left_alone(monkeypatch):
    for name in os.environ.keys() - without_own_settings().keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator, "memory_bytes", lambda: allocator.LEAST - 1)
    assert not allocator.keep_freed_memory()
    monkeypatch.setattr(allocator, "memory_bytes", lambda: allocator.LEAST)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not allocator.keep_freed_memory(), "whoever sets glibc's own variables decides"
