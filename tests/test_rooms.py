"""The rooms of the package: imports run downwards only, so that any room can be read without those above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from evatok.storage.environment import REPOSITORY

FLOORS = (
    ("errors",),
    ("storage",),
    ("assignments", "pictures", "weights"),
    ("models",),
    ("data", "tokenizers"),
    ("routing", "metrics"),
    ("search", "training", "vtok"),
    ("evaluation",),
    ("generation", "reporting", "alignment"),
    ("experiments",),
)
"""Rooms from the ground up; those of one floor do not import each other."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted((REPOSITORY / "evatok").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(REPOSITORY / "evatok").parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "evatok":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("evatok."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("room", FLOOR_OF)
def test_a_room_imports_only_rooms_below_it(room):
    modules = [path for path in MODULES if room_of(path) == room]
    assert modules
    for path in modules:
        above = {other for other in rooms_imported(path) if other != room and FLOOR_OF[other] >= FLOOR_OF[room]}
        assert not above, path


def test_no_module_lies_in_the_hall():
    assert {path.name for path in (REPOSITORY / "evatok").glob("*.py")} <= {"__init__.py", "__main__.py", "errors.py"}


def test_no_two_files_of_tests_have_one_name():
    """A process that is spawned finds a test's functions by the name of its file alone, and would find the other's."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_usage_has_a_line_per_command():
    """What `--help` prints: rewrapping a docstring would run its commands into one paragraph."""
    for path in [*MODULES, *(REPOSITORY / "reproductions").rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")]:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for line in text.splitlines():
            assert not line.startswith("    python ") or line.count("python ") == 1, f"{path}: {line}"
