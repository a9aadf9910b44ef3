"""Table 1 and Figure 6: which trainings are compared, who wins where, and what the sweeps claim."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evatok.evaluation import protocols
from evatok.reporting import flextok_generation, flextok_sweeps
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, UNSURE
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions.videoflextok import figure6, table1

FLEX = {"form": "flexible", "decoder_mask": "causal"}


@pytest.fixture
def results(tmp_path) -> Path:
    """An empty folder of results."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def written(results) -> Callable[..., records.Record]:
    """Writes a record of games: (kind, values, model) -> the record."""

    def write(
        kind: str,
        protocol: str,
        values: dict[str, tuple[float, float | None]],
        config: dict[str, Any] | None = None,
        **model: Any,
    ) -> records.Record:
        told = protocols.get(protocol)
        directions = {"class_consistency": "higher"}
        metrics = {n: Metric(v, "", 320, directions.get(n, "lower"), half) for n, (v, half) in values.items()}
        record = records.new_record(
            kind=kind,
            status="toy",
            protocol={**told.to_record({}, 320, None), "deviations": [], "comparable": True},
            model=model,
            metrics=metrics,
            config=config or {},
            environment=dict.fromkeys(records.ENVIRONMENT_KEYS, ""),
        )
        records.write(record, results / "records")
        return record

    return write


@pytest.fixture
def sampled(written) -> Callable[..., records.Record]:
    """Writes a `sample` record: (class consistency, tokenizer form or assignment, kept, **model) -> the record."""

    def write(
        score: float, of: str, kept: int = 16, seed: int = 0, row: list[int] | None = None, **model: Any
    ) -> records.Record:
        facts: dict[str, Any] = {
            "size": "toy",
            "model": "toy",
            "label": "game",
            "seed": seed,
            "steps": 600,
            "batch": 32,
        }
        parents = {"clips": "b" * 64, "tokenizer": of * 8}
        usual: dict[str, Any] = {"task": "class", "guidance": 1.0, "assignment": "all", "training_flops": 3.4e13}
        if of in ("flexible", "grid"):
            told = {**FLEX, "form": of} if of == "flexible" else {"form": "grid"}
            order = "time-first" if of == "flexible" else "depth-first"
            facts |= {"order": order, "tokens_per_clip": 64.0, "tokenizer": told}
            usual |= {"kept": kept, "flow_steps": 20, "tokens_per_block": [float(kept)] * 4, "training_tokens": 1.2e6}
            usual["trunk_parameters"] = 3_400_000
        else:
            usual["assignment"], facts["row"] = of, row or [64]
            parents["router"] = "r" * 64
        metrics = {"gfvd": (1000 - 10 * score, None), "class_consistency": (score, 1.0)}
        metrics["mean_tokens"] = (4.0 * kept, None)
        model = {**usual, "facts": facts, "parents": parents, **model}
        return written("sample", "embedded-games-generation", metrics, **model)

    return write


@pytest.fixture
def trained(written) -> Callable[[str, float], str]:
    """Writes a generator's training: (sha256, peak learning rate) -> the sha256."""

    def write(sha256: str, rate: float) -> str:
        config = {"learning_rate": rate}
        written("stage5_generator", "embedded-games-generation", {"loss": (1.0, None)}, config, sha256=sha256)
        return sha256

    return write


def verdicts(results: Path, name: str) -> dict[str, str]:
    found = pd.read_csv(results / "tables" / f"videoflextok_{name}_signs.csv")
    return dict(zip(found.name, found.verdict, strict=True))


@pytest.mark.parametrize(("script", "group"), [(table1, "videoflextok-systems"), (figure6, "videoflextok-sweeps")])
def test_without_records_nothing_is_decided_and_the_recipes_are_named(script, group, results, capsys):
    assert script.main(["--results", str(results)]) == 0
    assert group in capsys.readouterr().out
    name = script.__name__.rpartition(".")[2]
    assert set(verdicts(results, name).values()) == {UNKNOWN}
    assert not (results / "tables" / f"videoflextok_{name}_winners.csv").exists()


