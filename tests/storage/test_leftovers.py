"""Wherever a Ctrl-C falls, nothing stays that should be gone."""

import os
import signal
import subprocess
import sys

import pytest

from evatok.errors import undisturbed
from evatok.storage.leftovers import CleanUp

AT_EACH_LINE = """
import os, signal, sys, tempfile
from pathlib import Path
from evatok import errors
from evatok.storage import files, leftovers, locks

folder = Path(sys.argv[1])
tempfile.tempdir = str(folder)
contexts = {
    "lock": lambda: locks.sole_writer(folder / "lock"),
    "file": lambda: files.replacing(folder / "file"),
    "folder": lambda: leftovers.temporary_folder("folder-"),
}
context = contexts[sys.argv[2]]
modules = {module.__file__ for module in (errors, files, leftovers, locks)}

def interrupted(number):
    left = number
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in modules:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGINT)
        return trace
    sys.settrace(trace)
    try:
        with context():
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left > 0

signal.signal(signal.SIGINT, signal.default_int_handler)
number, over = 0, False
while not over:
    number += 1
    child = os.fork()
    if child == 0:
        sys.exit(7 if interrupted(number) else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 7), status
    left = [name for name in os.listdir(folder) if name != "file"]
    assert not left, f"interrupted at line {number}: {left}"
    over = status == 7
print(number)
"""


@pytest.mark.parametrize("context", ["lock", "file", "folder"])
def test_an_interruption_at_any_line_leaves_nothing(tmp_path, context):
    (tmp_path / "file").touch()  # which is replaced by what was written, or stays
    command = [sys.executable, "-c", AT_EACH_LINE, str(tmp_path), context]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 20, "lines that were interrupted"


def test_a_signal_waits_for_the_end_of_an_undisturbed_section():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def section():
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    try:
        with pytest.raises(KeyboardInterrupt):
            section()
        assert done == ["whole"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)


def test_cleaning_up_is_done_once():
    done = []
    clean_up = CleanUp(lambda: done.append(1))
    clean_up()
    clean_up()
    assert done == [1]


def test_a_forked_child_leaves_its_parents_to_the_parent(tmp_path):
    path = tmp_path / "kept"
    path.touch()
    clean_up = CleanUp(path.unlink)
    if (child := os.fork()) == 0:
        clean_up()
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()
    clean_up()
    assert not path.exists()


WRITES_AT_THE_END = """
import sys, threading, time
from pathlib import Path
from evatok.storage.files import replacing

def write():
    with replacing(Path(sys.argv[1])) as partial:
        begun.set()
        time.sleep(0.3)
        partial.write_text("whole")

begun = threading.Event()
threading.Thread(target=write, daemon=True).start()
begun.wait()
"""


def test_a_file_that_another_thread_writes_as_the_process_ends_is_written(tmp_path):
    command = [sys.executable, "-c", WRITES_AT_THE_END, str(tmp_path / "file")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "whole"
