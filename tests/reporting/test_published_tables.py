"""How tables are published: every value with what is behind it, numbers as they are, dashes for what is not there."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from evatok.reporting import tables
from evatok.reporting.tables import Cell, Table

MEASURED = Cell("ours", "psnr", 27.5, 23.456, "dB", 320, "toy", "evaluate-1", 0.25, 0.5)
CITED = Cell("theirs", "psnr", 30.0, None, "dB", None, "paper-only", None)
OTHER = Cell("ours", "1e3", None, 1000.0, "", 320, "toy", "evaluate-2")


def test_a_measured_cell_needs_its_record():
    with pytest.raises(tables.TableError, match="needs a record"):
        replace(CITED, ours=2.0)
    with pytest.raises(tables.TableError, match="status"):
        replace(CITED, status="tiny")


def test_what_is_published_is_read_back(tmp_path, capsys):
    Table("some", "A caption.", [MEASURED, OTHER, CITED], remarks=["a remark"]).publish(tmp_path)
    frame = pd.read_csv(tmp_path / "tables" / "some.csv", dtype={"n": "Int64"})
    assert list(frame.columns) == tables.COLUMNS
    assert frame["ours"].tolist()[:2] == [23.456, 1000.0]
    assert frame["spread"].tolist()[0] == 0.25
    assert frame["interval"].tolist()[0] == 0.5
    assert frame["n"].tolist() == [320, 320, pd.NA], "a count is no decimal number, whatever is missing beside it"
    text = (tmp_path / "tables" / "some.md").read_text()
    assert text == capsys.readouterr().out.removesuffix("\n")
    assert text.startswith("A caption.\n\n| row ")
    assert text.endswith("|\n\n- a remark\n")


def test_markdown_shows_each_value_as_it_is_told():
    """Text that looks like a number stays the text that it is."""
    told = Table("some", "", [MEASURED, OTHER], shown=lambda cell: f"{cell.ours:.1e}", absent="?", right=("n",))
    header, sides, line = told.markdown().splitlines()
    assert [column.strip() for column in header.split("|")[1:-1]] == ["row", "psnr", "1e3", "n", "status", "record"]
    assert [side.endswith(":") for side in sides.split("|")[1:-1]] == [False, False, False, True, False, False]
    assert [value.strip() for value in line.split("|")[1:-1]] == [
        "ours",
        "2.3e+01",
        "1.0e+03",
        "320",
        "toy",
        "evaluate-1",
    ]
    assert "?" in replace(told, cells=[MEASURED, OTHER, CITED], shown=tables.both).markdown().splitlines()[-1]
