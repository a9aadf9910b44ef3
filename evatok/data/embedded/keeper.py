"""The parent of a game process: ends the game and removes its folder as soon as the player process is gone.

Run by path with the bare interpreter, so it imports nothing of the project:

    python -I -S keeper.py FOLDER PLAYER_PID GAME [ARGUMENT ...]

The game runs in FOLDER, where it may leave any files. On Linux the kernel signals the player's end; elsewhere the
player is polled every half second. Ctrl-C is left to the player, which then closes the game.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_SET_SIGNAL_OF_PARENTS_DEATH = 1
_SHARED_MEMORY = Path("/dev/shm")
_LOOK = 0.5


def main(folder: str, player: int, command: list[str]) -> int:
    """Run the game to its end, or the player's; return the game's exit code."""
    told: list[int] = []  # signals to end; they interrupt nothing, so that no clean-up is left half done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    _on_parents_death(signal.SIGTERM)
    if not _plays(player):
        _clean(folder, command)
        return 1
    try:
        game = subprocess.Popen(command, cwd=folder, start_new_session=True, preexec_fn=_die_with_keeper)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 1
    ended = None
    while ended is None and not told and _plays(player):
        with suppress(subprocess.TimeoutExpired):
            ended = game.wait(_LOOK)
    if ended is not None and not told and _plays(player):
        return ended
    game.kill()  # or it has already ended, as its player is gone
    game.wait()
    _clean(folder, command)
    return 1


def _plays(player: int) -> bool:
    return os.getppid() == player


def _on_parents_death(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_SIGNAL_OF_PARENTS_DEATH, number)


def _die_with_keeper() -> None:
    _on_parents_death(signal.SIGKILL)


def _clean(folder: str, command: list[str]) -> None:
    """Remove the folder and the shared memory between player and game."""
    shutil.rmtree(folder, ignore_errors=True)
    if "+viz_instance_id" in command:
        name = command[command.index("+viz_instance_id") + 1]
        for left in _SHARED_MEMORY.glob(f"ViZDoom*{name}"):
            with suppress(OSError):
                left.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
