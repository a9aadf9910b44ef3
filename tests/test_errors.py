"""Every error with a way out is of one family, and every command ends for it in one line."""

import ast
import atexit
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from evatok import errors, weights
from evatok.data.__main__ import main as data_main
from evatok.errors import EvatokError, line_of
from evatok.metrics.perceptual import perceptual_metric
from evatok.storage.environment import REPOSITORY


def caught(action) -> BaseException:
    """What the action raises."""
    with pytest.raises(BaseException) as found:  # noqa: PT011  # any kind is wanted
        action()
    return found.value


def test_all_errors_of_the_project_are_of_one_family():
    strays = [
        f"{path.name}: {node.name}"
        for path in (REPOSITORY / "evatok").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "EvatokError"
        if "EvatokError" not in [ast.unparse(base) for base in node.bases]
    ]
    assert strays == []
    assert issubclass(weights.WeightsError, EvatokError)


def test_the_message_of_an_own_error_is_the_line():
    assert line_of(weights.WeightsError("a file\n is wrong:  delete it")) == "a file is wrong: delete it"


def test_a_file_is_named_with_the_reason_and_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    line = line_of(caught((tmp_path / "absent").read_text))
    assert line == f"{tmp_path / 'absent'}: No such file or directory; give a path that exists"
    assert line_of(caught(tmp_path.read_text)).endswith("Is a directory; give a file")
    assert "a file is in the way of a folder" in line_of(caught((tmp_path / "file" / "x").read_text))
    assert "free some space" in line_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state.pt"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out of memory (MemoryError): take a smaller batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9\nadvice"), "can't allocate memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory (CUDA out of memory"),
        (AssertionError("Torch not compiled with CUDA enabled"), "the device is not available"),
        (RuntimeError("unexpected pos 64 vs 0"), "a file could not be written completely"),
        (ModuleNotFoundError("No module named 'ale_py'"), "No module named 'ale_py': install the package"),
        (KeyError("task"), "unexpected KeyError: 'task'"),
    ],
)
def test_others_say_what_happened_and_what_to_do(error, told):
    assert told in line_of(error)
    assert "\n" not in line_of(error)


def test_what_the_package_raises_on_purpose_is_told_as_it_is_and_a_slip_is_not():
    assert line_of(caught(lambda: perceptual_metric("lpipz"))).startswith("unknown perceptual metric 'lpipz'")
    assert line_of(caught(lambda: int("x"))).startswith("unexpected ValueError")


@pytest.mark.parametrize(
    ("error", "code"), [(OSError("x"), 2), (KeyboardInterrupt(), 130), (errors.Terminated(), 143), (KeyError("x"), 2)]
)
def test_one_line_ends_with_the_code_of_what_happened(capsys, error, code):
    with pytest.raises(SystemExit) as found, errors.one_line("name"):
        raise error
    assert found.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("name: ")


def test_with_debug_the_error_comes_through():
    with pytest.raises(KeyError), errors.one_line("name", debug=True):
        raise KeyError("x")


def test_sigterm_is_cleaned_up_after_and_its_handler_put_back(capsys):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as found, errors.one_line("name"):
        work()
    assert (found.value.code, cleaned) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_data_command_stops_at_a_signal(monkeypatch, capsys, number):
    monkeypatch.setattr("evatok.data.sets.clip_set", lambda *args, **kwargs: signal.raise_signal(number))
    with pytest.raises(SystemExit) as found:
        data_main(["build", "freedoom"])
    assert found.value.code == 128 + number
    assert "the same command resumes from it" in capsys.readouterr().err


def ends_slowly(ending):
    errors.end_quietly()
    atexit.register(lambda: (ending.set(), time.sleep(0.5)))


def test_a_worker_that_is_ending_is_not_disturbed_by_the_signal_that_ends_workers(capfd):
    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    worker = context.Process(target=ends_slowly, args=(ending,))
    worker.start()
    assert ending.wait(60)
    worker.terminate()
    worker.join(60)
    assert (worker.exitcode, capfd.readouterr().err) == (0, "")


def test_an_interrupt_while_modules_are_imported_is_one_line():
    script = "from evatok import errors; errors.quiet_interrupts('name'); raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 130
    assert done.stderr.startswith("name: stopped by Ctrl-C")
    assert "Traceback" not in done.stderr


def test_a_reader_that_left_ends_a_command_without_a_line():
    """The first line is read; what follows is more than a pipe holds."""
    script = "from evatok import errors\nwith errors.one_line('told'):\n    [print('x' * 1000) for _ in range(999)]"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == errors.UNREAD


def test_the_broken_pipe_of_a_worker_is_told(capsys):
    with pytest.raises(SystemExit) as ended, errors.one_line("told"):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    assert ended.value.code == errors.ERROR
    assert "told: Broken pipe" in capsys.readouterr().err
