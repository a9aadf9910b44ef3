"""Every shipped table and figure is rebuilt from the records that ship, and comes out byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evatok.search import candidate_table
from evatok.storage import records
from reproductions import (
    class_consistency,
    figure6,
    main_figure4,
    main_figure5,
    main_table1,
    main_table2,
    main_table3,
    main_table4,
    main_table5,
    table1,
    table2,
    table3,
)

RESULTS = records.REPOSITORY / "results"
Script = Callable[[list[str]], int]
SCRIPTS: dict[str, Script] = {
    script.__name__.rpartition(".")[2]: script.main
    for script in (
        class_consistency,
        figure6,
        main_figure4,
        main_figure5,
        main_table1,
        main_table2,
        main_table3,
        main_table4,
        main_table5,
        table1,
        table2,
        table3,
    )
}
SLOW = ("table2",)  # counts the operations of networks of the paper's size


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results with the shipped inputs, where scripts may write."""
    (tmp_path / "tables").mkdir()
    for name in ("records", "checkpoints", "tables/candidates"):
        (tmp_path / name).symlink_to(RESULTS / name, target_is_directory=True)
    return tmp_path


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SCRIPTS])
def test_what_is_shipped_follows_from_its_records(name, results, monkeypatch, capsys):
    def unmakeable(*_, **__):
        raise ImportError("clips are not made here")

    monkeypatch.setattr(candidate_table, "clips_again", unmakeable)  # table3 then reads its records
    assert SCRIPTS[name](["--results", str(results)]) == 0
    made = [path for path in results.rglob("*") if path.is_file() and path.parent.name in ("tables", "figures")]
    assert any(path.stem.startswith(name) for path in made)
    for path in made:
        assert path.read_bytes() == (RESULTS / path.relative_to(results)).read_bytes(), path.name


def test_every_item_with_published_numbers_has_a_script():
    items = {path.stem for path in (RESULTS / "paper").glob("*.json")}
    assert items <= SCRIPTS.keys()
