"""How much of the battery is run, and what its tests share: the process that forks, every unbroken run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from battery.base import Base
from battery.running import Server

KILLS, INPUTS = 1, 1
"""Kills of each experiment and inputs of each kind where nothing else is asked: as many as CI has time for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pipeline", "the battery of interruptions and damaged inputs (tests/pipeline)")
    group.addoption("--kills", type=int, help=f"interruptions of each experiment ({KILLS})")
    group.addoption("--inputs", type=int, help=f"damaged or nonsensical inputs of each kind ({INPUTS})")
    group.addoption("--draw", type=int, help="seed of what is drawn at random (0)")


@pytest.fixture(scope="session")
def kills(request) -> int:
    return request.config.getoption("--kills", None) or KILLS


@pytest.fixture(scope="session")
def inputs(request) -> int:
    return request.config.getoption("--inputs", None) or INPUTS


@pytest.fixture(scope="session")
def draw_seed(request) -> int:
    return request.config.getoption("--draw", None) or 0


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """Forks commands from a process that has imported everything."""
    made = Server(tmp_path_factory.mktemp("server") / "log")
    yield made
    made.close()


@pytest.fixture(scope="session")
def base(tmp_path_factory, server) -> Base:
    """The clips, and every experiment's unbroken run."""
    return Base(tmp_path_factory.mktemp("base"), server)


@pytest.fixture
def judged(tally) -> Iterator[Callable[[Callable[[], str]], None]]:
    """Calls a trial, counts how it ended, and goes on; the test fails at its end, with all that was found."""
    faults: list[str] = []

    def judge(trial: Callable[[], str]) -> None:
        try:
            tally[trial()] += 1
        except AssertionError as fault:
            tally["faults"] += 1
            faults.append(str(fault))

    yield judge
    assert not faults, f"{len(faults)} faults\n" + "\n\n".join(faults)
