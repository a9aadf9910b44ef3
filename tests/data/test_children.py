"""Whoever is killed, no child is left behind and nothing lies about."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evatok.storage.environment import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

SHARED = Path("/dev/shm")


def processes_that_name(*words: str) -> list[int]:
    """Processes whose command line and environment hold these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if all(word.encode() in told for word in words) and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def eventually(holds, seconds: float = 120.0) -> bool:
    """Whether it holds within so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def building(tmp_path):
    """Starts a build of the Freedoom set in folders of its own: (workers) -> the process, once a game runs."""
    places = {name: tmp_path / name for name in ("cwd", "tmp", "cache")}
    for place in places.values():
        place.mkdir()
    environment = {**os.environ, "TMPDIR": str(places["tmp"]), "EVATOK_CACHE": str(places["cache"])}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "evatok.data", "build", "freedoom", "--clips", "640", "--frames", "64"]

    def start(workers: int) -> subprocess.Popen:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            cwd=places["cwd"],
            env=environment,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        keeper_and_game = "+viz_instance_id", str(places["tmp"])
        assert eventually(lambda: process.poll() is not None or len(processes_that_name(*keeper_and_game)) >= 2)
        assert process.poll() is None, process.stderr.read()
        return process

    start.folders = places
    yield start
    for number in processes_that_name(str(places["tmp"])):
        os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGTERM, 2)])
def test_a_build_that_is_ended_leaves_no_game_and_no_litter(building, number, workers):
    before = set(SHARED.iterdir())
    process = building(workers)
    games = set(SHARED.iterdir()) - before
    process.send_signal(number)
    _, told = process.communicate(timeout=240)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    if number == signal.SIGTERM:
        assert b"stopped by SIGTERM; saved work is kept" in told
        assert b"Traceback" not in told
    temporary = building.folders["tmp"]
    assert eventually(lambda: not processes_that_name(str(temporary))), processes_that_name(str(temporary))
    assert eventually(lambda: not list(temporary.iterdir())), list(temporary.iterdir())
    assert eventually(lambda: not games & set(SHARED.iterdir()))
    assert not list(building.folders["cwd"].iterdir())
