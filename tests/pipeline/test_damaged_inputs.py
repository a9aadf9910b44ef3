"""Whatever an experiment is given: it ends in time, well or with one line, and changes nothing else."""

from __future__ import annotations

import functools
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from battery import damage
from battery.base import Base, needed
from battery.experiments import EXPERIMENTS, Experiment
from battery.inputs import INPUTS, Input
from battery.leavings import differences, leavings
from battery.running import Ended

from evatok.errors import ERROR
from evatok.experiments import keys
from evatok.experiments.domains import Refused, Whole

pytestmark = [
    pytest.mark.slow,  # a process per input
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

SOUND = {damage.of_header, damage.of_weights, damage.of_table, damage.of_json}
"""Damage that may leave a sound file that means something else: nothing tells it from one that was meant."""


@pytest.mark.parametrize("kind", INPUTS, ids=[kind.name for kind in INPUTS])
def test_a_damaged_input_is_refused_in_one_line_or_does_no_harm(base, tmp_path, inputs, draw_seed, judged, kind):
    base.run(kind.reader)
    for number in range(inputs):
        drawn = random.Random(f"{draw_seed} {kind.name} {number}")
        judged(functools.partial(damaged, base, kind, tmp_path / str(number), drawn))


def damaged(base: Base, kind: Input, out: Path, drawn: random.Random) -> str:
    """Give an experiment a damaged input; returns how it ended."""
    out.mkdir()
    how, done = kind.place(base, out, drawn)
    before, store = names_in(out / "records"), base.state()
    ended = base.server.run(kind.line(base, out), out)
    told = f"{kind.name} -> {kind.reader}, {done}: {ended}"
    check_ended(ended, told)
    assert base.state() == store, f"{told}: the inputs were changed"
    if ended.status == ERROR:
        assert names_in(out / "records") == before, f"{told}: it left a record"
        return "damaged inputs refused in one line"
    left = {name: what for name, what in leavings(out).items() if not name.startswith("in/")}
    if kind.free or how in SOUND:
        return "damaged inputs that are sound ones"
    odd = differences(base.left(kind.reader), left)
    assert not odd, f"{told}: another result\n" + "\n".join(odd)
    return "damaged inputs that did no harm"


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=[experiment.name for experiment in EXPERIMENTS])
def test_a_nonsensical_setting_is_refused_before_any_work(base, tmp_path, inputs, draw_seed, judged, experiment):
    for other in needed(experiment):
        base.run(other)
    for number in range(2 * inputs):
        drawn = random.Random(f"{draw_seed} {experiment.name} {number}")
        judged(functools.partial(nonsensical, base, experiment, tmp_path / str(number), drawn))


def nonsensical(base: Base, experiment: Experiment, out: Path, drawn: random.Random) -> str:
    """Run an experiment with an odd value of a key; returns how it ended."""
    key, value = nonsense(experiment, drawn)
    store = base.state()
    ended = base.server.run(line_of(experiment, base, out, key, value), out)
    told = f"{experiment.command} {key}={value!r:.80}: {ended}"
    check_ended(ended, told)
    assert base.state() == store, f"{told}: the inputs were changed"
    if not admitted(experiment, key, value):
        assert ended.status == ERROR, f"{told}: it went on"
        assert key in ended.err.splitlines()[-1], told
        assert not leavings(out), f"{told}: it wrote before it looked"
        return "settings out of range, refused by name"
    if ended.status == ERROR:
        return "settings in range, refused in one line"
    leavings(out)  # reads every record: none holds what is not finite
    return "settings in range, run"


def check_ended(ended: Ended, told: str) -> None:
    """It ended by itself, well or with a line, and nobody is left."""
    assert not ended.hung, told
    assert ended.status in (0, ERROR), told
    assert not ended.left, told
    assert "Traceback" not in ended.err, told
    if ended.status == ERROR:
        assert ": unexpected " not in ended.err.splitlines()[-1], told
        assert ended.err.splitlines()[-1].isprintable(), told


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def domain_of(experiment: Experiment, key: str) -> Any:
    return keys.of(experiment.command, [key])[key].domain


@functools.cache
def names_of(command: str) -> list[str]:
    """The keys of an experiment."""
    ex = import_module(f"evatok.experiments.{command}").ex
    run = ex._create_run("print_config", {}, (), options={"--unobserved": True})
    return sorted(set(run.config) - {"__doc__"})


def nonsense(experiment: Experiment, drawn: random.Random) -> tuple[str, Any]:
    """A key of the experiment, and a value that is odd, or at or beyond the end of what it may be."""
    key = drawn.choice(names_of(experiment.command))
    domain = domain_of(experiment, key)
    odd = list(damage.NONSENSE)
    if isinstance(domain, Whole):
        odd += [domain.low, domain.low - 1, domain.high + 1, float(domain.low)]
    if key in experiment.outputs or key == "records_folder":
        odd = [value for value in odd if value != "/"]  # a folder that can be written to
    return key, drawn.choice(odd)


def admitted(experiment: Experiment, key: str, value: Any) -> bool:
    """Whether the key may have this value, as the command line reads it."""
    try:
        domain_of(experiment, key).settled("nan" if value != value else value)
    except Refused:
        return False
    return True


def line_of(experiment: Experiment, base: Base, out: Path, key: str, value: Any) -> list[str]:
    """The experiment with this value; only told, where it may be that large and would rightly take hours."""
    settings = experiment.configured(base.folder, out)
    large = isinstance(value, int | float) and abs(value) > 10**6 and admitted(experiment, key, value)
    text = repr(value).replace("inf", "1e999").replace("nan", "'nan'") if isinstance(value, float) else repr(value)
    arguments = experiment.line(base.folder, out, **{name: old for name, old in settings.items() if name != key})
    arguments = [argument for argument in arguments if not argument.startswith(f"{key}=")] + [f"{key}={text}"]
    return [arguments[0], "print_config", *arguments[1:]] if large else arguments
