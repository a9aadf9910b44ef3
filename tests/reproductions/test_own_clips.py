"""Tables and figures of a user's own clips: `--data` of every script that has it, on shipped networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evatok.assignments import reward
from evatok.assignments.reward import Scale
from evatok.data import clips as clip_sets
from evatok.evaluation import searched
from evatok.experiments import own_study
from evatok.reporting import final_rows
from evatok.routing.trained_router import OperatingPoint, Router
from evatok.search import candidate_table
from evatok.storage import records
from reproductions import main_figure4, main_figure5, main_table1, main_table5, table3
from tests.factories import TINY, gratings, moving_video, saved_router, saved_tokenizer

RESULTS = records.REPOSITORY / "results"
CLIPS = 2
SHAPE: dict[str, Any] = {
    **{"levels": TINY.levels, "frames": TINY.frames, "size": TINY.size, "patch": TINY.patch},
    **{"kind": "vit", "width": 16, "layers": 1, "heads": 2},
}
"""Of a router that fits the tiny proxy."""


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A new folder of results: nothing was measured yet, and the networks are the shipped ones."""
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    return tmp_path / "results"


@pytest.fixture
def own(tmp_path) -> dict[str, str]:
    """A proxy of one's own with 27 candidates, and routers on it by the weight of their reward."""
    scale = Scale(-0.3, 0.01, 14.0, 4.0)
    routers = {
        f"mine-{w_q:g}": saved_router(
            tmp_path / f"mine-{w_q:g}.safetensors",
            **SHAPE,
            point=OperatingPoint("l1", w_q, scale),
        )
        for w_q in (0.8, 1.4)
    }
    return {"proxy": saved_tokenizer(tmp_path / "own-proxy.safetensors", TINY), **routers}


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


def test_a_proxy_and_routers_of_ones_own_decide_the_table(results, mine, own, capsys):
    """Percentiles are those of the scores that were stored, a router is judged by its own reward, a rerun resumes."""
    asked = ["--results", str(results), "--data", str(mine), "--proxy", own["proxy"]]
    asked += ["--router", own["mine-0.8"], own["mine-1.4"]]
    assert table3.main(asked) == 0
    told = capsys.readouterr()
    assert f"scoring {CLIPS} clips under 27 assignments: about" in told.out
    assert f"table3: {CLIPS} clips only" in told.err
    scores = candidate_table.read(next((results / "work" / "table3-none").glob("*.parquet")))
    clips = clip_sets.load(next((results.parent / "cache").glob("videos-*"))).clips
    for name in ("mine-0.8", "mine-1.4"):
        router = Router.load(own[name])
        point = router.point
        table = pd.read_csv(results / "tables" / f"table3_l1-wq{point.w_q:g}_validation.csv").set_index("row")
        assert [row for row in table.index.unique() if "mine" in row] == [f"validation (own)/{name}"]
        assert "validation (own)/adaptok_row" not in table.index, "it has 4 blocks, these clips 3"
        rewards = reward.proxy_reward(scores.quality("l1"), scores.candidates, point.scale, point.w_q)
        chosen = scores.candidates.index(router.assignments(clips))
        for row, choice in ((name, chosen), ("best_uniform", reward.best_uniform(rewards, scores.candidates))):
            of_row = table[(table.index == f"validation (own)/{row}") & (table["metric"] == "percentile")]
            assert of_row["ours"].item() == pytest.approx(reward.percentile(rewards, choice), abs=1e-3)
    written = sorted((results / "records").iterdir())
    assert table3.main(asked) == 0
    assert "scoring" not in capsys.readouterr().out
    assert sorted((results / "records").iterdir()) == written


def test_a_proxy_without_routers_has_the_controls_alone(results, mine, own):
    assert table3.main(["--results", str(results), "--data", str(mine), "--proxy", own["proxy"]]) == 0
    table = pd.read_csv(results / "tables" / "table3_l1-wq1.2_validation.csv")
    assert not any("router" in row for row in table["row"])
    assert table.query("row == 'validation (own)/best_uniform'")["ours"].between(0, 100).all()
    (record,) = records.query(results / "records", kind="table3")
    assert record.protocol["scale_from"] == "the measured clips"


