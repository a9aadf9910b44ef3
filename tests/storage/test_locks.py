"""One writer at a time, whoever is killed; the others are told who it is."""

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from evatok.errors import line_of
from evatok.storage import locks
from evatok.storage.locks import LockedError, lock_of, sole_writer

HOLD = """
import sys, time
from evatok.storage.locks import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock; (process, path)."""
    path = lock_of(tmp_path / "work")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process, path
    process.kill()
    process.wait()


def test_the_second_writer_is_told_in_one_line_who_the_first_is(holder):
    process, path = holder
    with pytest.raises(LockedError) as found, sole_writer(path, "work=here"):
        pass
    line = line_of(found.value)
    assert line.startswith(f"work=here is being written by process {process.pid} on {locks.socket.gethostname()} since")
    assert str(path) in line, "the holder's command is shown"
    assert "wait for it, stop it, or choose another folder" in line


def test_a_killed_holder_is_followed_at_once_and_nothing_stays(holder):
    process, path = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    with sole_writer(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not list(path.parent.iterdir())


def test_a_second_writer_of_the_same_process_is_refused_and_leaves_the_lock_alone(tmp_path):
    path = lock_of(tmp_path)
    with sole_writer(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), sole_writer(path):
            pass
        assert path.exists()
    with sole_writer(path):
        pass


def test_an_exception_lets_go(tmp_path):
    path = lock_of(tmp_path)
    with pytest.raises(ZeroDivisionError), sole_writer(path):
        raise ZeroDivisionError
    with sole_writer(path):
        pass
    assert not path.exists()


def _count(path, counter, times):
    for _ in range(times):
        with sole_writer(path, wait=True):
            before = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(before + 1))


def test_writers_that_wait_take_turns(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=_count, args=(lock_of(tmp_path), counter, 5)) for _ in range(3)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert counter.read_text() == "15"


def _note_of_another_machine(path, seconds_ago: float) -> None:
    path.write_text(
        json.dumps({"pid": 7, "host": "elsewhere", "command": "train", "since": "2026-01-01T00:00:00+00:00"})
    )
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def test_another_machine_keeps_its_lock_while_it_shows_itself(tmp_path):
    path = lock_of(tmp_path)
    _note_of_another_machine(path, 10)
    for _ in range(2):  # asking is no sign of life of the holder
        with (
            pytest.raises(LockedError, match=rf"process 7 on elsewhere .* 1\d s ago.* delete {path}"),
            sole_writer(path),
        ):
            pass
    _note_of_another_machine(path, locks.LEASE + 1)
    with sole_writer(path):
        assert json.loads(path.read_text())["host"] != "elsewhere"


def test_a_holder_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT", 0.02)
    path = lock_of(tmp_path)
    with sole_writer(path):
        os.utime(path, (0, 0))
        time.sleep(0.2)
        assert path.stat().st_mtime > 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lock ")]


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(locks.os.strerror(95), "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LockedError, match="does not support locks"), sole_writer(lock_of(tmp_path)):
        pass