def test_only_trainings_of_equal_operations_are_in_the_table(sampled, results):
    few = sampled(60.0, "flexible", 4)
    sampled(50.0, "grid")
    sampled(90.0, "router", 45, training_flops=1.2 * 3.4e13)
    fixed = sampled(55.0, "uniform", 64, training_flops=0.97 * 3.4e13)
    sampled(99.0, "flexible", 4, guidance=2.0)
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.record["VideoFlexTok, few tokens", "gfvd"] == few.id
    assert table.record["EVATok, fixed length", "class_consistency"] == fixed.id
    assert pd.isna(table.ours["EVATok, adaptive", "gfvd"])
    assert table.ours["3D grid", "pflop"] == pytest.approx(0.034)
    assert table.paper["LARP", "gfvd"] == 87.5


OPTIONS = {"temperature": 0.9, "top_k": 100, "top_p": 0.9}


@pytest.mark.parametrize("option", OPTIONS)
def test_systems_of_one_table_are_drawn_in_one_way(sampled, results, option):
    """Those without a flow decoder stand beside those whose flow has no guidance; other draws stand beside neither."""
    few = sampled(60.0, "flexible", 4, flow_guidance=1.0)
    fixed = sampled(55.0, "uniform", 64)
    sampled(99.0, "flexible", 4, **{option: OPTIONS[option]})
    sampled(99.0, "flexible", 4, flow_guidance=15.0)
    sampled(99.0, "router", 45, **{option: 2 * OPTIONS[option]})
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.record["VideoFlexTok, few tokens", "gfvd"] == few.id
    assert table.record["EVATok, fixed length", "gfvd"] == fixed.id
    assert pd.isna(table.ours["EVATok, adaptive", "gfvd"])


def test_rivals_of_another_length_or_learning_rate_are_left_out(sampled, trained, results):
    few = sampled(60.0, "flexible", 4, sha256=trained("1" * 64, 6e-4))
    fixed = sampled(55.0, "uniform", 64, sha256=trained("2" * 64, 6e-4))
    sampled(99.0, "uniform", 128, sha256=trained("3" * 64, 6e-4), row=[128])
    sampled(99.0, "router", 45, sha256=trained("4" * 64, 1e-4))
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.record["VideoFlexTok, few tokens", "gfvd"] == few.id
    assert table.record["EVATok, fixed length", "gfvd"] == fixed.id
    assert pd.isna(table.ours["EVATok, adaptive", "gfvd"])


def test_without_one_of_ours_no_other_took_as_many_operations(sampled, results):
    for rule, tokens in (("uniform", 64), ("router", 45)):
        sampled(50.0, rule, tokens)
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.ours[["EVATok, fixed length", "EVATok, adaptive"]].isna().all()


def test_who_wins_is_said_in_words_and_only_beyond_the_interval(sampled, results):
    sampled(60.0, "flexible", 4)
    sampled(40.0, "grid")
    sampled(59.5, "router", 45)
    assert table1.main(["--results", str(results)]) == 0
    won = pd.read_csv(results / "tables" / "videoflextok_table1_winners.csv").set_index("metric")
    score = won.loc["samples that show their class"]
    assert (score["best"], score["better than"]) == ("VideoFlexTok, few tokens", "3D grid")
    assert score["undecided against"] == "EVATok, adaptive"
    assert won.loc["gFVD", "better than"] == "-", "a single sampling has no interval"
    assert won.loc["tokens per clip", "best"] == "VideoFlexTok, few tokens"
    told = verdicts(results, "table1")
    assert told["VideoFlexTok, few tokens generates 75 % fewer tokens than 3D grid"] == HOLDS
    assert told["VideoFlexTok, few tokens better than EVATok, adaptive, class_consistency"] == UNSURE


def test_a_rows_reconstructions_are_those_of_its_tokenizer_at_its_tokens(sampled, written, results):
    sampled(60.0, "flexible", 4)
    sampled(55.0, "uniform", 64)
    flexible = {"system": "flexible tokenizer", "sha256": "flexible" * 8, "flow_steps": 20, "flow_guidance": 1.0}
    for kept, value in ((4, 100.0), (16, 50.0)):
        written("evaluate", "embedded-reconstruction", {"rfvd": (value, 2.0)}, **flexible, row=[kept])
    adaptive = {"system": "adaptive tokenizer", "sha256": "uniform" * 8, "assignment": "uniform"}
    for row, value in ((64, 70.0), (32, 10.0)):
        written("evaluate", "embedded-reconstruction", {"rfvd": (value, 2.0)}, **adaptive, row=[row])
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.ours["VideoFlexTok, few tokens", "rfvd"] == 100.0
    assert table.ours["EVATok, fixed length", "rfvd"] == 70.0


