"""The curve of a training, curve.jsonl: one JSON line per logged step, with the mean of each term since the last."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from pathlib import Path

import torch

from evatok.storage import ranks
from evatok.storage.files import ordinary, replacing, writing
from evatok.training.recipe import TrainingError


class Window:
    """The terms of the steps since the last log line, read from the device only when that is written."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def add(self, terms: dict[str, torch.Tensor]) -> None:
        self.steps.append({name: _alone(value.detach()) for name, value in terms.items()})

    def close(self) -> dict[str, float]:
        """Return the means over all ranks, and start over.

        A skipped step has no gradient norm.
        """
        means = {name: reduce(add, values, 0.0) / len(values) for name, values in self._values().items() if values}
        if ranks.count() > 1:
            with ranks.in_step():
                over_ranks = ranks.average(
                    torch.tensor(list(means.values()), dtype=torch.float64, device=ranks.device())
                )
            means = dict(zip(means, over_ranks.tolist(), strict=True))
        self.steps = []
        return means

    def _values(self) -> dict[str, list[float]]:
        """Return the values of each term over the steps in which it occurred."""
        names = dict.fromkeys(name for step in self.steps for name in step)
        found = {}
        for name in names:
            steps = [step for step in self.steps if name in step]
            values = torch.stack([step[name].double() for step in steps]).tolist()
            if name == "gradient_norm":
                values = [v for v, step in zip(values, steps, strict=True) if not step.get("left_out", 0)]
            found[name] = values
        return found


def _alone(value: torch.Tensor) -> torch.Tensor:
    """Detach a value from the storage of a larger tensor it may be a view of."""
    return value.clone() if value.untyped_storage().nbytes() > value.element_size() else value


def read_curve(folder: Path) -> list[dict[str, float]]:
    """Read the logged lines of a training folder. Raises TrainingError for a file that is not a curve."""
    path = folder / "curve.jsonl"
    try:
        lines = [_parse(text) for text in ordinary(path).read_text(encoding="utf-8").splitlines()]
        if not lines:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not a complete curve ({error}); delete {folder} to train again") from error
    return lines


def append_line(path: Path, line: dict[str, float]) -> None:
    with writing(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def drop_lines_after(path: Path, step: int) -> None:
    """Drop lines written after the state that training resumes from, and a line truncated by a kill.

    A missing file stays missing. Raises TrainingError if lines up to that state are missing or damaged: a kill cannot
    cause that, and it should be noticed before the end.
    """
    if not path.exists():
        return
    kept, reached = [], 0.0
    for text in ordinary(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = _parse(text)
        except ValueError:
            break
        if line["step"] <= step:
            kept.append(text)
            reached = line["step"]
    if reached < step:
        raise TrainingError(
            f"{path}: not a complete curve, its lines after step {reached:g} of {step} are missing or damaged; delete "
            f"it to go on without its lines, or {path.parent} to train again"
        )
    with replacing(path) as partial:
        partial.write_text("".join(line + "\n" for line in kept))


def _parse(text: str) -> dict[str, float]:
    """Parse one line. Raises ValueError for anything but numbers by name, with a step."""
    line = json.loads(text)
    if not isinstance(line, dict) or "step" not in line or not all(type(v) in (int, float) for v in line.values()):
        raise ValueError(f"{text[:60]!r} is not a line of a curve")
    return line