def test_a_beam_tells_rewards_as_the_exact_scores_do_and_no_percentile(results, mine, own, capsys):
    asked = ["--results", str(results), "--data", str(mine), "--proxy", own["proxy"], "--router", own["mine-1.4"]]
    assert table3.main([*asked, "--search", "beam"]) == 0
    told = capsys.readouterr().out
    assert told.index("by a beam: about") < told.index("without percentiles")
    assert "Not told: the percentile, top-1 and top-5" in told
    (record,) = records.query(results / "records", kind="table3")
    assert record.protocol["item"] == "table3_beam"
    assert not [name for name in record.metrics if "percentile" in name or "top" in name or "best_fixed" in name]
    assert table3.main(asked) == 0
    scores = candidate_table.read(next((results / "work" / "table3-none").glob("*.parquet")))
    router = Router.load(own["mine-1.4"])
    point = router.point
    rewards = reward.proxy_reward(scores.quality("l1"), scores.candidates, point.scale, point.w_q)
    uniform = rewards[:, scores.candidates.uniform].max(1)
    chosen = scores.candidates.index(
        router.assignments(clip_sets.load(next((results.parent / "cache").iterdir())).clips)
    )
    own_rewards = np.take_along_axis(rewards, chosen[:, None], 1)[:, 0]
    exact = {"best_uniform": uniform, "mine-1.4": own_rewards}
    for name, values in exact.items():
        assert record.metrics[f"{name}.proxy_reward"].value == pytest.approx(values.mean(), abs=0.05)
    found = record.metrics["beam.proxy_reward"].value
    assert found <= rewards.max(1).mean() + 0.05
    for name in exact:
        lost = found - record.metrics[f"{name}.proxy_reward"].value
        assert record.metrics[f"{name}.beam_regret"].value == pytest.approx(lost)
    lead = record.metrics["mine-1.4.reward_over_uniform"]
    assert lead.value == pytest.approx((own_rewards - uniform).mean(), abs=0.05)


def test_a_killed_beam_over_three_clips_ends_as_the_unbroken_one(results, mine, own, tmp_path, monkeypatch, capsys):
    moving_video(mine / "a" / "third.mp4", seed=7)
    asked = ["--data", str(mine), "--proxy", own["proxy"], "--router", own["mine-1.4"], "--search", "beam"]
    assert table3.main([*asked, "--results", str(tmp_path / "unbroken")]) == 0
    assert "table3: 3 clips only" in capsys.readouterr().err
    monkeypatch.setattr(searched, "_CLIPS", 1)
    searches, search = [], searched.search_set

    def killed_at(number: int):
        def counted(*arguments, **options):
            searches.append(number)
            if len(searches) == number:
                raise KeyboardInterrupt
            return search(*arguments, **options)

        searches.clear()
        monkeypatch.setattr(searched, "search_set", counted)

    killed_at(3)  # one tells the time, one is kept
    with pytest.raises(SystemExit, match="130"):
        table3.main([*asked, "--results", str(results)])
    assert not (results / "records").exists()
    killed_at(0)
    assert table3.main([*asked, "--results", str(results)]) == 0
    assert len(searches) == 1 + 2
    (resumed,) = records.query(results / "records", kind="table3")
    (whole,) = records.query(tmp_path / "unbroken" / "records", kind="table3")
    assert resumed.protocol["clips"] == 3
    assert resumed.metrics == whole.metrics


