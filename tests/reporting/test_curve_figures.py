"""Main Figs. 4 and 5, their table and their verdicts, rebuilt from records alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from evatok.reporting import curve_claims, curve_figures, tables
from evatok.storage import environment, records
from evatok.storage.records import Metric
from reproductions import main_figure4, main_figure5

# rule -> parameter -> (tokens, PSNR, rFVD): rewards above uniform by both, the threshold rule between by rFVD alone.
POINTS = {
    "uniform": {"4": (16, 20, 900), "16": (64, 24, 600), "64": (256, 26, 400)},
    "max_reward": {"0.4": (20, 23, 700), "1.2": (32, 24, 600), "2": (200, 26.5, 380)},
    "threshold": {"0.1": (30, 21, 650), "0.05": (100, 23, 520)},
    "router": {"1.2": (32, 23.8, 606), "1.585": (60, 24.7, 530)},
}
SAVINGS = {
    "max_reward": {"rfvd": {"value": 50.0, "low": 40.0, "high": 60.0, "at_least": None}},
    "router": {
        "rfvd": {"value": 44.0, "low": None, "high": 52.0, "at_least": None},
        "psnr": {"value": 41.0, "low": 30.0, "high": 50.0, "at_least": None},
    },
    "threshold": {"rfvd": {"value": None, "low": None, "high": None, "at_least": None}},
}
LEADS = {
    "max_reward.uniform": {
        "rfvd": {"value": 20.0, "low": 5.0, "high": 40.0},
        "psnr": {"value": 0.5, "low": -0.1, "high": 1.0},
    },
    "max_reward.threshold": {"rfvd": {"value": 10.0, "low": 0.0, "high": 40.0}},
    "threshold.uniform": {"rfvd": {"value": 10.0, "low": -40.0, "high": -1.0}},
}
GAPS = {
    "router": {"rfvd": {"value": 0.01, "low": 0.002, "high": 0.018}, "psnr": {"value": 0.01, "low": 0.0, "high": 0.03}}
}


def synthetic(folder: Path, model: Mapping[str, object] | None = None, **protocol: object) -> records.Record:
    metrics = {}
    for rule, points in POINTS.items():
        for parameter, values in points.items():
            for name, value in zip(("tokens", "psnr", "rfvd"), values, strict=True):
                metrics[f"{rule}.{parameter}.{name}"] = Metric(float(value), "", 320, "lower", 0.1)
    for rule, by_metric in SAVINGS.items():
        for name, found in by_metric.items():
            if found["value"] is not None:
                metrics[f"{rule}.saving.{name}"] = Metric(found["value"], "%", 320, "higher")
    told = {
        "set": "freedoom",
        "split": "validation",
        "clips": 320,
        "limit": None,
        "reference": "uniform.16",
        "metrics": ["psnr", "rfvd"],
        **protocol,
    }
    record = records.new_record(
        kind="curves",
        status="toy",
        protocol=told,
        model={"savings": SAVINGS, "leads": LEADS, "gaps": GAPS} if model is None else model,
        metrics=metrics,
        config={},
        environment=environment.environment(wall_seconds=1.0),
    )
    records.write(record, folder)
    return record


@pytest.fixture
def results(tmp_path) -> Path:
    synthetic(tmp_path / "records")
    return tmp_path


def verdicts(folder: Path) -> dict[str, str]:
    frame = pd.read_csv(folder / "tables" / "main_figure4_signs.csv")
    assert list(frame.columns) == ["name", "paper", "ours", "verdict"]
    return dict(zip(frame["name"], frame["verdict"], strict=True))


def test_the_table_holds_the_records_savings_beside_the_papers(results, capsys):
    assert main_figure4.main(["--results", str(results)]) == 0
    frame = pd.read_csv(results / "tables" / "main_figure4.csv").set_index(["row", "metric"])
    router = frame.loc[("validation/router", "saving_rfvd")]
    assert (router["ours"], router["paper"], router["n"], router["status"]) == (44, 56, 320, "toy")
    assert pd.isna(frame.loc[("validation/threshold", "saving_rfvd"), "ours"])
    unseen = frame.loc[("unseen/router", "saving_rfvd")]
    assert (unseen["paper"], unseen["status"]) == (42, "paper-only")
    assert pd.isna(unseen["ours"])
    told = capsys.readouterr().out
    assert "44.00 (56.00)" in told
    assert "unseen: no st_lpips_alex, rfvd, psnr; python -m evatok.experiments.curves with embedded table=" in told


def test_the_claims_are_judged_by_the_points(results):
    main_figure4.main(["--results", str(results)])
    found = verdicts(results)
    assert found["validation, rFVD: max_reward no worse than uniform at any budget"] == "holds"
    assert found["validation, rFVD: max_reward no worse than threshold at any budget"] == "holds"
    assert found["validation, rFVD: threshold no worse than uniform at any budget"] == "does not hold"
    assert found["validation, PSNR: max_reward no worse than uniform at any budget"] == "undecided"
    assert not [name for name in found if "PSNR" in name and "threshold" in name], "the paper says so of rFVD alone"
    assert found["validation, rFVD: routers on the max-reward curve within 2 %"] == "holds"
    assert found["validation, PSNR: routers on the max-reward curve within 2 %"] == "undecided"
    assert found["validation, rFVD: the router saves tokens at uniform's quality"] == "undecided"
    assert found["validation, PSNR: the router saves tokens at uniform's quality"] == "holds"
    assert found["validation, ST-LPIPS: routers on the max-reward curve within 2 %"] == "not measured"
    assert {verdict for name, verdict in found.items() if name.startswith("unseen")} == {"not measured"}


@pytest.mark.parametrize(
    ("found", "words", "verdict"),
    [
        ({"value": 50.0, "low": 10.0, "high": None, "at_least": None}, "50.0 % (10.0 to beyond its points)", "holds"),
        (
            {"value": 50.0, "low": -10.0, "high": 60.0, "at_least": None},
            "50.0 % (-10.0 to 60.0)",
            "undecided",
        ),
        ({"value": -5.0, "low": -9.0, "high": 2.0, "at_least": None}, "-5.0 % (-9.0 to 2.0)", "undecided"),
        ({"value": -5.0, "low": -9.0, "high": -2.0, "at_least": None}, "-5.0 % (-9.0 to -2.0)", "does not hold"),
        (
            {"value": None, "low": 50.0, "high": None, "at_least": 55.0},
            "over 55.0 %: all its points are better",
            "holds",
        ),
        (
            {"value": None, "low": None, "high": None, "at_least": None},
            "none of its points is as good",
            "undecided",
        ),
    ],
)
def test_a_saving_is_told_with_what_is_known_of_it(found, words, verdict):
    assert curve_claims.saving_in_words(found) == words
    assert curve_claims.saving_verdict(found) == verdict


def test_figures_are_rebuilt_from_the_record_to_the_byte(results):
    for script, name in ((main_figure4, "main_figure4"), (main_figure5, "main_figure5")):
        assert script.main(["--results", str(results)]) == 0
        svg, csv = (results / "figures" / f"{name}.{kind}" for kind in ("svg", "csv"))
        first = svg.read_bytes()
        script.main(["--results", str(results)])
        assert svg.read_bytes() == first
        assert b"rFVD" in first
        frame = pd.read_csv(csv)
        drawn = {(rule, str(tokens)) for rule, tokens in zip(frame["rule"], frame["tokens"], strict=True)}
        expected = set(POINTS) - ({"threshold"} if name == "main_figure4" else {"router"})
        assert {rule for rule, _ in drawn} == expected
        uniform = frame[(frame["rule"] == "uniform") & (frame["metric"] == "rfvd")]
        assert dict(zip(uniform["tokens"], uniform["value"], strict=True)) == {16: 900, 64: 600, 256: 400}


def test_each_metric_is_shown_from_its_newest_record_of_all_clips(results):
    full = curve_figures.chosen_records(results / "records")["validation"]
    assert set(full) == {"psnr", "rfvd"}
    newer = synthetic(results / "records", metrics=["psnr", "st_lpips_alex"])
    synthetic(results / "records", limit=8, metrics=["psnr", "rfvd", "l1"])
    found = curve_figures.chosen_records(results / "records")["validation"]
    assert {metric: record.id for metric, record in found.items()} == {
        "psnr": newer.id,
        "st_lpips_alex": newer.id,
        "rfvd": full["rfvd"].id,
    }
    frame = curve_figures.frame_of({"validation": found})
    assert set(frame[frame["metric"] == "psnr"]["record"]) == {newer.id}
    assert set(frame[frame["metric"] == "rfvd"]["record"]) == {full["rfvd"].id}


def test_records_of_another_proxy_or_reward_never_stand_beside_each_other(results):
    newer = synthetic(results / "records", metrics=["psnr"], table="another")
    found = curve_figures.chosen_records(results / "records")["validation"]
    assert {metric: record.id for metric, record in found.items()} == {"psnr": newer.id}
    frame = pd.DataFrame(curve_figures.to_cells({"validation": found}, {}))
    assert frame.loc[frame["metric"] == "saving_rfvd", "ours"].isna().all()


def test_claims_of_each_metric_are_judged_by_the_record_that_holds_it(results, capsys):
    synthetic(results / "records", metrics=["psnr"])
    main_figure4.main(["--results", str(results)])
    found = verdicts(results)
    assert found["validation, rFVD: max_reward no worse than uniform at any budget"] == "holds"
    assert found["validation, PSNR: max_reward no worse than uniform at any budget"] == "undecided"
    assert "validation: no st_lpips_alex; python -m" in (told := capsys.readouterr().out)
    assert "metrics='st_lpips_alex'" in told


def test_without_records_the_papers_values_stand_alone(tmp_path, capsys):
    assert main_figure4.main(["--results", str(tmp_path)]) == 0
    assert main_figure5.main(["--results", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "tables" / "main_figure4.csv")
    assert list(frame.columns) == tables.COLUMNS
    assert set(frame["status"]) == {"paper-only"}
    assert not (tmp_path / "figures").exists()
    assert set(verdicts(tmp_path).values()) == {"not measured"}
    assert "python -m evatok.experiments.curves with embedded" in capsys.readouterr().out


def test_leads_and_gaps_without_an_interval_are_undecided(tmp_path):
    synthetic(tmp_path / "records", model={"savings": SAVINGS})  # as older records are
    assert main_figure4.main(["--results", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "tables" / "main_figure4_signs.csv")
    told = frame[frame["name"].str.contains("no worse than|within 2 %") & frame["name"].str.startswith("validation")]
    measured = told[told["verdict"] != "not measured"]
    assert set(measured["verdict"]) == {"undecided"}
    assert measured["ours"].str.contains("no interval measured").all()


def test_a_curve_that_falls_below_another_fails_its_claim():
    leads = {"a.b": {"rfvd": {"value": -1.0, "low": -2.0, "high": -0.5}}}
    groups = {rule: pd.DataFrame({"tokens": [16, 64], "value": v}) for rule, v in (("a", [3, 1]), ("b", [2, 2]))}
    assert curve_claims.ahead("here", groups, ("a", "b"), "", "rfvd", leads).verdict == "does not hold"
    told = "smallest lead -1.0 at 16 tokens (-2.0 to -0.5)"
    assert curve_claims.ahead("here", groups, ("a", "b"), "", "rfvd", leads).ours == told
    assert curve_claims.ahead("here", groups, ("a", "c"), "", "rfvd", leads).verdict == "not measured"


def test_a_record_without_the_panels_metrics_draws_nothing(tmp_path, capsys):
    record = synthetic(tmp_path / "records")
    frame = curve_claims.frame_of(record, "validation").assign(metric="l1")
    curve_figures.draw(frame, curve_figures.panels_of(frame), tmp_path / "figures", "main_figure4")
    assert "nothing to draw" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()
