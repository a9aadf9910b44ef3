"""Work that kills or hangs the process it is done in; by itself, so that such a process imports no more than it."""

from __future__ import annotations

import os
import time

from evatok.data.workers import Work


class Odd(Work[int, str]):
    """Kills its process at 5 and never ends at 9."""

    def __call__(self, item: int) -> str:
        if item == 5:
            os._exit(1)
        if item == 9:
            time.sleep(100)
        return f"done {item}"

    def path(self, item: int) -> str:
        return f"{item}.mp4"

    def failed(self, item: int, reason: str) -> str:
        return f"{item}: {reason}"
