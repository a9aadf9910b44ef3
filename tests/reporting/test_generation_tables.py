"""Which records the tables of generators show, what their signs say, and what stands for what is missing."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_final_tables import PAPER, ROUTED, UNIFORM, evaluated, put

from evatok.reporting import generation_claims, generation_rows
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, UNSURE
from evatok.reporting.final_rows import Row, Spec
from evatok.storage import records
from reproductions import class_consistency, main_table2, main_table3, main_table4
from tests.factories import ENVIRONMENT

SCRIPTS = (main_table2, main_table3, main_table4)
GAMES = class_consistency.GAMES.sampled[0]
TOKENIZERS = {"uniform": "u" * 64, "router": "t" * 64}
TOKENS = {"uniform": 64.0, "router": 45.0}
PROTOCOLS = {"class": "embedded-generation", "frames": "embedded-prediction"}


@pytest.fixture
def results(tmp_path):
    return tmp_path


def sampled(
    results,
    assignment,
    values=None,
    *,
    task="class",
    comparable=True,
    steps=1500,
    guidance=1.0,
    protocol="",
    sha256="",
    **changes,
):
    """A record as sample writes it."""
    tokens = TOKENS[assignment]
    given = {"gfvd": 400.0, "mean_tokens": tokens, "seconds_per_clip": tokens / 1000, "class_consistency": 60.0}
    given |= {"class_consistency_balanced": 50.0} | (values or {})
    metrics = {
        name: records.Metric(
            value,
            "",
            320,
            "higher" if name.startswith("class") else "lower",
            5.0 if name.startswith("class") else None,
        )
        for name, value in given.items()
        if task == "class" or not name.startswith("class")
    }
    facts = {"size": "toy", "model": "toy", "steps": steps, "batch": 64, "label": "motion", "seed": 0}
    facts |= {"tokens_per_clip": tokens, "assignment": assignment, "task": task}
    facts |= {"row": [64, 64, 64, 64]} if assignment == "uniform" else {}
    parents = {"tokenizer": TOKENIZERS[assignment], "clips": "c"}
    parents |= {"router": "r" * 64} if assignment == "router" else {}
    model = {
        "task": task,
        "assignment": assignment,
        "facts": {**facts, **changes},
        "parents": parents,
        "seed": 0,
    }
    model |= {"sha256": sha256} if sha256 else {}
    model |= {"guidance": guidance, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "parameters": 5_000_000}
    model["consistency"] = {"classes": [f"game {number}" for number in range(50)]}
    return put(
        results,
        records.new_record(
            kind="sample",
            status="toy",
            protocol={"name": protocol or PROTOCOLS[task], "hash": protocol or task, "comparable": comparable},
            model=model,
            metrics=metrics,
            config={},
            environment=ENVIRONMENT,
        ),
    )


def reconstructed(results, assignment, values=None, sha256=None):
    measured = ROUTED if assignment == "router" else UNIFORM
    trained = {"assignment": assignment, "discriminator": "semantic"}
    return evaluated(results, trained, {**measured, "sha256": sha256 or TOKENIZERS[assignment]}, values)


def rows_of(results, script=main_table2):
    return generation_rows.choose(results / "records", script.TABLE, script.COLUMNS).rows


def ids(row, source):
    return [record.id for record in row.sources.get(source, ())]


def test_a_row_is_a_generator_with_its_tokenizer(results):
    wanted = {name: sampled(results, name) for name in TOKENS}
    reconstructed(results, "router", sha256="x" * 64)
    measured = {name: reconstructed(results, name, {"rfvd": 200.0 + len(name)}) for name in TOKENS}
    reconstructed(results, "router", sha256="y" * 64)
    sampled(results, "router", comparable=False)
    rows = rows_of(results)
    for name in TOKENS:
        assert ids(rows[name], "class") == [wanted[name].id]
        assert ids(rows[name], "reconstruction") == [measured[name].id]
        assert rows[name].value("rfvd").value == 200.0 + len(name)
        assert rows[name].value("gtokens").value == TOKENS[name]
        assert rows[name].value("sampling_ms").value == pytest.approx(TOKENS[name])
        assert rows[name].value("gen_params").value == pytest.approx(5.0)
        assert rows[name].value("tok_params") is None, "a record that does not tell"
    assert not rows["router, equal compute"].records or ids(rows["router, equal compute"], "class") == []


def test_a_system_is_of_one_tokenizer(results, monkeypatch):
    sampled(results, "router", task="frames")
    monkeypatch.setitem(TOKENIZERS, "router", "n" * 64)
    newer = sampled(results, "router")
    row = rows_of(results, main_table3)[main_table3.OURS]
    assert (ids(row, "class"), ids(row, "frames")) == ([newer.id], [])


def test_a_tokenizer_is_shown_before_anything_is_sampled(results):
    measured = reconstructed(results, "router")
    rows = rows_of(results)
    assert ids(rows["router"], "reconstruction") == [measured.id]
    assert rows["router"].value("gfvd") is None


def test_one_table_shows_one_way_of_training_and_sampling(results):
    kept = [sampled(results, name).id for name in TOKENS]
    sampled(results, "router", steps=9000)
    sampled(results, "router", guidance=2.5)
    sampled(results, "router", model="B")
    rows = rows_of(results)
    assert [ids(rows[name], "class")[0] for name in TOKENS] == kept, "the fullest set, even if another is newer"
    newer = [sampled(results, name, guidance=2.5).id for name in TOKENS]
    assert [ids(rows_of(results)[name], "class")[0] for name in TOKENS] == newer, "of equally full ones the newest"


def trained(results, sha256, rate):
    """A record as stage5_generator writes it, of a generator with this peak learning rate."""
    put(
        results,
        records.new_record(
            kind="stage5_generator",
            status="toy",
            protocol={"name": "training", "hash": "t", "comparable": False},
            model={"sha256": sha256},
            metrics={"loss": records.Metric(1.0, "", 1, "lower")},
            config={"learning_rate": rate},
            environment=ENVIRONMENT,
        ),
    )
    return sha256


def test_generators_of_different_learning_rates_are_not_compared(results):
    wanted = {}
    for number, (name, rate) in enumerate((("router", 6e-4), ("uniform", 6e-4), ("uniform", 1e-4))):
        own = trained(results, f"{number}" * 64, rate)
        wanted.setdefault(name, sampled(results, name, sha256=own).id)
    rows = rows_of(results)
    assert {name: ids(rows[name], "class") for name in TOKENS} == {name: [held] for name, held in wanted.items()}


def test_samples_on_another_family_s_codes_neither_fill_rows_nor_outdate_them(results):
    wanted = {name: sampled(results, name).id for name in TOKENS}
    other = records.query(results / "records", kind="sample")[-1]
    newer = {**other.protocol, "version": 99}
    facts = {**other.model["facts"], "order": "time-first"}
    kept = {"kind": "sample", "status": "toy", "metrics": other.metrics, "config": {}, "environment": ENVIRONMENT}
    put(results, records.new_record(protocol=newer, model={**other.model, "facts": facts}, **kept))
    rows = rows_of(results)
    assert {name: ids(rows[name], "class") for name in TOKENS} == {name: [held] for name, held in wanted.items()}


def test_the_fixed_row_has_the_baseline_s_length(results):
    wanted = {name: sampled(results, name).id for name in TOKENS}
    sampled(results, "uniform", row=[128] * 4, tokens_per_clip=128.0)
    rows = rows_of(results)
    assert {name: ids(rows[name], "class") for name in TOKENS} == {name: [held] for name, held in wanted.items()}


def test_guided_samples_have_a_table_of_their_own(results):
    plain = {name: sampled(results, name).id for name in TOKENS}
    guided = {name: sampled(results, name, guidance=2.5).id for name in TOKENS}
    for seed in (1, 2):
        sampled(results, "router", seed=seed)
    for table, wanted in ((main_table2.TABLE, plain), (main_table2.GUIDED, guided)):
        rows = generation_rows.choose(results / "records", table, main_table2.COLUMNS).rows
        assert {name: ids(rows[name], "class")[0] for name in TOKENS} == wanted, "of equally full sets the most seeds"


def test_the_system_table_shows_the_longest_training(results):
    for steps in (9000, 1500):
        for name in TOKENS:
            sampled(results, name, steps=steps)
    row = rows_of(results, main_table3)[main_table3.OURS]
    assert row.sources["class"][0].model["facts"]["steps"] == 9000


def test_equal_compute_is_equal_steps_times_tokens(results):
    sampled(results, "uniform")
    short = sampled(results, "router")
    longer = sampled(results, "router", steps=round(1500 * 64 / 45))
    sampled(results, "router", steps=1800)
    rows = rows_of(results)
    assert ids(rows["router"], "class") == [short.id]
    assert ids(rows["router, equal compute"], "class") == [longer.id]


def test_given_frames_of_either_scale_have_a_row(results):
    sampled(results, "uniform", task="frames")
    by_levels = sampled(results, "router", task="frames")  # as records tell that are older than the choice
    by_row = sampled(results, "router", task="frames", given="row")
    rows = rows_of(results, main_table4)
    assert [ids(rows[name], "frames") for name in (main_table4.OURS, main_table4.SHORTER)] == [
        [by_levels.id],
        [by_row.id],
    ]
    newer = sampled(results, "router", task="frames", given="levels")
    assert ids(rows_of(results, main_table4)[main_table4.OURS], "frames") == [newer.id]


def test_training_seeds_are_averaged(results):
    sampled(results, "uniform")
    for seed, gfvd in enumerate((380.0, 400.0, 420.0)):
        sampled(results, "router", {"gfvd": gfvd}, seed=seed)
    value = rows_of(results)["router"].value("gfvd")
    assert (value.value, value.spread, value.n) == (pytest.approx(400.0), pytest.approx(20.0), 3)


def test_tasks_never_mix(results):
    class_to_video, frames = sampled(results, "router"), sampled(results, "router", {"gfvd": 90.0}, task="frames")
    row = rows_of(results, main_table3)[main_table3.OURS]
    assert (ids(row, "class"), ids(row, "frames")) == ([class_to_video.id], [frames.id])
    assert (row.value("ucf_gfvd").value, row.value("k600_gfvd").value) == (400.0, 90.0)
    assert rows_of(results, main_table4)[main_table4.OURS].value("gfvd").value == 90.0


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_records_there_are_dashes_and_commands(script, results, capsys):
    assert script.main(["--results", str(results)]) == 0
    printed = capsys.readouterr().out
    name, tables = script.TABLE.name, 2 if script is main_table2 else 1
    frame = pd.read_csv(results / "tables" / f"{name}.csv")
    assert frame["ours"].isna().all()
    for task in {source for source, *_ in script.COLUMNS.values()} - {"reconstruction"}:
        own = [spec for spec in script.TABLE.specs if spec.trained]
        assert printed.count(f"experiments.make sample-{task}-") == len(own) * tables
    assert printed.count("experiments.make evaluate-final-") == 2 * tables, "rows may share a tokenizer"
    for entry in json.loads((PAPER / f"{name}.json").read_text())["values"]:
        line = frame[(frame["row"] == entry["row"]) & (frame["metric"] == entry["metric"])]
        assert line["paper"].tolist() == [entry["value"]], "every number typed from the paper is shown"
    claims = pd.read_csv(results / "tables" / f"{name}_signs.csv")
    assert set(claims["verdict"]) == {UNKNOWN}


def test_a_filled_table_names_its_records_and_asks_for_nothing_else(results, capsys):
    for name in TOKENS:
        sampled(results, name, task="frames")
        reconstructed(results, name)
    sampled(results, "router", task="frames", given="row")
    assert main_table4.main(["--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "What would fill" not in printed
    assert "400 (4)" in printed
    assert "never compare" in printed
    frame = pd.read_csv(results / "tables" / "main_table4.csv")
    for line in frame[frame["ours"].notna()].itertuples():
        record = records.read(results / "records" / f"{line.record}.json")
        _, name, factor, _ = main_table4.COLUMNS[line.metric]
        held = record.model[name] if name == "parameters" else record.metrics[name].value
        assert line.ours == pytest.approx(factor * held)


def test_the_missing_row_of_equal_compute_is_told_its_steps(results, capsys):
    for name in TOKENS:
        sampled(results, name, guidance=1.5, size="small")
        reconstructed(results, name)
    assert main_table2.main(["--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert f"steps={round(1500 * 64 / 45)}" in printed
    assert printed.count("experiments.sample with") == 2, "in the table of guided samples too"
    assert printed.count("guidance=1.5") == 2


def verdicts(results, seeds=(0,), **router):
    """The claims' verdicts; several training seeds, which scatter a little, give every value an interval."""
    for seed in seeds:
        scatter = {"gfvd": 400.0 + seed, "seconds_per_clip": 0.064 + seed / 1e5}
        sampled(results, "uniform", scatter, seed=seed)
        sampled(results, "router", {"gfvd": 300.0 + seed, "seconds_per_clip": 0.045 + seed / 1e5, **router}, seed=seed)
    rows = {"router, equal compute": Row(Spec("none", {})), **rows_of(results)}
    return {sign.name: sign.verdict for sign in main_table2.paper_claims(rows) if sign.name.startswith("router ")}


