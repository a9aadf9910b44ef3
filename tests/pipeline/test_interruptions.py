"""Whenever an experiment is interrupted, and however: run again, it ends as if nothing had happened."""

from __future__ import annotations

import functools
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from battery.base import Base
from battery.experiments import EXPERIMENTS, Experiment
from battery.leavings import differences, leavings, litter
from battery.running import Ended

pytestmark = [
    pytest.mark.slow,  # a process per interruption
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 128 + signal.SIGINT}
MOST_IN_A_ROW = 3
NAMES = [experiment.name for experiment in EXPERIMENTS]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=NAMES)
def test_an_interrupted_experiment_ends_as_the_unbroken_one(
    base, tmp_path, kills, draw_seed, judged, tally, experiment
):
    drawn = random.Random(f"{draw_seed} {experiment.name}")
    left, next_signal, trials = kills, drawn.randrange(len(SIGNALS)), 0
    base.run(experiment.name)
    while left > 0:
        trials += 1
        row = min(left, drawn.randint(1, MOST_IN_A_ROW))
        numbers = [SIGNALS[(next_signal + place) % len(SIGNALS)] for place in range(row)]
        next_signal += row
        left -= row
        judged(functools.partial(interrupted, base, experiment, tmp_path / str(trials), numbers, drawn, tally))


def interrupted(
    base: Base,
    experiment: Experiment,
    out: Path,
    numbers: list[int],
    drawn: random.Random,
    tally: Counter[str],
) -> str:
    """Interrupt a run by each signal in turn, end it, and compare; returns how it ended."""
    whole = base.run(experiment.name)
    line = experiment.line(base.folder, out)
    for number in numbers:
        at_change = {"at_change": drawn.randint(1, whole.changes)}
        when = drawn.choice([at_change, {"after": drawn.random() * whole.seconds}])
        killed = litter(out) if out.exists() else []
        ended = base.server.run(line, out, number=number, **when)
        told = f"{experiment.name}, {signal.Signals(number).name} {when}: {ended}"
        assert not ended.hung, told
        assert not ended.left, f"{told}: left behind {ended.left}"
        if ended.status != 0:
            check_interrupted(ended, number, told)
            if number != signal.SIGKILL:
                assert not set(litter(out)) - set(killed), f"{told}: {litter(out)}"
            tally[f"interruptions by {signal.Signals(number).name}"] += 1
    ended = base.server.run(line, out)
    told = f"{experiment.name} after {[signal.Signals(number).name for number in numbers]}: {ended}"
    assert ended.status == 0, told
    assert not ended.left, told
    assert not [name for name in litter(out) if not name.startswith("tmp/")], told
    odd = differences(base.left(experiment.name), leavings(out))
    assert not odd, f"{told}\n" + "\n".join(odd)
    return "interrupted runs that ended as the unbroken one"


def check_interrupted(ended: Ended, number: int, told: str) -> None:
    """An interrupted run says how to go on; a killed one cannot."""
    assert "Traceback" not in ended.err, told
    if ended.status == -number and (number == signal.SIGKILL or "Completed after" in ended.err):
        return  # at once, or when all was done
    assert ended.status == CODES[number], told
    assert "the same command resumes from it" in ended.err.splitlines()[-1], told
