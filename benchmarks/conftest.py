"""With `--benchmark-only`, the session's ratios end in a record and in results/tables/speed.csv."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import registry, writing
from benchmarks.registry import Measured
from benchmarks.setting import Setting
from evatok.storage import records


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--speed-results", default=str(records.REPOSITORY / "results"), help="folder of results")
    parser.addoption("--speed-repeats", type=int, default=3, help="turns of each measurement of speed")


@pytest.fixture(scope="session")
def setting(request: pytest.FixtureRequest) -> Setting:
    return Setting.of("cpu", "toy", repeats=request.config.getoption("--speed-repeats"))


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest, setting: Setting) -> Iterator[Measured]:
    """What the session measures; written when it ends, unless nothing is timed."""
    begun, found = time.monotonic(), Measured([], [], {})
    yield found
    if request.config.getoption("--benchmark-only") and found.ratios:
        whole = set(found.seconds) >= set(registry.names(setting))
        results = Path(request.config.getoption("--speed-results"))
        writing.write(found, setting, results, seconds=time.monotonic() - begun, whole=whole)