@pytest.fixture
def swept(sampled, trained) -> Callable[..., None]:
    """Writes a point of Figure 6, with 6 operations per weight and token and a rate of its size.

    (score, tokenizer form, kept, weights, training tokens, **model).
    """

    def write(score: float, of: str, kept: int, size: int, tokens: float, **model: Any) -> None:
        sha256 = trained(f"{size}-{tokens}-{of}", 6e-4 * (1e6 / size) ** 0.5)
        told = {"trunk_parameters": size, "training_tokens": tokens, "training_flops": 6.0 * size * tokens}
        sampled(score, of, kept, sha256=sha256, **told, **model)

    return write


def test_the_three_sweeps_share_what_they_do_not_vary(sampled, swept, results):
    """Learning rates vary with the size."""
    for size, tokens in ((1e5, 1e6), (1e6, 1e6), (1e6, 4e6), (1e5, 2e6), (1e6, 2e7)):
        swept(60.0, "flexible", 4, int(size), tokens)
        swept(40.0, "flexible", 16, int(size), tokens)
        swept(50.0 if size < 1e6 else 58.0, "grid", 16, int(size), tokens)
    sampled(99.0, "flexible", 4, guidance=2.0, trunk_parameters=10, training_tokens=200.0)
    points = flextok_sweeps.points_of(flextok_generation.sampled(results / "records"))
    by_axis = {sweep.axis: sweep.points for sweep in flextok_sweeps.sweeps_of(points)}
    assert {point.tokens for point in by_axis["size"]} == {1e6}
    assert {point.size for point in by_axis["tokens"]} == {1_000_000}
    assert {point.tokens / point.size for point in by_axis["flops"]} == {20.0}
    assert figure6.main(["--results", str(results)]) == 0
    frame = pd.read_csv(results / "figures" / "videoflextok_figure6.csv")
    assert set(frame.line) == {"3D grid", "4 tokens per frame", "all tokens"}
    told = verdicts(results, "figure6")
    assert told["smallest generators: 4 tokens per frame better than the 3D grid, class_consistency"] == HOLDS
    assert told["with 4 tokens per frame a fifth of the size is no worse than the 3D grid, class score"] == HOLDS
    assert len([name for name in told if name.startswith("compute-optimal")]) == 2


@pytest.mark.parametrize("option", [*OPTIONS, "flow_guidance"])
def test_points_of_a_sweep_are_drawn_in_one_way(sampled, results, option):
    told = {"trunk_parameters": 10**6, "training_tokens": 1e6}
    kept = [sampled(60.0, "flexible", tokens, **told).id for tokens in (4, 16)]
    sampled(99.0, "flexible", 4, **{option: OPTIONS.get(option, 15.0)}, **told)
    points = flextok_sweeps.points_of(records.query(results / "records", kind="sample"))
    assert sorted(record.id for point in points for record in point.records) == sorted(kept)


A_FIFTH = "with 4 tokens per frame a fifth of the size is no worse than the 3D grid, class score"


def test_a_smaller_generator_that_is_worse_fails(swept, results):
    for size, few, grid in ((10**5, 30.0, 20.0), (10**6, 50.0, 60.0)):
        swept(few, "flexible", 4, size, 1e6)
        swept(grid, "grid", 16, size, 1e6)
    assert figure6.main(["--results", str(results)]) == 0
    assert verdicts(results, "figure6")[A_FIFTH] == FAILS


def test_a_fifth_of_the_size_is_the_nearest_size_at_or_below_it(swept, results):
    for size, few, grid in ((10**4, 10.0, 5.0), (2 * 10**5, 70.0, 20.0), (10**6, 90.0, 60.0)):
        swept(few, "flexible", 4, size, 1e6)
        swept(grid, "grid", 16, size, 1e6)
    assert figure6.main(["--results", str(results)]) == 0
    assert verdicts(results, "figure6")[A_FIFTH] == HOLDS


