"""Every shipped table and figure is rebuilt from the records that ship, and comes out byte for byte."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from evatok import errors
from evatok.reporting.command_line import CommandLineError
from evatok.storage import records
from reproductions import __main__ as runner

RESULTS = records.REPOSITORY / "results"
SCRIPTS = [name for name in runner.items() if name not in runner.LAST]
SLOW = ("table2",)  # counts the operations of networks of the paper's size
FILES = sorted(runner.FOLDER.rglob("*.py"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results with the shipped inputs, where scripts may write."""
    (tmp_path / "tables").mkdir()
    for name in ("records", "checkpoints", "samples", "tables/candidates"):
        (tmp_path / name).symlink_to(RESULTS / name, target_is_directory=True)
    return tmp_path


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SCRIPTS])
def test_what_is_shipped_follows_from_its_records(name, results):
    stored = ["--stored"] if name == "table3" else []  # what it measures is measured again in test_reproductions
    script = importlib.import_module(runner.module_of(name))
    assert script.main(["--results", str(results), *stored]) == 0
    made = [path for path in results.rglob("*") if path.is_file() and path.parent.name in ("tables", "figures")]
    for path in made:
        shipped = RESULTS / path.relative_to(results)
        assert shipped.exists(), f"{shipped} is not shipped: python -m reproductions {name} readme"
        assert path.read_bytes() == shipped.read_bytes(), path.name


def test_every_item_with_published_numbers_has_a_script():
    items = {path.stem.removesuffix("_generation") for path in (RESULTS / "paper").glob("*.json")}
    assert items <= {name.replace("/", "_") for name in SCRIPTS}


def test_scripts_are_thin_and_need_no_path_of_their_own():
    """What several items share is in the package: a script reads like the caption of its item."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "sys.path" not in text, path.name
        assert len(text.splitlines()) <= 80 or runner.name_of(path) not in runner.items(), path.name
        imported = {
            name
            for node in ast.walk(ast.parse(text))
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
            if name and name.startswith(("reproductions", "benchmarks"))
        }
        assert not imported, path.name


def test_scripts_that_say_so_need_no_torch():
    docs = {runner.name_of(path): ast.get_docstring(ast.parse(path.read_text())) or "" for path in FILES}
    told = [name for name, doc in docs.items() if "no PyTorch" in doc]
    assert {"main_table1", "main_figure4", "readme"} <= set(told)
    code = f"import sys, {', '.join(map(runner.module_of, told))}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=records.REPOSITORY, check=False).returncode == 0


def test_one_command_lists_and_runs_them(results, capsys):
    assert runner.main(["--list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(runner.items())
    assert runner.main(["main_table5", "table1", "--results", str(results)]) == 0
    assert {path.name for path in (results / "tables").glob("*.csv")} == {"main_table5.csv", "table1.csv"}
    assert runner.main(["tabel1", "--results", str(results)]) == errors.ERROR
    assert "did you mean table1?" in capsys.readouterr().err


def test_one_that_fails_is_named_and_stops_no_other(tmp_path, capsys):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "evaluate-1.json").write_text("{")
    assert runner.main(["table1", "figure6", "--results", str(tmp_path)]) == errors.ERROR
    assert "table1 failed" in capsys.readouterr().err
    assert (tmp_path / "figures" / "figure6.svg").exists()


@pytest.mark.parametrize("name", [*SCRIPTS, *runner.LAST])
def test_a_folder_of_results_that_does_not_exist_is_refused_and_not_made(name, tmp_path, capsys):
    """And `--debug` leaves the error as it is, in every script."""
    script, asked = importlib.import_module(runner.module_of(name)), ["--results", str(tmp_path / "typo")]
    with pytest.raises(SystemExit, match="2"):
        script.main(asked)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--results {tmp_path / 'typo'}: there is no such folder" in line
    with pytest.raises(CommandLineError):
        script.main([*asked, "--debug"])
    assert not list(tmp_path.iterdir())


def test_the_command_for_all_refuses_such_a_folder_once(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        runner.main(["table1", "figure6", "--results", str(tmp_path / "typo")])
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert "== table1" not in told.out
    with pytest.raises(CommandLineError):
        runner.main(["--results", str(tmp_path / "typo"), "--debug"])
