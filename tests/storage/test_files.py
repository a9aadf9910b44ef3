"""Files are complete or absent, whoever is killed, and nothing is left lying about."""

import subprocess
import sys

import pytest

from evatok.errors import EvatokError
from evatok.storage.files import cache_folder, replacing, write_json


def test_a_file_appears_at_once_readable_by_all_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_exception_leaves_the_older_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("older")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text(f"half, then {1 / 0}")
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path):
    killed = (
        "import os, sys; from evatok.storage.files import replacing\n"
        "with replacing(sys.argv[1]) as partial:\n    partial.write_text('half'); os._exit(9)\n"
    )
    path = tmp_path / "file.txt"
    assert subprocess.run([sys.executable, "-c", killed, str(path)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "half"
    write_json(tmp_path / "other.json", {})
    assert left.exists(), "another file's writer leaves it alone"
    write_json(path, {"value": 1})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file.txt", "other.json"]


def test_a_writer_that_lives_keeps_its_file(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "the one that ends last wins"


def test_json_without_a_finite_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("EVATOK_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "evatok"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "evatok")


def test_without_a_home_the_line_says_what_to_set(monkeypatch):
    for name in ("EVATOK_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without an entry in passwd
    with pytest.raises(EvatokError, match="no home folder: set EVATOK_CACHE"):
        cache_folder()
