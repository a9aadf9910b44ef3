"""The allocator keeps what is freed, so that the next tensor of that size is not paged in anew."""

import os
import resource
import sys

import pytest
import torch

from evatok.storage import allocator


def faults_of_tensors(mebibytes: int = 48, count: int = 20) -> int:
    """Page faults of tensors that are made, written and freed one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(mebibytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_tensors_that_follow_each_other_share_pages_that_are_kept_and_none_that_are_returned(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator, "memory_bytes", lambda: allocator.LEAST)
    assert allocator.return_freed_memory()
    returned = faults_of_tensors()
    try:
        assert allocator.keep_freed_memory()
        faults_of_tensors(count=1)  # these pages come from the kernel once
        assert faults_of_tensors() < returned / 5
    finally:
        allocator.return_freed_memory()
    with monkeypatch.context() as small:
        small.setattr(allocator, "memory_bytes", lambda: allocator.LEAST - 1)
        assert not allocator.keep_freed_memory()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not allocator.keep_freed_memory(), "whoever sets glibc's own variables decides"