def test_signs_follow_the_figures(results):
    found = verdicts(results, seeds=(0, 1, 2))
    assert found["router generates 26 % fewer tokens than uniform"] == HOLDS
    assert found["router no worse than uniform, gfvd"] == HOLDS
    assert found["router saves 0.9 of its token saving in sampling time"] == HOLDS


def test_signs_may_fail(results):
    found = verdicts(results, seeds=(0, 1, 2), gfvd=420.0, mean_tokens=60.0, seconds_per_clip=0.064)
    assert found["router generates 26 % fewer tokens than uniform"] == FAILS
    assert found["router no worse than uniform, gfvd"] == FAILS
    assert found["router saves 0.9 of its token saving in sampling time"] == FAILS


def test_one_sampling_decides_neither_gfvd_nor_time(results):
    found = verdicts(results, class_consistency=54.0, class_consistency_balanced=40.0)
    assert found["router generates 26 % fewer tokens than uniform"] == HOLDS, "tokens are counted"
    assert found["router no worse than uniform, gfvd"] == UNSURE
    assert found["router saves 0.9 of its token saving in sampling time"] == UNSURE
    assert found["router no worse than uniform, class_consistency"] == UNSURE, "6 worse, ± 7.1"
    assert found["router no worse than uniform, class_consistency_balanced"] == FAILS, "10 worse"