def test_the_caption_of_table_1_says_which_trainings_are_not_equal(sampled, written, results):
    few = sampled(60.0, "flexible", 4)
    fixed = sampled(55.0, "uniform", 64)
    protocol, values = "embedded-reconstruction", {"rfvd": (100.0, 2.0)}
    flexible = {"system": "flexible tokenizer", "flow_steps": 20, "flow_guidance": 1.0, "row": [4]}
    tokenizers = few.model["parents"]["tokenizer"], fixed.model["parents"]["tokenizer"]
    written("evaluate", protocol, values, sha256=tokenizers[0], parents={"codec": "c"}, **flexible)
    adaptive = {"assignment": "uniform", "row": [64]}
    written("evaluate", protocol, values, sha256=tokenizers[1], parents={}, **adaptive)
    text = captioned(results)
    assert "from scratch" not in text, "nor is it said that all are"
    assert "fewer clips" not in text, "both saw 600 steps of 32"
    written("evaluate", protocol, values, sha256=tokenizers[1], parents={"start": "p"}, **adaptive)
    sampled(55.0, "uniform", 64, facts={**fixed.model["facts"], "steps": 89})
    text = captioned(results)
    started = 'from a trained proxy in "EVATok, fixed length", and from scratch in "VideoFlexTok, few tokens"'
    assert f"Tokenizers started {started}." in text
    assert '(19,200 in "VideoFlexTok, few tokens", 2,848 in "EVATok, fixed length")' in text


def captioned(results: Path) -> str:
    assert table1.main(["--results", str(results)]) == 0
    return (results / "tables" / "videoflextok_table1.md").read_text()


UNUSUAL = (
    {"tokenizer": {**FLEX, "alignment": False}},
    {"tokenizer": {**FLEX, "alignment": True, "stage": 2}},
    {"tokenizer": {**FLEX, "registers": 16}, "kept": 4},
)
"""Facts of generators on an unaligned tokenizer, on one of stage 2, and of one that was taught a few tokens."""


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_points_and_systems_are_of_the_usual_tokenizer_with_all_its_tokens(sampled, results, unusual):
    few = [sampled(60.0, "flexible", 4), sampled(50.0, "flexible", 16)]
    fixed = sampled(55.0, "uniform", 64)
    facts = {**few[0].model["facts"], **unusual}
    sampled(99.0, "flexible", 4, facts=facts)
    points = flextok_sweeps.points_of(flextok_generation.sampled(results / "records"))
    assert sorted(record.id for point in points for record in point.records) == sorted(r.id for r in few)
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.record["VideoFlexTok, few tokens", "gfvd"] == few[0].id
    assert table.record["EVATok, fixed length", "gfvd"] == fixed.id


def test_newer_points_of_the_sweeps_leave_table_1_as_it_is(sampled, results):
    """They are of the same size and clips, and took other operations, which fewer systems or records share."""
    ours = [sampled(60.0 + seed, "flexible", 4, seed).id for seed in range(2)]
    fixed = sampled(55.0, "uniform", 64)
    sampled(50.0, "grid")
    for flops in (3.4e13 / 8, 2 * 3.4e13):
        sampled(99.0, "flexible", 4, training_flops=flops)
        sampled(98.0, "grid", training_flops=flops)
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.record["VideoFlexTok, few tokens", "gfvd"].split() == ours
    assert table.record["EVATok, fixed length", "gfvd"] == fixed.id


def test_of_equally_filled_sets_that_of_most_records_makes_table_1(sampled, results):
    ours = [sampled(60.0 + seed, "flexible", 4, seed).id for seed in range(2)]
    sampled(99.0, "flexible", 4, training_flops=3.4e13 / 8)
    assert table1.main(["--results", str(results)]) == 0
    table = pd.read_csv(results / "tables" / "videoflextok_table1.csv").set_index(["row", "metric"])
    assert table.record["VideoFlexTok, few tokens", "gfvd"].split() == ours
