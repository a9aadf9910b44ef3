"""A process that has imported everything once and forks a child per command, which so need not import it again.

Requests come as lines of JSON on stdin, one at a time; each is answered by one line on stdout: how the command ended.
Beside that, the child is what a shell would start: a session of its own, its own folder, environment and output.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

LOOK_EVERY = 0.002  # seconds, where a signal is due by time; five times as long elsewhere
GRACE = 5.0  # seconds in which the children of one that was killed are to be gone

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main() -> None:
    from battery.small import make_toys_small

    make_toys_small()
    _import_everything()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page of what was imported
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            return _become(request)
        print(json.dumps(_watch(child, request)), flush=True)
    os._exit(0)  # at once: to tear down all that was imported takes long


def _import_everything() -> None:
    """What experiments import when they are run, and what they import on their way."""
    import importlib
    from pathlib import Path

    import decord  # noqa: F401
    import matplotlib.pyplot
    import torch
    import transformers

    from evatok.__main__ import PACKAGE, commands, module_of

    for path in commands().values():
        importlib.import_module(module_of(path).removesuffix(".__main__"))
        if path.name == "__main__.py":
            importlib.import_module(module_of(path) + ".__main__")
    for path in Path(PACKAGE).rglob("*.py"):
        if path.name not in ("__main__.py", "__init__.py"):
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            importlib.import_module(name)
    from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel  # noqa: F401

    _ = matplotlib.pyplot, transformers
    torch.set_num_threads(1)


def _become(request: dict[str, Any]) -> None:
    """Be the command that is asked for, and end as it ends."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        file = os.open(path, os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    import tempfile

    tempfile.tempdir = None
    _count_changes(request)
    try:
        _command(*request["command"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    _leave(code)


def _leave(code: int) -> None:
    """End as Python does, but without tearing down every module that was imported, which takes a second."""
    import atexit

    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _command(name: str, *arguments: str) -> None:
    """As `evatok NAME ARGUMENTS`, but with the module that was imported instead of its file run anew."""
    import importlib

    from evatok import __main__, errors
    from evatok.experiments import tracking

    errors.quiet_interrupts(f"evatok {name}")
    path = __main__.commands()[name]
    module = importlib.import_module(".".join(path.relative_to(__main__.PACKAGE.parent).with_suffix("").parts))
    sys.argv = [str(path), *arguments]
    if hasattr(module, "ex"):
        tracking.command_line(module.ex)
    else:
        sys.exit(module.main())


def _count_changes(request: dict[str, Any]) -> None:
    """Count what the main thread changes on the disk, and send this process its signal at the asked one."""
    import atexit

    owner, main_thread, made = os.getpid(), threading.get_ident(), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal made
        if event not in _CHANGES and not (event == "open" and arguments[2] & _WRITES):
            return
        if os.getpid() != owner or threading.get_ident() != main_thread:
            return
        made += 1
        if made == request.get("at_change"):
            os.kill(owner, request["signal"])

    def tell() -> None:
        if os.getpid() == owner:
            Path(request["stdout"]).with_suffix(".changes").write_text(str(made))

    sys.addaudithook(hook)
    atexit.register(tell)


def _watch(child: int, request: dict[str, Any]) -> dict[str, Any]:
    """Wait for a child, send it the signal that is due by time, and say how it ended and whom it left behind."""
    sent = hung = False
    while True:
        ended, code, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        passed = _computed(child)
        if not sent and request.get("after") is not None and passed >= request["after"]:
            os.kill(child, request["signal"])
            sent = True
        if not hung and _hangs(child, request["limit"]):
            os.kill(child, signal.SIGKILL)
            hung = True
        time.sleep(LOOK_EVERY if request.get("after") is not None else 5 * LOOK_EVERY)
    seconds = usage.ru_utime + usage.ru_stime
    return {"status": os.waitstatus_to_exitcode(code), "hung": hung, "seconds": seconds, "left": _left_behind(child)}


def _computed(process: int) -> float:
    """Seconds that a process has computed so far, all its threads together: a busy machine does not change them."""
    told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _hangs(process: int, limit: float) -> bool:
    """Whether a process has computed for longer than it should, or waited for ten times as long."""
    told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    age = float(Path("/proc/uptime").read_text().split()[0]) - int(told[19]) / os.sysconf("SC_CLK_TCK")
    return _computed(process) > limit or age > 10 * limit


def _left_behind(session: int) -> list[str]:
    """Processes of a session that are still there after a while, by their command lines; they are ended."""
    end = time.monotonic() + GRACE
    while (found := _of_session(session)) and time.monotonic() < end:
        time.sleep(0.02)
    told = []
    for number in found:
        try:
            told.append(Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            os.kill(number, signal.SIGKILL)
        except OSError:
            continue
    return told


def _of_session(session: int) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                told = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(told[3]) == session and told[0] != "Z":
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    random.seed(0)
    main()
