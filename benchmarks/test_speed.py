"""Every measurement of the registry, once per session, with its ratios next to its duration.

    pytest benchmarks --benchmark-only        CPU, minutes; writes a record and results/tables/speed.csv

No time is asserted, as a busy machine is not a failure. `python -m benchmarks.speed` does the same without pytest.
"""

from __future__ import annotations

import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import registry
from benchmarks.registry import Failure, Measured
from benchmarks.setting import Setting


@pytest.mark.parametrize("name", [name for name in registry.MEASUREMENTS if name not in registry.OPTIONAL])
def test_speed(name: str, benchmark: BenchmarkFixture, setting: Setting, measured: Measured) -> None:
    started = time.monotonic()
    result = benchmark.pedantic(registry.one, args=(name, setting), rounds=1, iterations=1)
    measured.seconds[name] = time.monotonic() - started
    if isinstance(result, Failure):
        measured.failures.append(result)
        pytest.skip(result.reason)
    measured.ratios.extend(result)
    benchmark.extra_info.update({f"{ratio.row}/{ratio.metric}": ratio.ratio for ratio in result})
