"""With `--benchmark-only`, the session's ratios are written to a record and to results/tables/speed.csv."""

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
    """Measurements of the session; written at its end, unless nothing is timed."""
    started, measurements = time.monotonic(), Measured([], [], {})
    yield measurements
    if request.config.getoption("--benchmark-only") and measurements.ratios:
        complete = set(measurements.seconds) >= set(registry.names(setting))
        results = Path(request.config.getoption("--speed-results"))
        writing.write(measurements, setting, results, seconds=time.monotonic() - started, complete=complete)