def refused(capsys, script, *arguments) -> str:
    """The one line with which a script ends."""
    with pytest.raises(SystemExit, match="2"):
        script.main(list(map(str, arguments)))
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("script", [table3, main_figure4, main_figure5])
def test_networks_of_ones_own_need_clips_of_ones_own(script, own, capsys):
    assert "--proxy is for clips of your own: give --data" in refused(capsys, script, "--proxy", own["proxy"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"levels": (2, 4)}, "made for levels (2, 4), the tokenizer has (2, 4, 8)"),
        ({"frames": 16}, "made for frames 16, the tokenizer has 12"),
        ({"frames": 12, "patch": (6, 8, 8)}, "made for temporal blocks 2, the tokenizer has 3"),
    ],
)
def test_a_router_that_does_not_fit_the_proxy_is_refused(changed, told, results, mine, own, tmp_path, capsys):
    router = saved_router(tmp_path / "other.safetensors", **{**SHAPE, **changed})
    asked = ("--results", results, "--data", mine, "--proxy", own["proxy"], "--router", own["mine-1.4"], router)
    line = refused(capsys, table3, *asked)
    assert f"--router {router} does not go with the proxy {own['proxy']}" in line
    assert told in line
    assert not (results / "work").exists(), "nothing was scored before"


def test_what_does_not_go_together_is_refused_in_one_line(results, mine, own, tmp_path, capsys):
    asked = ("--results", results, "--data", mine, "--proxy", own["proxy"])
    assert "--search beam needs --router" in refused(capsys, table3, *asked, "--search", "beam")
    line = refused(capsys, table3, *asked, "--router", own["mine-1.4"], own["mine-1.4"])
    assert "another row is called mine-1.4; rename the file" in line
    line = refused(capsys, main_figure4, *asked, "--metrics", "psnr", "--router", own["mine-1.4"], own["proxy"])
    assert "tokenizer" in line
    assert f"9 clips requested, it has {CLIPS}" in refused(capsys, table3, *asked, "--clips", "9")
    other = clip_sets.save(tmp_path / "built", gratings(3, 16, 64), pd.DataFrame({"label": ["a"] * 3}), {"name": "b"})
    line = refused(capsys, table3, "--results", results, "--data", other.folder, "--proxy", own["proxy"])
    assert "clips have shape (16, 64, 64, 3), expected (12, 16, 16, 3)" in line


@pytest.mark.parametrize("script", [main_figure4, main_figure5, main_table1, main_table5])
def test_an_unknown_metric_is_refused_before_anything_is_decoded(script, results, mine, capsys):
    line = refused(capsys, script, "--results", results, "--data", mine, "--metrics", "psnr,foo")
    assert "--metrics 'psnr,foo': 'foo' cannot be measured" in line
    assert not (results.parent / "cache").exists()
    assert not results.exists()


def test_routers_of_two_rewards_are_refused_before_their_figure_is_scored(results, mine, own, tmp_path, capsys):
    point = OperatingPoint("psnr", 1.2, Scale(30.0, 1.0, 14.0, 4.0))
    other = saved_router(tmp_path / "other.safetensors", **SHAPE, point=point)
    asked = ("--results", results, "--data", mine, "--metrics", "psnr", "--proxy", own["proxy"])
    line = refused(capsys, main_figure4, *asked, "--router", own["mine-1.4"], other)
    assert "one figure shows routers of one quality and one scale" in line
    assert not results.exists()


@pytest.mark.parametrize("metric", ["l1", "st_lpips_alex"])
def test_rewards_that_differ_in_scale_alone_have_names_of_their_own(metric, tmp_path):
    """Tables are called by these names: the second would replace the first."""
    routers = {}
    for number, (w_q, mean) in enumerate([(1.2, -0.3), (1.2, -0.4), (0.8, -0.3), (1.2, -0.3), (1.2, -0.5)]):
        point = OperatingPoint(metric, w_q, Scale(mean, 0.01, 14.0, 4.0))
        routers[f"r{number}"] = Router.load(saved_router(tmp_path / f"r{number}.safetensors", **SHAPE, point=point))
    found = {comparison.name: list(comparison.routers) for comparison in own_study.by_reward(routers)}
    assert found == {
        f"{metric}-wq1.2": ["r0", "r3"],
        f"{metric}-wq1.2_2": ["r1"],
        f"{metric}-wq0.8": ["r2"],
        f"{metric}-wq1.2_3": ["r4"],
    }
