"""Which records the tables of trained tokenizers show, what their signs say, and what stands for what is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evatok.evaluation import flops, per_clip
from evatok.metrics import catalogue
from evatok.metrics.bootstrap import Interval
from evatok.reporting import claims, cost_tables, final_rows, final_tables, networks
from evatok.reporting.final_rows import Row, Spec
from evatok.routing.networks import RouterConfig
from evatok.storage import checkpoints, records
from evatok.storage.files import sha256_file
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig
from reproductions import main_table1, main_table5, table1, table2
from tests.factories import ENVIRONMENT

PAPER = records.REPOSITORY / "results" / "paper"
A1, A2, A2_DISC = (
    {"assignment": a, "discriminator": d}
    for a, d in (("random", "transformer"), ("uniform", "transformer"), ("uniform", "semantic"))
)
B2 = {"assignment": "router", "discriminator": "transformer"}
TOKENIZER = TokenizerConfig().to_dict()
UNIFORM, ROUTED = {"assignment": "uniform", "row": [64]}, {"assignment": "router", "router": "r" * 64, "w_q": 1.5}


@pytest.fixture
def results(tmp_path):
    return tmp_path


def put(results, record):
    records.write(record, results / "records")
    return record


def evaluated(
    results,
    trained,
    measured,
    values=None,
    *,
    comparable=True,
    parents=None,
    spread=0.01,
    protocol="embedded-reconstruction",
    version=1,
    **facts,
):
    """A record as evaluate writes it: how the tokenizer was trained, how it was measured, what came out."""
    values = {"psnr": 25.0, "st_lpips_alex": 0.1, "rfvd": 300.0, "mean_tokens": 64.0, **(values or {})}
    metrics = {
        name: records.Metric(
            value,
            {"psnr": "dB", "mean_tokens": "tokens"}.get(name, ""),
            320,
            catalogue.of(name).direction,
            spread if name in ("psnr", "st_lpips_alex") else None,
        )
        for name, value in values.items()
    }
    told = {"stage": 4, "size": "toy", "steps": 1000, "seed": 0, "alignment": True, **trained, **facts}
    return put(
        results,
        records.new_record(
            kind="evaluate",
            status="toy",
            protocol={"name": protocol, "version": version, "hash": f"h{version}", "comparable": comparable},
            model={
                "facts": told,
                "parents": {"train_clips": "c", **(parents or {})},
                "tokens_per_block": [30.0, 14.0, 10.0, 10.0],
                **measured,
            },
            metrics=metrics,
            config={},
            environment=ENVIRONMENT,
        ),
    )


def chosen_ids(results, table=main_table1.TABLE):
    rows = final_rows.choose(results / "records", table).rows
    return {name: [record.id for record in row.records] for name, row in rows.items() if row.records}


def test_a_row_is_how_it_was_trained_and_how_it_was_measured(results):
    wanted = {
        "A1": evaluated(results, A1, UNIFORM, stage=1),
        "B1": evaluated(results, A1, ROUTED, stage=1),
        "A2": evaluated(results, {**A2, "row": [64]}, UNIFORM),
        "A2+VideoMAE": evaluated(results, A2_DISC, UNIFORM),
        "B2": evaluated(results, B2, ROUTED, parents={"router": "r" * 64}),
    }
    evaluated(results, A2, {"assignment": "uniform", "row": [8]})
    evaluated(results, A2, UNIFORM, alignment=False)
    evaluated(results, {**A1, "discriminator": "none"}, UNIFORM)
    evaluated(results, A2, UNIFORM, comparable=False)
    assert chosen_ids(results) == {name: [record.id] for name, record in wanted.items()}


def test_all_rows_are_aligned_or_none_is_unless_the_table_is_about_it(results):
    """Of either kind the set that fills more rows, whatever is newer."""
    plain = {
        "A1": evaluated(results, A1, UNIFORM, alignment=False),
        "A2": evaluated(results, A2, UNIFORM, alignment=False),
    }
    aligned = evaluated(results, A2_DISC, UNIFORM)
    assert chosen_ids(results) == {name: [record.id] for name, record in plain.items()}
    assert chosen_ids(results, main_table5.TABLE) == {
        "final recipe": [aligned.id],
        "without both": [plain["A2"].id],
    }


def test_an_older_version_of_the_protocol_makes_way_even_where_it_fills_more_rows(results):
    for trained, measured in ((A1, UNIFORM), (A1, ROUTED), (B2, ROUTED)):
        evaluated(results, trained, measured)
    newer = evaluated(results, B2, ROUTED, version=2)
    assert chosen_ids(results) == {"B2": [newer.id]}


def test_games_have_a_table_of_their_own(results):
    seen = evaluated(results, A2, UNIFORM)
    unseen = evaluated(results, A2, UNIFORM, protocol="embedded-unseen")
    assert chosen_ids(results) == {"A2": [seen.id]}
    assert chosen_ids(results, main_table1.UNSEEN) == {"A2": [unseen.id]}


def test_a_larger_size_is_told_by_its_commands(results, capsys):
    """There is no recipe of it: how to train it, then how to measure it."""
    evaluated(results, A1, {"assignment": "uniform", "row": [256]}, size="small")
    assert main_table1.main(["--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("experiments.stage4_final with small") == len(main_table1.TABLE.specs) - 1
    assert (
        "evaluate with size=small protocol=embedded-reconstruction checkpoint=results/checkpoints/final-small-"
        in printed
    )


def test_records_from_before_facts_are_left_out(results):
    record = evaluated(results, A1, UNIFORM)
    model = {key: value for key, value in record.model.items() if key != "facts"}
    new = {"metrics": record.metrics, "config": {}, "environment": ENVIRONMENT, "protocol": record.protocol}
    put(results, records.new_record(kind="evaluate", status="toy", model=model, **new))
    assert chosen_ids(results) == {"A1": [record.id]}


def test_one_table_shows_one_length_of_training(results):
    """The set that fills most rows, even if another is newer; of sets that fill as many, the newest."""
    full = [evaluated(results, A1, UNIFORM).id, evaluated(results, A2, UNIFORM).id]
    evaluated(results, A2, UNIFORM, steps=2000)
    assert chosen_ids(results) == {"A1": full[:1], "A2": full[1:]}
    evaluated(results, A1, UNIFORM, steps=2000)
    assert final_rows.choose(results / "records", main_table1.TABLE).common["steps"] == 2000


def test_other_training_clips_make_another_set(results):
    evaluated(results, A1, UNIFORM, parents={"train_clips": "other"})
    newest = evaluated(results, A2, UNIFORM)
    assert chosen_ids(results) == {"A2": [newest.id]}


def test_all_routed_rows_are_of_one_router(results):
    evaluated(results, A1, {**ROUTED, "router": "s" * 64})
    rows = {"B1": evaluated(results, A1, ROUTED), "B2": evaluated(results, B2, ROUTED)}
    evaluated(results, B2, {**ROUTED, "router": "s" * 64}, parents={"router": "r" * 64})
    assert chosen_ids(results) == {name: [record.id] for name, record in rows.items()}


def test_the_supplements_finals_are_the_longest(results):
    long = evaluated(results, B2, ROUTED, steps=5000)
    short = evaluated(results, B2, ROUTED, steps=1000)
    assert chosen_ids(results, table1.TABLE) == {"without VideoMAE": [long.id]}
    assert chosen_ids(results) == {"B2": [short.id]}


def test_seeds_are_averaged_and_the_newest_of_a_seed_counts(results):
    evaluated(results, A2, UNIFORM, {"psnr": 99.0}, seed=0)
    for seed, psnr in enumerate((24.0, 25.0, 26.0)):
        evaluated(results, A2, UNIFORM, {"psnr": psnr}, seed=seed)
    chosen = final_rows.choose(results / "records", main_table1.TABLE)
    value = chosen.rows["A2"].value("psnr")
    assert (value.value, value.spread, value.n) == (pytest.approx(25.0), pytest.approx(1.0), 3)
    assert value.interval == pytest.approx(4.303 / 3**0.5, rel=1e-3), "Student's t of two degrees of freedom"
    assert "training seeds" in final_tables.caption(main_table1.TABLE, chosen)
    cells = final_tables.to_cells(main_table1.TABLE, chosen, {})
    cell = next(cell for cell in cells if (cell.row, cell.metric) == ("A2", "psnr"))
    assert len(cell.record.split()) == cell.n == 3


def test_st_lpips_never_stands_in_the_column_of_lpips(results):
    evaluated(results, A2, UNIFORM)
    row = final_rows.choose(results / "records", main_table1.TABLE).rows["A2"]
    assert row.value("lpips") is None
    assert row.value("st_lpips").value == 0.1
    evaluated(results, A2, UNIFORM, {"lpips_vgg": 0.2})
    assert final_rows.choose(results / "records", main_table1.TABLE).rows["A2"].value("lpips").value == 0.2


@pytest.mark.parametrize("script", [table1, main_table1, main_table5])
def test_without_records_there_are_dashes_and_commands(script, results, capsys):
    assert script.main(["--results", str(results)]) == 0
    printed = capsys.readouterr().out
    frame = pd.read_csv(results / "tables" / f"{script.TABLE.name}.csv")
    assert frame["ours"].isna().all()
    assert frame["record"].isna().all()
    own = [spec for spec in script.TABLE.specs if spec.trained]
    assert printed.count("experiments.make evaluate-final-") == len(own) * (2 if script is main_table1 else 1)
    typed = json.loads((PAPER / f"{script.TABLE.name}.json").read_text())
    for entry in typed["values"]:
        line = frame[(frame["row"] == entry["row"]) & (frame["metric"] == entry["metric"])]
        assert line["paper"].tolist() == [entry["value"]], "every number typed from the paper is shown"


def test_a_filled_table_needs_no_command_and_names_its_records(results, capsys):
    for discriminator in ("semantic", "transformer"):
        for alignment in (True, False):
            evaluated(results, {"assignment": "uniform", "discriminator": discriminator}, UNIFORM, alignment=alignment)
    assert main_table5.main(["--results", str(results)]) == 0
    assert "What would fill" not in capsys.readouterr().out
    frame = pd.read_csv(results / "tables" / "main_table5.csv")
    for line in frame[frame["ours"].notna()].itertuples():
        record = records.read(results / "records" / f"{line.record}.json")
        assert line.ours == pytest.approx(record.metrics[catalogue.of(line.metric).name].value)
    assert frame[frame["metric"] == "gfvd"]["ours"].isna().all()
    text = (results / "tables" / "main_table5.md").read_text()
    assert "25.00 ± 0.01 (25.05)" in text
    assert "never compare" in text


def test_motion_has_columns_where_a_record_tells_it(results):
    evaluated(results, A1, UNIFORM)
    assert main_table1.main(["--results", str(results)]) == 0
    before = (results / "tables" / "main_table1.md").read_text()
    assert "motion" not in before
    told = evaluated(results, A2, UNIFORM, {"motion_ratio": 0.5, "motion_correlation": 0.25})
    assert main_table1.main(["--results", str(results)]) == 0
    text = (results / "tables" / "main_table1.md").read_text()
    assert "| 0.500 " in text
    assert "| 0.250 " in text
    frame = pd.read_csv(results / "tables" / "main_table1.csv").set_index(["row", "metric"])
    assert frame.loc[("A2", "motion_ratio"), "record"] == told.id
    assert pd.isna(frame.loc[("A1", "motion_ratio"), "ours"]), "an older record is a dash, no zero"


def row(results, psnr=25.0, st_lpips=0.1, rfvd=300.0, tokens=64.0, spread=0.003):
    values = {"psnr": psnr, "st_lpips_alex": st_lpips, "rfvd": rfvd, "mean_tokens": tokens}
    return Row(Spec("any", {}), (evaluated(results, A1, ROUTED, values, spread=spread),))


def verdict(rows, name):
    (sign,) = (sign for sign in claims.signs(rows) if sign.name == name)
    return sign.verdict


@pytest.mark.parametrize(
    ("ends", "better", "no_worse"),
    [
        ((1.0, 3.0), "holds", "holds"),
        ((0.0, 3.0), "undecided", "holds"),
        ((-1.0, 3.0), "undecided", "undecided"),
        ((-3.0, 1.0), "undecided", "undecided"),
        ((-3.0, 0.0), "undecided", "undecided"),
        ((-3.0, -1.0), "does not hold", "does not hold"),
        (None, "undecided", "undecided"),
    ],
)
def test_the_whole_interval_decides(ends, better, no_worse):
    """What a gain is asked for, its mirror is asked for too: neither is taken on trust."""
    assert (claims.verdict(ends), claims.verdict(ends, or_equal=True)) == (better, no_worse)


def test_a_difference_counts_beyond_both_intervals_together(results):
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], Row(Spec("none", {})))
    better = "A2 better than A1, ST-LPIPS"
    assert verdict(rows, better) == "not measured"
    rows |= {"A1": row(results, st_lpips=0.1)}
    for value, expected in (
        (0.095, "holds"),
        (0.097, "undecided"),
        (0.103, "undecided"),
        (0.105, "does not hold"),
    ):
        rows["A2"] = row(results, st_lpips=value)
        assert verdict(rows, better) == expected, value
    for rfvd in (10.0, 9000.0):
        rows["A2"] = row(results, rfvd=rfvd)
        (sign,) = (sign for sign in claims.signs(rows) if sign.name == "A2 better than A1, rFVD")
        assert (sign.verdict, "no interval measured" in sign.ours) == ("undecided", True)


def test_rows_of_the_same_clips_are_compared_pair_by_pair(results, monkeypatch):
    """The gain is told as better or worse, whichever way the metric goes."""
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], Row(Spec("none", {})))
    rows |= {"A1": row(results), "A2": row(results, rfvd=290.0, psnr=24.99), "A2+VideoMAE": row(results)}
    asked = []

    def paired(one, other, metric):
        asked.append((one.id, other.id, metric))
        return Interval(-1.0, -1.5, -0.5) if metric in ("rfvd", "psnr") else None

    monkeypatch.setattr(per_clip, "paired", paired)
    told = {sign.name: sign for sign in claims.signs(rows)}
    assert told["A2 better than A1, rFVD"].verdict == "holds"
    assert told["A2 better than A1, rFVD"].ours == "290.0 against 300.0 (paired +0.5 to +1.5)"
    assert told["A2 better than A2+VideoMAE, PSNR"].verdict == "does not hold", "whatever the rows' own intervals"
    assert told["A2 better than A1, ST-LPIPS"].ours.endswith("(± 0.0042)"), "what cannot be paired"
    assert (rows["A2"].records[0].id, rows["A1"].records[0].id, "rfvd") in asked


def test_the_same_seeds_are_compared_seed_by_seed(results):
    """Seeds differ by 100, rows of one seed by 10: as independent trainings nothing would be told."""
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], Row(Spec("none", {})))
    gains = (9.0, 10.0, 12.0)
    for name, less in (("A1", (0.0, 0.0, 0.0)), ("A2", gains)):
        records_of = [
            evaluated(results, {**A1, "seed": seed}, ROUTED, {"rfvd": 300.0 + 100 * seed - less[seed]})
            for seed in range(3)
        ]
        rows[name] = Row(Spec(name, {}), tuple(records_of))
    better = "A2 better than A1, rFVD"
    (sign,) = (sign for sign in claims.signs(rows) if sign.name == better)
    half = 4.302653 * np.std(gains, ddof=1) / 3**0.5
    assert sign.verdict == "holds"
    told = f"paired {np.mean(gains) - half:+.1f} to {np.mean(gains) + half:+.1f}"
    assert sign.ours == f"389.7 against 400.0 ({told})"
    rows["A1"] = Row(rows["A1"].spec, rows["A1"].records[:2])
    assert verdict(rows, better) == "undecided", "of other seeds"


def test_one_seed_against_several_is_as_sure_as_its_least_sure_pair(results, monkeypatch):
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], Row(Spec("none", {})))
    several = [row(results, rfvd=rfvd).records[0] for rfvd in (280.0, 290.0)]
    rows |= {"A1": row(results), "A2": Row(Spec("A2", {}), tuple(several))}
    ends = {several[0].id: (-25.0, -15.0), several[1].id: (-12.0, -1.0)}
    monkeypatch.setattr(per_clip, "paired", lambda one, other, metric: Interval(-10.0, *ends[one.id]))
    (sign,) = (sign for sign in claims.signs(rows) if sign.name == "A2 better than A1, rFVD")
    assert sign.ours == "285.0 against 300.0 (paired +1.0 to +25.0)"
    assert sign.verdict == "holds"


def test_several_seeds_are_compared_by_their_own_intervals(results, monkeypatch):
    monkeypatch.setattr(per_clip, "paired", lambda one, other, metric: pytest.fail("records of one seed of several"))
    one, other = row(results), row(results, rfvd=200.0)
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], Row(one.spec, one.records + other.records))
    assert verdict(rows, "A2 better than A1, rFVD") == "undecided"


def test_no_worse_needs_an_interval_on_its_side_and_tokens_are_counted(results):
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], row(results))
    assert verdict(rows, "B2 no worse than A2, ST-LPIPS") == "undecided", "equal means may hide a loss"
    assert verdict(rows, "B2 takes 24.4 % fewer tokens than A2") == "does not hold"
    rows["B2"] = row(results, tokens=48.0, st_lpips=0.101)
    assert verdict(rows, "B2 takes 24.4 % fewer tokens than A2") == "holds"
    (counted,) = (sign for sign in claims.signs(rows) if sign.name == "B2 takes 24.4 % fewer tokens than A2")
    assert counted.ours == "48.0 against 64.0 (25.0 % fewer; n = 320)"
    assert verdict(rows, "B2 no worse than A2, ST-LPIPS") == "undecided"
    rows["B2"] = row(results, tokens=48.0, st_lpips=0.09)
    assert verdict(rows, "B2 no worse than A2, ST-LPIPS") == "holds"
    assert verdict(rows, "A2 better than A2+VideoMAE, PSNR") == "undecided"
    rows["A2+VideoMAE"] = row(results, psnr=24.0)
    assert verdict(rows, "A2 better than A2+VideoMAE, PSNR") == "holds"


def test_the_first_block_leads_where_its_mean_is_largest(results):
    rows = dict.fromkeys([spec.name for spec in main_table1.TABLE.specs], row(results))
    assert verdict(rows, "B1: the first block gets the most tokens") == "holds"
    record = rows["B1"].records[0]
    even = replace(record, model={**record.model, "tokens_per_block": [16.0, 16.0, 16.0, 16.0]})
    rows["B1"] = Row(Spec("B1", {}), (even,))
    assert verdict(rows, "B1: the first block gets the most tokens") == "does not hold"


def test_signs_are_written_beside_the_table(results):
    evaluated(results, A1, UNIFORM)
    evaluated(results, A2, UNIFORM, {"psnr": 26.0, "rfvd": 200.0})
    assert main_table1.main(["--results", str(results)]) == 0
    frame = pd.read_csv(results / "tables" / "main_table1_signs.csv").set_index("name")
    assert frame.loc["A2 better than A1, rFVD", "verdict"] == "undecided"
    assert set(frame["verdict"]) <= {claims.HOLDS, claims.FAILS, claims.UNSURE, claims.UNKNOWN}
    assert claims.RULE in (results / "tables" / "main_table1_signs.md").read_text()


def test_uniform_rows_are_the_papers_lengths():
    shipped = checkpoints.load(records.REPOSITORY / "results/checkpoints/final-toy-uniform.safetensors", "tokenizer")
    assert [final_rows.UNIFORM["toy"]] == shipped.facts["row"]
    assert final_rows.UNIFORM["paper"] * TokenizerConfig().candidates.blocks == 1024


def trained(results, kind, model, config, seconds=3600.0, metrics=None, artifact=None, threads=2):
    given = metrics or {"psnr": records.Metric(20.0, "dB", 1, "higher")}
    return put(
        results,
        records.new_record(
            kind=kind,
            status="toy",
            protocol={"clips": 10},
            model=model,
            metrics=given,
            config={"size": "toy", "steps": 10, "batch": 4, "device": "cpu", **config},
            environment={**ENVIRONMENT, "wall_seconds": seconds, "threads": threads},
            artifacts={"checkpoint": artifact} if artifact else None,
        ),
    )


@pytest.fixture
def stages(results, monkeypatch):
    """Stages 1 to 3 on record, each on the one before; the table was merged by a process that scored nothing.

    Operations are counted in test_compute; here any number does.
    """
    monkeypatch.setattr(flops, "flops_of_training", lambda kind, network, config, totals=None: 1e15)
    monkeypatch.setattr(flops, "tokenizer_operations", lambda shape, totals, training: 1e12)
    path = results / "checkpoints" / "proxy-toy.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"proxy")
    proxy = records.Artifact("results/checkpoints/proxy-toy.safetensors", sha256_file(path))
    trained(results, "stage1_proxy", {"sha256": "other"}, {})
    trained(results, "stage1_proxy", {"sha256": "proxy", "network": TOKENIZER}, {}, artifact=proxy)
    trained(results, "stage1_proxy", {"sha256": "newer"}, {}, seconds=1.0)
    curated = {"search": "tree", "perceptual": "none", "bf16": True, "clips": 10}
    pace = {"seconds_per_clip": records.Metric(360.0, "s", 5, "lower")}
    trained(
        results,
        "stage2_curation",
        {"tokenizer": "proxy", "table": "v"},
        {**curated, "shard": "0/2"},
        1800.0,
        pace,
        threads=1,
    )
    trained(results, "stage2_curation", {"tokenizer": "proxy", "table": "t"}, {**curated, "shard": "0/1"}, 0.5)
    parents = {"tokenizer": "proxy", "train_table": "t"}
    router = {"router": "pyramid", "head": "joint"}
    made = {"parents": parents, "network": RouterConfig().to_dict()}
    trained(results, "stage3_router", {"sha256": "router", **made}, router, 360.0, threads=1)
    trained(results, "stage3_router", {"sha256": "later", **made}, router, 720.0, threads=1)
    return results


def test_costs_follow_from_stage_to_stage(stages):
    found, remarks = cost_tables.costs(stages, "toy")
    assert found["stage 1"].record.model["sha256"] == "proxy", "the proxy that ships, not the newest"
    assert (found["stage 1"].wall_hours, found["stage 1"].device_hours) == (1.0, 2.0)
    assert found["stage 3"].record.model["sha256"] == "later"
    assert "stage 4" not in found
    # 10 clips of 0.1 h each by processes of one thread, two side by side.
    assert (found["stage 2"].wall_hours, found["stage 2"].device_hours) == (pytest.approx(0.5), pytest.approx(1.0))
    assert any("which is the merge alone" in remark for remark in remarks)


def test_the_share_needs_all_four_stages(stages, capsys):
    cost_tables.publish(stages, "toy")
    assert "this fills it: python -m evatok.experiments.stage4_final" in capsys.readouterr().out
    tokens = {"mean_tokens": records.Metric(48.0, "tokens", 4, "lower")}
    model = {"sha256": "f", "parents": {"router": "router"}, "network": TOKENIZER}
    trained(stages, "stage4_final", model, {}, 7200.0, tokens)
    found, _ = cost_tables.costs(stages, "toy")
    assert found["stage 3"].record.model["sha256"] == "router", "the router of the final, not the newest"
    cost_tables.publish(stages, "toy")
    frame = pd.read_csv(stages / "tables" / "table2.csv").set_index(["row", "metric"])
    share = frame.loc[(cost_tables.SHARE, "wall_hours")]
    assert share["ours"] == pytest.approx(100 * (1 + 0.5 + 0.1) / (1 + 0.5 + 0.1 + 2), abs=1e-3)
    assert share["paper"] == 27.8
    assert frame.loc[(cost_tables.SHARE, "device_hours"), "paper"] == pytest.approx(32.7, abs=0.05)
    claim = pd.read_csv(stages / "tables" / "table2_signs.csv").iloc[0]
    assert (claim["paper"], claim["ours"], claim["verdict"]) == ("27.8 %", "44.4 %", "holds")


def test_a_network_that_no_record_and_no_checkpoint_tells_is_not_counted(stages, capsys):
    """Not even by today's network of that size, which may be another."""
    model = {"sha256": "f", "parents": {"router": "router"}, "parameters": 7}
    tokens = {"mean_tokens": records.Metric(48.0, "tokens", 4, "lower")}
    record = trained(stages, "stage4_final", model, {}, 7200.0, tokens)
    cost_tables.publish(stages, "toy")
    assert f"stage 4: {record.id} does not tell its network" in capsys.readouterr().out
    frame = pd.read_csv(stages / "tables" / "table2.csv").set_index(["row", "metric"])["ours"]
    assert pd.isna(frame.loc[("stage 4", "pflop")])
    assert pd.isna(frame.loc[(cost_tables.SHARE, "pflop")])
    assert frame.loc[("stage 4", "wall_hours")] == 2.0


