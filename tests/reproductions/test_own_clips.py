"""Tables and figures of a user's own clips: `--data` of every script that has it, on shipped networks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evatok.reporting import final_rows
from evatok.storage import records
from reproductions import main_figure4, main_figure5, main_table1, main_table5, table3
from tests.factories import moving_video

RESULTS = records.REPOSITORY / "results"
CLIPS = 2


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A folder of results with the shipped networks, where nothing was measured yet."""
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/checkpoints").symlink_to(RESULTS / "checkpoints", target_is_directory=True)
    return tmp_path / "results"


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder of class folders with a few videos, called as a row of the paper's tables is."""
    for number in range(CLIPS):
        moving_video(tmp_path / "validation" / "ab"[number % 2] / f"{number}.mp4", seed=number)
    return tmp_path / "validation"


@pytest.mark.slow  # 625 assignments of two clips
def test_figures_and_table3_share_what_was_scored(results, mine, capsys):
    """Their values are the record's, none of the paper's stands beside them, and a rerun adds nothing."""
    asked = ["--results", str(results), "--data", str(mine), "--clips", str(CLIPS)]
    assert main_figure4.main([*asked, "--metrics", "psnr"]) == 0
    told = capsys.readouterr().out
    assert told.index(f"scoring {CLIPS} clips under 625 assignments: about") < told.index("reconstructing")
    written = sorted(path.name for path in (results / "records").iterdir())
    assert main_figure5.main([*asked, "--metrics", "psnr"]) == 0
    assert sorted(path.name for path in (results / "records").iterdir()) == written
    assert "scoring" not in capsys.readouterr().out
    (record,) = records.query(results / "records", kind="curves")
    assert (record.protocol["set"], record.protocol["clips"]) == ("validation", CLIPS)
    frame = pd.read_csv(results / "figures" / "main_figure4_validation (own).csv", dtype={"parameter": str})
    assert set(frame["set"]) == {"validation (own)"}
    for line in frame.itertuples():
        assert line.value == pytest.approx(record.metrics[f"{line.rule}.{line.parameter}.psnr"].value, abs=1e-4)
    table = pd.read_csv(results / "tables" / "main_figure4_validation (own).csv")
    assert table["paper"].isna().all()
    assert (results / "figures" / "main_figure5_validation (own).svg").exists()
    assert table3.main(asked) == 0
    percentiles = pd.read_csv(results / "tables" / "table3_validation.csv").query("metric == 'percentile'")
    assert percentiles["ours"].between(0, 100).all()
    assert set(percentiles["n"]) == {CLIPS}


@pytest.mark.slow  # the shipped finals and their router
def test_tables_of_finals_measure_the_tokenizers_that_are_there(results, mine, capsys):
    asked = ["--results", str(results), "--data", str(mine), "--metrics", "psnr"]
    assert main_table1.main(asked) == 0
    told = capsys.readouterr().out
    table = pd.read_csv(results / "tables" / "main_table1_validation.csv").query("metric == 'psnr'").set_index("row")
    measured = table["ours"].dropna()
    assert len(measured)
    assert f"measuring {len(measured)} tokenizers on {CLIPS} clips: about" in told
    held = {record.id: record for record in records.query(results / "records", kind="evaluate")}
    for row, value in measured.items():
        record = held[table.loc[row, "record"]]
        assert record.metrics["psnr"].value == pytest.approx(value, abs=1e-4)
        assert record.protocol["comparable"] is False
        assert record.protocol["name"] == "own-reconstruction"
    assert main_table5.main(asked) == 0
    assert len(list((results / "records").iterdir())) == len(held)
    embedded = final_rows.choose(results / "records", main_table1.TABLE)
    assert not any(row.records for row in embedded.rows.values()), "a user's clips stand in no table of the embedded"


def test_a_folder_without_any_tokenizer_of_a_row_is_refused(results, mine, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main_table1.main(["--results", str(results), "--data", str(mine), "--checkpoints", str(tmp_path)])
    assert "no toy tokenizer of any row of main_table1" in capsys.readouterr().err


def test_more_clips_than_there_are_are_refused(results, mine, capsys):
    with pytest.raises(SystemExit, match="2"):
        main_figure4.main(["--results", str(results), "--data", str(mine), "--clips", "9"])
    assert f"9 clips requested, it has {CLIPS}" in capsys.readouterr().err