def test_where_no_token_is_saved_there_is_no_time_to_save(results):
    assert verdicts(results, mean_tokens=70.0)["router saves 0.9 of its token saving in sampling time"] == FAILS


def games(results, **values):
    for assignment in TOKENS:
        sampled(results, assignment, values, protocol=GAMES, label="game")
    return rows_of(results, class_consistency)


def test_games_and_the_papers_tables_do_not_mix(results):
    motions = [sampled(results, name).id for name in TOKENS]
    shown = games(results)
    assert [ids(rows_of(results)[name], "class")[0] for name in TOKENS] == motions
    assert not {record.id for row in shown.values() for record in row.records} & set(motions)
    assert [row.value("class_consistency").value for row in shown.values()] == [60.0, 60.0]


@pytest.mark.parametrize(("rate", "verdict"), [(60.0, HOLDS), (6.0, UNSURE), (1.0, UNSURE)])
def test_a_class_is_followed_where_it_shows_more_often_than_chance(results, rate, verdict):
    """One of 50 games is named by chance in 2 % of the clips; the half-interval is 5 %."""
    sign = generation_claims.class_is_followed(
        games(results, class_consistency_balanced=rate), class_consistency.ADAPTIVE
    )
    assert sign.verdict == verdict
    assert sign.ours == f"{rate} % (± 5.0) against 2.0 %"


def test_what_would_fill_the_games_table_is_of_games(results, capsys):
    assert class_consistency.main(["--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("experiments.make sample-games-") == 2
    assert printed.count("experiments.make evaluate-proxy-games-") == 2
    assert "final" not in printed, "its tokenizer is there"
    assert "(paper" not in printed