def test_a_record_is_counted_with_the_network_it_was_made_with(results, tiny):
    """By its own word, by its checkpoint, by the record of the tokenizer it names, or by its number of parameters."""
    tokenizer = AdaptiveTokenizer(tiny)
    facts = {"size": "toy"}
    path = results / "checkpoints" / "proxy-toy.safetensors"
    sha256 = checkpoints.save(path, tokenizer, kind="tokenizer", config=tiny.to_dict(), facts=facts)
    parameters = sum(p.numel() for p in tokenizer.parameters())
    assert tiny != TOKENIZER_SIZES["toy"]
    told = trained(results, "stage1_proxy", {"sha256": "gone", "network": TOKENIZER}, {})
    for kind, model, network in (
        ("stage1_proxy", {"sha256": "gone", "network": TOKENIZER}, TokenizerConfig()),
        ("stage1_proxy", {"sha256": sha256}, tiny),
        ("stage2_curation", {"tokenizer": sha256}, tiny),
        ("stage2_curation", {"tokenizer": told.model["sha256"]}, TokenizerConfig()),
        ("stage2_curation", {"tokenizer": "unknown"}, None),
        ("stage4_final", {"sha256": "lost", "parameters": parameters}, tiny),
        ("stage4_final", {"sha256": "lost", "parameters": parameters + 1}, None),
    ):
        assert networks.tokenizer_of(trained(results, kind, model, {}), results) == network, model


def test_the_papers_share_follows_from_its_hours():
    values = {(e["row"], e["metric"]): e["value"] for e in json.loads((PAPER / "table2.json").read_text())["values"]}
    hours = [values[stage, "wall_hours"] for stage in cost_tables.STAGES]
    assert 100 * sum(hours[:3]) / sum(hours) == pytest.approx(values[cost_tables.SHARE, "wall_hours"], abs=0.05)


def test_without_a_proxy_every_stage_is_a_dash(results, capsys, monkeypatch):
    monkeypatch.setattr(flops, "tokenizer_operations", lambda shape, totals, training: 1e12)
    assert table2.main(["--results", str(results)]) == 0
    assert capsys.readouterr().out.count("is not on record; this fills it") == 4
